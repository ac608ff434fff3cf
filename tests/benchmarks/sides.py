"""Sides with little to do, in a module that is imported quickly: each of them is a process."""

import os
import signal
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


def killed():
    os.kill(os.getpid(), signal.SIGKILL)
