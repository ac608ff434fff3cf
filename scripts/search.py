"""Search texts by meaning: python -m scripts.search --help"""

from collections.abc import Callable
from typing import Any

from training.command import run

from . import prog


def main() -> None:
    from retrieval.search import commands as search
    from retrieval.search import store
    from retrieval.search.page.serving import serve
    from training.flags import parse_command

    run_of: dict[type, Callable[[Any], Any]] = {
        store.BuildConfig: store.build,
        store.AddConfig: store.add,
        search.QueryConfig: search.query,
        search.EvaluateIndexConfig: search.evaluate,
        search.ServeConfig: serve,
    }
    config = parse_command(
        {kind.__name__.removesuffix("Config").removesuffix("Index").lower(): kind for kind in run_of},
        prog=prog("search"),
        description="Search texts by meaning: build an index, add to it, query it, evaluate it, serve it.",
    )
    run_of[type(config)](config)


if __name__ == "__main__":
    run(main)
