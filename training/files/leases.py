"""One run at a time in a folder of a bucket, where no system frees the lock of a process that was killed.

A lease is an object that its holder writes again and again; whoever sees it unchanged for long enough takes it over.
Who has it is decided by the store alone, which writes on the condition of the generation that was seen; and how long it
stood unchanged is told by one's own monotonic clock: no two clocks are compared, and none is read that may jump. (Gray
and Cheriton, 1989.) That condition is the lease's alone: whatever else a holder writes, the store takes from anybody. A
holder that stood still, and was followed, can write until it sees what time it is, a sixtieth of `dead` after it goes
on at the latest; and what it had sent before may still come.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from training.ending import end_now
from training.files.buckets import read_with_generation, remove_if, write_if
from training.files.errors import DataError, line
from training.files.processes import alive
from training.telling import tell

DEAD = 60.0  # seconds without being written again after which a lease may be taken over; a holder writes it six times
LOST = 70  # the exit status of a run that no more has its folder


@contextmanager
def leased(place: Path, *, wait: bool = False, dead: float = DEAD) -> Iterator[None]:
    """Holds the object `place` for this process alone.

    One of a dead process of this machine is taken over at once, any other after `dead` seconds. Raises DataError,
    unless `wait`, as soon as its holder is seen to be alive. A process that has not written its own for `dead` seconds,
    because it stood still or its store did not answer, ends at once: another may have taken it over. To give it back
    takes a sixth of `dead` at most: where the store does not answer then, it stays, as of a process that is dead.
    """
    about = _about()
    # last: before the last writing, so that nobody counts from an earlier one
    held, last = _acquired(place, about, wait, dead)
    done, cause = threading.Event(), ""

    def keep() -> None:
        nonlocal held, last, cause
        while not done.wait(dead / 6):
            began = time.monotonic()
            try:
                held, last, cause = write_if(place, about, held), began, ""
            except FileExistsError:
                if not done.is_set():
                    end_now(f"{place}: taken over by another run, or removed; this one ends", LOST)
            except Exception as error:  # the store does not answer; it may yet
                cause = f" ({line(error)})"
                tell(f"{place}: cannot be written now ({line(error)})")
        with suppress(Exception):  # whoever comes sees that it is written no more
            remove_if(place, held)

    def watch() -> None:
        while not done.wait(dead / 60):
            if time.monotonic() - last > dead:
                why = f"not written for {dead:g} seconds, so another run may be at work there; this one ends{cause}"
                end_now(f"{place}: {why}", LOST)

    threads = [threading.Thread(target=target, name="lease", daemon=True) for target in (keep, watch)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        threads[0].join(dead / 6)  # a store that does not answer keeps nobody from ending


def _acquired(place: Path, about: bytes, wait: bool, dead: float) -> tuple[int, float]:
    """The generation of the object as this process has written it, and when it began to."""
    over = 0  # the generation that may be written over; none may be there at first
    seen, since = 0, 0.0
    while True:
        began = time.monotonic()
        with suppress(FileExistsError):
            return write_if(place, about, over), began
        try:
            content, found = read_with_generation(place)
        except FileNotFoundError:  # given back meanwhile
            over = 0
            continue
        if seen not in (0, found) and not wait:
            raise DataError(f"{place.parent}: another run is at work there; wait for it, or give another folder")
        if not seen and not _died_here(content):
            tell(f"{place.parent}: another run is or was at work there; waiting for it, or to see that it is dead")
        if found != seen:
            seen, since = found, time.monotonic()
        over = found if _died_here(content) or time.monotonic() - since > dead else 0
        time.sleep(0 if over else dead / 60)


def _about() -> bytes:
    """Who holds it, and what no other holder writes. The same each time, so that a holder knows its own writing whose
    answer was lost; to those who wait its generation says that it was written again."""
    return json.dumps({**_HERE, "process": os.getpid(), "holder": uuid.uuid4().hex}).encode()


def _died_here(content: bytes) -> bool:
    """Was it written by a process of this machine that is no more?"""
    try:
        about = json.loads(content)
        return {name: about[name] for name in _HERE} == _HERE and not alive(about["process"])
    except (ValueError, LookupError, TypeError):
        return False


def _machine() -> dict[str, Any]:
    """Within which processes have numbers of their own: one container, from one start of the machine to the next."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"host": socket.gethostname(), "boot": boot, "numbers": os.readlink("/proc/self/ns/pid")}
    except OSError:  # a system without /proc: of no other process is it known that it is dead
        return {"host": socket.gethostname(), "boot": uuid.uuid4().hex}


_HERE = _machine()
