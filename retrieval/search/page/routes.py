"""The API, a route a line, and the page over it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from jinja2 import Environment, FileSystemLoader

from retrieval.search.commands import Hit, Searcher
from retrieval.search.page.writer import Writer
from training.files.errors import DataError

SHOWN = 10  # answers, unless another number is asked for
MOST = 100
LONGEST = 1000  # characters of a text
HERE = Path(__file__).parent

Text = Annotated[str, Query(min_length=1, max_length=LONGEST)]
Count = Annotated[int, Query(ge=1, le=MOST)]


@dataclass(frozen=True)
class Hits:
    question: str
    hits: list[Hit]


@dataclass(frozen=True)
class Written:
    text: str
    score: float  # the cosine


@dataclass(frozen=True)
class Similar:
    text: str
    similar: list[Written]


@dataclass(frozen=True)
class Similarity:
    a: str
    b: str
    cosine: float


class Route(NamedTuple):
    path: str
    answer: Callable[..., Any]  # its parameters are what is asked, its result is what is given
    about: str


def routes(searcher: Searcher, writer: Writer) -> list[Route]:
    """What can be asked of an index and of what writes."""
    # One at a time of each. Who waits holds no thread, of which the server has 40: a search does not wait for what is
    # being written, however many ask for it.
    searching, writing = (partial(run_sync, limiter=CapacityLimiter(1)) for _ in range(2))

    async def search(q: Text, k: Count = SHOWN) -> Hits:
        _check(searcher, {"Question": q})
        (hits,) = await searching(searcher.search, [q], k)
        return Hits(q, hits)

    async def similar(text: Text, k: Count = SHOWN) -> Similar:
        if writer.write is None:
            raise HTTPException(501, writer.says)
        _check(searcher, {"Sentence": text})
        return Similar(text, [Written(*written) for written in await writing(writer.write, text, k)])

    async def similarity(a: Text, b: Text) -> Similarity:
        _check(searcher, {"First text": a, "Second text": b})
        first, second = await searching(searcher.vectors, [a, b])
        return Similarity(a, b, float(first @ second))

    return [
        Route("/api/search", search, "The k texts of the index that are nearest to a question."),
        Route("/api/similar", similar, "Up to k sentences like a text, written by the model."),
        Route("/api/similarity", similarity, "The cosine of two texts, by the encoder of the index."),
    ]


def _check(searcher: Searcher, texts: Mapping[str, str]) -> None:
    """Raises DataError, with its name on the page, for a text of which nothing can be said."""
    for name, text in texts.items():
        if reason := searcher.unanswerable(text):
            raise DataError(f"{name}: {reason}")


def application(searcher: Searcher, title: str, writer: Writer) -> FastAPI:
    """The web application: / is the page, the routes are its API, /docs describes them; what is refused has a line,
    `detail`, that says why."""
    template = Environment(loader=FileSystemLoader(HERE), autoescape=True).get_template("page.html")
    count = f"{len(searcher.texts):,} texts"
    page = template.render(title=title, count=count, writer=writer, longest=LONGEST, shown=SHOWN, most=MOST)
    app = FastAPI(title=title)
    for path, answer, about in routes(searcher, writer):
        app.add_api_route(path, answer, description=about)
    for path, kind, content in (
        ("/", "text/html", page),
        ("/page.css", "text/css", (HERE / "page.css").read_text("utf-8")),
        ("/page.js", "text/javascript", (HERE / "page.js").read_text("utf-8")),
    ):
        app.add_api_route(path, _giving(kind, content), include_in_schema=False)
    for error in (DataError, RequestValidationError, Exception):
        app.add_exception_handler(error, _refusal)
    return app


def _giving(kind: str, content: str) -> Callable[[], Response]:
    # no-cache: a browser asks again, lest it have the script of one version and the page of another.
    return lambda: Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


def _refusal(_: Request, error: Exception) -> JSONResponse:
    """One line: what of the question cannot be answered; of an error of ours, where it is told."""
    if isinstance(error, RequestValidationError):
        found = "; ".join(f"{wrong['loc'][-1]}: {wrong['msg']}" for wrong in error.errors())
        return JSONResponse({"detail": found}, 422)
    if isinstance(error, DataError):
        return JSONResponse({"detail": str(error)}, 422)
    return JSONResponse({"detail": "The server failed; where it was started it says how."}, 500)
