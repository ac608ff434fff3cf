"""One side of a comparison, in a process of its own."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from benchmarks.side import Run, in_a_line, serve


class SideFailed(Exception):
    """Why, in one line."""


class Side:
    """Starts at once, and waits: `ready` until it is warm, then each `turn` runs it once."""

    def __init__(self, name: str, make: Callable[[], Run], environment: Mapping[str, str]):
        """make: a function of a module, or a partial of one, as it is sent by pickle. What only one side needs it
        imports itself: a library has threads of its own. environment: set before any is imported. Raises what pickle
        does where it cannot send `make`."""
        context = multiprocessing.get_context("spawn")
        self.name, (self._told, there) = name, context.Pipe()
        self._process = context.Process(target=serve, args=(there, pickle.dumps(make)), name=name)
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
        assert self._process.pid is not None  # it is started
        return self._process.pid

    def end(self) -> None:
        """Of the process and of all that it has started."""
        self._told.close()
        try:
            self._process.join(10)
        finally:
            with suppress(ProcessLookupError):  # it left nothing, or ended before it had a group
                os.killpg(self.pid, signal.SIGKILL)
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
        except Exception as error:  # of its class's own
            raise SideFailed(f"what it returned cannot be read: {in_a_line(error)}") from None
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
