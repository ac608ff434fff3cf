"""Sides with little to do, in a module that is imported quickly: each of them is a process."""

import os
import signal
import subprocess
import time


def sleeper(seconds: float):
    return lambda: time.sleep(seconds) or seconds


def worker(seconds: float):
    """A side that computes."""

    def run():
        begin = time.process_time()
        while time.process_time() - begin < seconds:
            pass

    return run


def place():
    cores = sorted(os.sched_getaffinity(0))
    return lambda: {"cores": cores, "threads": os.environ["OMP_NUM_THREADS"], "process": os.getpid()}


def noted(path: str, name: str):
    def run():
        with open(path, "a") as file:
            file.write(name)

    return run


def fails_at(runs: int, how):
    left = iter(range(runs))

    def run():
        if next(left, None) is None:
            how()

    return run


def unmakable():
    import no_such_library  # noqa: F401


def rude():
    raise ValueError("what is wrong\nand much more")


class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


def mute():
    raise Mute


class Foreign:
    """What only the process that made it can read."""

    def __reduce__(self):
        return only_in, (os.getpid(),)


def only_in(process: int):
    if os.getpid() != process:
        raise ModuleNotFoundError("No module named 'torch'")


def foreign():
    return Foreign


def parent(path: str):
    """A side that starts a process, and writes its number."""
    child = subprocess.Popen(["sleep", "600"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    return lambda: None


def killed():
    os.kill(os.getpid(), signal.SIGKILL)
