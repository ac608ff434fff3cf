"""How evenly the steps come: their times as the host sees them, what they waited for data, and the devices' memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from training.step import Sums


class Pace:
    """Since the last row of metrics; pauses (evaluation, saving) left out. Nothing here waits for a device."""

    def __init__(self) -> None:
        self.waited = 0.0  # s since the beginning
        self.pause()

    def pause(self) -> None:
        self._start = self._last = time.perf_counter()
        self._steps: list[float] = []
        self._waited_before = self.waited

    def step(self) -> None:
        """The numbers of one more step have come."""
        now = time.perf_counter()
        self._steps.append(now - self._last)
        self._last = now

    @contextmanager
    def fetching(self, sums: Sums) -> Iterator[None]:
        """Around the fetching of a batch while the step of these sums, the last that was given to the devices, is being
        computed. Where it is done by the end, the devices have waited: all of the fetching is counted, which is exact
        where it was done at the start, and more than they waited where it was not."""
        began = time.perf_counter()
        yield
        if all(_is_there(x) for pair in sums.values() for x in pair):
            self.waited += time.perf_counter() - began

    def values(self) -> dict[str, float]:
        """`step_seconds`: the median; `step_seconds_p95`: a twentieth of the steps took longer; `waiting`: the share of
        the time, at most, in which the devices waited for data; `memory_bytes` in use now and `memory_peak_bytes`
        since the process began, of the fullest device of this process, where the device tells."""
        median, slow = np.quantile(self._steps, [0.5, 0.95]).tolist()
        waiting = (self.waited - self._waited_before) / (time.perf_counter() - self._start)
        values = {"step_seconds": median, "step_seconds_p95": slow, "waiting": waiting}
        told = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
        for name, key in {"memory_bytes": "bytes_in_use", "memory_peak_bytes": "peak_bytes_in_use"}.items():
            if found := [stats[key] for stats in told if key in stats]:
                values[name] = float(max(found))
        self.pause()
        return values


def _is_there(x: Any) -> bool:
    """Is it computed? Asks the runtime of the host alone."""
    return bool(x.is_ready())
