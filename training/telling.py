"""What the library has to say: lines to the logger "pegasus_zh",
which commands show and a program treats as it likes."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

Say = Callable[[str], None]
logger = logging.getLogger("pegasus_zh")


def tell(text: str) -> None:
    logger.info(text)


def silent(*_: object) -> None:
    """What is given to say nothing: by a process that is not the first, and within a larger run."""


def show(stream: TextIO | None = None) -> None:
    """Prints what is told from now on, as commands do, to standard output or another stream."""
    logger.handlers = [_Printer(stream)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Printer(logging.Handler):
    def __init__(self, stream: TextIO | None):
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=self._stream or sys.stdout, flush=True)
