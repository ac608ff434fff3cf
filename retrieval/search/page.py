"""A page and a JSON API over an index."""

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader

from retrieval.search.commands import Searcher, ServeConfig, open_as_asked
from training.files.errors import DataError

if TYPE_CHECKING:
    from fastapi import FastAPI

SHOWN = 10  # hits, unless another number is asked for
MOST = 100
LONGEST = 1000  # characters of a question


def application(searcher: Searcher, title: str) -> "FastAPI":
    """The web application (FastAPI): / is the page, /api/search the hits of a question as JSON, /docs describes it."""
    try:
        from fastapi import FastAPI, HTTPException, Query
        from fastapi.responses import HTMLResponse
    except ImportError:
        raise DataError("serve needs FastAPI and uvicorn: pip install fastapi uvicorn") from None
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html")
    page = template.render(title=title, count=f"{len(searcher.texts):,} texts", longest=LONGEST, shown=SHOWN, most=MOST)
    app, one_at_a_time = FastAPI(title=title), threading.Lock()

    @app.get("/", response_class=HTMLResponse)
    def start() -> str:
        return page

    @app.get("/api/search")
    def search(q: str = Query(min_length=1, max_length=LONGEST), k: int = Query(SHOWN, ge=1, le=MOST)) -> dict:
        try:
            with one_at_a_time:
                hits = searcher.search([q], k)[0]
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        return {"question": q, "hits": [hit._asdict() for hit in hits]}

    return app


def serve(config: ServeConfig) -> None:
    """Serves until it is interrupted. Raises DataError, such as for a port that is taken."""
    try:
        import uvicorn
    except ImportError:
        raise DataError("serve needs FastAPI and uvicorn: pip install fastapi uvicorn") from None
    # Before anything is loaded: who asks meanwhile waits.
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise DataError(f"{config.host}:{config.port}: {error.strerror}; give another --port or --host") from None
    with listening:
        searcher = open_as_asked(config)
        for length in (1, 20, 40, 80, 160, 320, LONGEST):  # compiles before the first question, for each length of rows
            searcher.index.search(searcher.vectors(["问" * length]), min(SHOWN, max(len(searcher.index), 1)))
        print(f"http://{config.host}:{config.port}  (Ctrl-C ends it)", flush=True)
        app = application(searcher, Path(config.folder).absolute().name)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
