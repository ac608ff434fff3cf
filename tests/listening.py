"""What the library tells, as a list; and a terminal, for its bars."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from training.telling import logger


@contextmanager
def listening() -> Iterator[list[str]]:
    """The lines that are told meanwhile, in their order."""
    lines: list[str] = []
    level, handler = logger.level, logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Terminal(io.StringIO):
    """Standard error as it is at a terminal, and what was written to it."""

    def isatty(self) -> bool:
        return True
