"""A bar of the bytes that are done, which moves within a shard and by what other processes do."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tqdm import tqdm

from training.telling import showing

_SECONDS = 0.2  # between two looks


class Done(Protocol):
    """How many bytes are done so far."""

    @property
    def bytes(self) -> int: ...

    def add(self, count: int) -> None: ...


@dataclass
class DoneHere(Done):
    """By this process alone."""

    bytes: int = 0

    def add(self, count: int) -> None:
        self.bytes += count


class DoneTogether(Done):
    """By this process and those it spawns with it as an argument."""

    def __init__(self) -> None:
        self._count = multiprocessing.get_context("spawn").Value("q", 0)

    @property
    def bytes(self) -> int:
        return self._count.value

    def add(self, count: int) -> None:
        with self._count.get_lock():
            self._count.value += count


@contextmanager
def bar(name: str, done: Done) -> Iterator[None]:
    """Shows what is done within, if bars are to be drawn; its clock goes on while one document takes long."""
    with tqdm(desc=name, unit="B", unit_scale=True, disable=not showing() or None) as shown:
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(_SECONDS):
                if not shown.update(done.bytes - shown.n):  # which has drawn nothing
                    shown.refresh()

        thread = threading.Thread(target=follow, daemon=True)
        if not shown.disable:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread.ident:
                thread.join()
                shown.update(done.bytes - shown.n)
