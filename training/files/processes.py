"""Which processes of this machine there are, and one of them at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from training.telling import tell


def alive(process: int) -> bool:
    """Is there a process of this number?"""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True
    return state != "Z"  # killed, and its parent has not asked yet


def system_lock(file: Path) -> FileLock:
    """A lock that the system keeps, or none: a file that merely lies there would outlive a process that is killed.

    Does not wait: raises filelock.Timeout, which is an OSError, where another process has it.
    """
    return FileLock(file, blocking=False, fallback_to_soft=False)


@contextmanager
def one_by_one(file: Path, waiting: str) -> Iterator[None]:
    """Holds the lock `file`, which is made; tells `waiting` before it waits for another process or thread."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = system_lock(file)
    try:
        held = lock.acquire()
    except Timeout:
        tell(waiting)
        held = lock.acquire(blocking=True)
    with held:
        yield
