"""One side of a comparison, in a process of its own."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.side import Run, serve


class SideFailed(Exception):
    """Why, in one line."""


class Side:
    """Starts at once, and waits: `ready` until it is warm, then each `turn` runs it once."""

    def __init__(self, name: str, make: Callable[[], Run], environment: Mapping[str, str]):
        """make: a function of a module, or a partial of one, as it is sent by pickle. What only one side needs it
        imports itself: a library has threads of its own. environment: set before any is imported."""
        context = multiprocessing.get_context("spawn")
        self.name, (self._told, there) = name, context.Pipe()
        self._process = context.Process(target=serve, args=(there, make), name=name)
        with _set(environment):
            self._process.start()
        there.close()  # so that its end is seen here

    def ready(self) -> Any:
        """What its first run returned. Raises SideFailed."""
        return self._hear("ready")[0]

    def turn(self, *, idle: bool) -> tuple[float, float]:
        """Seconds of one run, by the clock and of its processors; if it lay idle, after one that is not timed.
        Raises SideFailed."""
        try:
            self._told.send(idle)
        except OSError:
            pass  # it is gone: what it said last is read
        wall, processor = self._hear("ran")
        return wall, processor

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def end(self) -> None:
        self._told.close()
        self._process.join(10)
        self._process.kill()
        self._process.join()

    def _hear(self, wanted: str) -> list:
        try:
            word, *rest = self._told.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            raise SideFailed(
                f"its process died by signal {-code}" if code < 0 else f"its process ended with {code}"
            ) from None
        if word != wanted:
            raise SideFailed(*rest)
        return rest


@contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
