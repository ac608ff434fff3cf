"""From a command to a server that listens."""

import socket

from retrieval.search.commands import ServeConfig, open_as_asked
from retrieval.search.page.writer import writer_for
from training.files.buckets import disk_path
from training.files.errors import DataError


def serve(config: ServeConfig) -> None:
    """Serves until it is interrupted. Raises DataError, such as for a port that is taken."""
    try:
        import uvicorn

        from retrieval.search.page.routes import LONGEST, SHOWN, application
    except ModuleNotFoundError:
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
        app = application(
            searcher, disk_path(config.folder, "--folder").absolute().name, writer_for(config.writer, searcher.source)
        )
        print(f"http://{config.host}:{config.port}  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
