"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from training.files.buckets import in_bucket
from training.files.leases import leased
from training.files.processes import system_lock
from training.telling import tell


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Makes the folder and holds it for one process alone; the system frees it should that process be killed, and of a
    folder in a bucket those who ask for it.

    Raises ValueError where it cannot be a folder and, unless `wait`, where another process holds it.
    """
    if in_bucket(folder):
        with leased(folder / ".lock", wait=wait):
            yield
        return
    lock = system_lock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout:
        if not wait:
            raise ValueError(f"{folder}: another run is at work there; wait for it, or give another folder") from None
        tell(f"waiting for another run in {folder}")
        held = lock.acquire(blocking=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be used as a folder ({error.strerror}): give another") from error
    with held:
        yield
