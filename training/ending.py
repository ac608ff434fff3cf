"""How a process ends of what others should know of, those of its job and who watches it: they are told first, and that
does not take for ever."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

LAST_WORDS = 10.0  # seconds that all telling may take: a store or a webhook may not answer

before_failing: list[Callable[[str], None]] = []  # are told why this process ends, before it does
_ending = threading.Lock()


def tell_failing(why: str) -> None:
    """Tells all of `before_failing` at the same time; what fails of that, or takes too long, is let be."""

    def say(told: Callable[[str], None]) -> None:
        with suppress(Exception):
            told(why)

    telling = [threading.Thread(target=say, args=(told,), daemon=True) for told in before_failing]
    for thread in telling:
        thread.start()
    for thread in telling:
        thread.join(LAST_WORDS)


def end_now(why: str, status: int) -> NoReturn:
    """Ends the process from any thread: the main one may be waiting for ever, and nothing more is to be written."""
    _ending.acquire()  # for good: two threads may find the same
    print(f"error: {why}", file=sys.stderr, flush=True)
    tell_failing(why)
    os._exit(status)
