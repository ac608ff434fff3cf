"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Makes the folder and holds it for one process alone; the system frees it should that process be killed.

    Raises ValueError where it cannot be a folder and, unless `wait`, where another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)  # NFS locks only what is open for writing
    except OSError as error:
        raise ValueError(f"{folder} cannot be used as a folder ({error.strerror}): give another") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise ValueError(
                    f"{folder}: another run is at work there; wait for it, or give another folder"
                ) from None
            print(f"waiting for another run in {folder}", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
