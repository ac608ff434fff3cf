"""What the process of one side does: makes what is measured, runs it once, and then once whenever it is told to."""

import os
import pickle
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

Run = Callable[[], object]  # one turn; what the first returns is sent back and may be compared


def serve(harness: Connection, pickled: bytes) -> None:
    """Sends ("ready", what the first run returned), then ("ran", wall seconds, processor seconds) for every turn;
    ("failed", one line) instead of either ends it, as does a harness that is gone.
    pickled: the function that makes what is run, which may fail to be read here."""
    os.setsid()  # what it starts is of its group, and ends with it
    try:
        make: Callable[[], Run] = pickle.loads(pickled)
        run = make()
        harness.send(("ready", run()))  # compiled and warm
        while True:
            if harness.recv():  # others ran meanwhile: a virtual machine takes idle memory back, which costs seconds
                run()
            processor, wall = seconds(), time.perf_counter()
            run()
            wall = time.perf_counter() - wall
            harness.send(("ran", wall, seconds() - processor))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass
    except BaseException as error:
        with suppress(OSError):
            harness.send(("failed", in_a_line(error)))


def in_a_line(error: BaseException) -> str:
    """Its type and the first line of what it says, if it can say it."""
    try:
        words = str(error).strip().splitlines()
    except Exception:
        words = []
    return ": ".join([type(error).__name__, *words[:1]])


def seconds() -> float:
    """Of processor time: of all threads, and of those children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
