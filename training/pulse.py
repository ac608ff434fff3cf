"""Are the other processes of a job alive? Where one is dead or stands still the others end too, with one line, for they
would wait for it in the next collective for ever; and what started them starts all again. One whose main thread alone
hangs, as in a read that never ends, gives signs of life: of it nothing is found.

Each writes a growing number into the key-value store of jax.distributed, and reads those of the others. How long one
has stood still is told by the reader's own monotonic clock. JAX's own heartbeats end a process by an abort and many
lines: they are left to find what this misses, and where the first process is killed they are the sooner.
"""

import atexit
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax

from training.ending import before_failing, end_now

_KEY = "pegasus_zh/pulse/"
_LAST = 5.0  # seconds in which its threads end; a store may not answer


class Pulse:
    """This process's, and what it knows of the others': in two threads, since the store may not answer, as long as the
    process lives."""

    def __init__(self, silence: float):
        """silence: seconds without a sign of a process after which it counts as dead."""
        from jax._src.api import clean_up
        from jax._src.distributed import global_state  # neither has a public name

        store: Any = global_state.client
        self._store, self._me, self._silence = store, jax.process_index(), silence
        self._answered = time.monotonic()  # by the store
        self._heard = dict.fromkeys(range(jax.process_count()), ("", self._answered))  # what each wrote, and since when
        self._ended = threading.Event()
        before_failing.append(self._tell_end)
        targets = (self._beat, self._watch)
        self._threads = [threading.Thread(target=target, name="pulse", daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()
        # After JAX has waited for all processes: until then they give signs of life. A thread that Python's end met
        # within the store's client would abort the process.
        atexit.unregister(clean_up)
        atexit.register(self._stop)
        atexit.register(clean_up)

    def _stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_LAST)

    def _tell_end(self, why: str) -> None:
        """Of an error: the others are not to wait, nor is this one for them, as JAX would at its end."""
        self._ended.set()
        atexit.register(os._exit, 1)
        self._store.key_value_set(f"{_KEY}{self._me}/ended", why, allow_overwrite=True)
        if self._me == 0:
            time.sleep(self._silence / 10)  # the store goes with this process

    def _beat(self) -> None:
        beats = 0
        while True:
            try:
                self._store.key_value_set(f"{_KEY}{self._me}", str(beats), allow_overwrite=True)
                self._read(dict(self._store.key_value_dir_get(_KEY)))
            except RuntimeError:  # it does not answer
                pass
            beats += 1
            if self._ended.wait(self._silence / 30):
                return

    def _read(self, found: Mapping[str, str]) -> None:
        self._answered = time.monotonic()
        for key, value in found.items():
            number, _, ended = key.removeprefix(_KEY).partition("/")
            process = int(number)
            if ended and process != self._me:
                _end(f"process {process} has ended: {value}")
            if not ended and value != self._heard[process][0]:
                self._heard[process] = (value, self._answered)

    def _watch(self) -> None:
        while not self._ended.wait(self._silence / 30):
            now = time.monotonic()
            if now - self._answered > self._silence:
                _end(f"process 0 has not answered for {self._silence:g} s")
            for process, (_, since) in self._heard.items():
                if now - since > self._silence and self._answered - since > self._silence / 2:
                    _end(f"process {process} has not been heard of for {self._silence:g} s")


def _end(why: str) -> None:
    end_now(f"{why}; this one ends too, and the same command goes on", 1)
