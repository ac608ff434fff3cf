"""What the library has to say: lines to the logger "pegasus_zh",
which commands show and a program treats as it likes."""

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger("pegasus_zh")

# Of the process, not of a thread's context: what a silent training starts in other threads is silent too. One entry a
# silence, since those of two threads may overlap, and a list's append and pop need no lock.
_silences: list[None] = []


def tell(text: str) -> None:
    if not silent():
        logger.info(text)


@functools.cache
def tell_once(text: str) -> None:
    """The same line no second time."""
    tell(text)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is told within, and bars that begin there are off: around a training within a larger run."""
    fall_silent()
    try:
        yield
    finally:
        _silences.pop()


def fall_silent() -> None:
    """The same from now on: of a process that is not the first."""
    _silences.append(None)


def silent() -> bool:
    return bool(_silences)


def showing() -> bool:
    """Are bars to be drawn? Of a command that shows what is told, outside of a silence."""
    return not silent() and any(isinstance(handler, _Printer) for handler in logger.handlers)


def show(stream: TextIO | None = None) -> None:
    """Prints what is told from now on, as commands do, to standard output or another stream; bars are drawn, too."""
    logger.handlers = [_Printer(stream)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Printer(logging.Handler):
    def __init__(self, stream: TextIO | None):
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=self._stream or sys.stdout, flush=True)
