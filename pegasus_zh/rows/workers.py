"""A pool of processes for numbered tasks: few tasks held at a time, no process left behind."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.process import BaseProcess
from typing import Any


def in_processes(
    make: Callable[[int, Any], Any], tasks: Iterator[tuple[int, Any]], workers: int
) -> Iterator[tuple[int, Any]]:
    """(number, make(number, task)) as they get done; one task more than workers is held. Raises what `make` raises, and
    BrokenProcessPool for a killed worker.

    Spawned, since the threads of jax forbid a fork: `make` goes to each worker once, pickled.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(make,))
    running: dict[Future[Any], int] = {}
    try:
        for number, task in tasks:
            if len(running) > workers:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
            running[pool.submit(_make_in_worker, number, task)] = number
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
    finally:
        pool.shutdown(cancel_futures=True)


_make: Callable[[int, Any], Any]  # of this process, if it is a worker


def _start_worker(make: Callable[[int, Any], Any]) -> None:
    global _make
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it, once
    if parent := multiprocessing.parent_process():  # the one that spawned this
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _make = make


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _make_in_worker(number: int, task: Any) -> Any:
    return _make(number, task)
