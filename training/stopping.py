"""How a run is told to stop: SIGTERM, as preemptible machines send it, or Ctrl-C."""

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
    jax.distributed, which tells all of them.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda number: asked.is_set()
        return

    def ask(number: int, _: object) -> None:
        asked.set()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda number: asked.is_set()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
