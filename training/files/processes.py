"""Which processes of this machine there are."""

import os
from pathlib import Path


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
