"""How a run is told to stop: SIGTERM, as preemptible machines send it, or Ctrl-C."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


@contextmanager
def told_to_stop() -> Iterator[Callable[[int], bool]]:
    """Gives a question, asked after each step by its number: is the run to save and leave? All processes answer alike.

    A first Ctrl-C is such an order, a second one interrupts. With several processes SIGTERM is handled by
    jax.distributed, which tells all of them, and Ctrl-C becomes one.
    """
    several, asked = jax.process_count() > 1, threading.Event()
    question = multihost_utils.reached_preemption_sync_point if several else lambda number: asked.is_set()
    if threading.current_thread() is not threading.main_thread():
        yield question
        return

    def ask(number: int, _: object) -> None:
        signal.signal(number, previous[signal.Signals(number)])
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
        asked.set()

    heeded = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield question
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
