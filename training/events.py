"""What befalls a run, in events.jsonl of its folder: one line an event, appended by the first process of each start.

A line has `event`, `time` (s since 1970), `seconds` (s of the monotonic clock since the process began), `step`, and
`waited` (s in which, at most, the devices waited for data, since this process took up the run). training/goodput.py
reads them.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from training.command import USELESS
from training.ending import before_failing
from training.files.grown import Grown

_AT_ONCE = ("begun", "resumed", "stepping")  # of a run in a bucket: whoever looks is to see that it goes on
OFTEN = 30.0  # s: as often there is a line where nothing befalls
_BEGAN = time.monotonic()  # the process, nearly

# Are given every event, and every row of metrics, of all runs of this process, as dicts.
listeners: list[Callable[[Path, dict[str, Any]], None]] = []


class Diverged(ValueError):
    """Training cannot go on: the loss is not a number. The message says where the last good checkpoint is, `why` only
    at which step, and what."""

    status = USELESS  # the same batches would lead there again

    def __init__(self, step: int, why: str, remedy: str):
        super().__init__(f"{why}; {remedy}")
        self.step, self.why = step, why


class Events:
    """Of one run; only process 0 writes. A context, which notes the error that ends it. Nothing is written before the
    run has begun."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._grown: Grown | None = None
        self._entered = time.time(), time.monotonic()
        self._step, self._last, self.waited = 0, 0.0, 0.0

    def begin(self, step: int) -> None:
        """The run begins, or is resumed after a step; the line has the time at which this was made."""
        if jax.process_index() == 0:
            self._grown = Grown(self._folder, "events")
            self._file = self._grown.here / "events.jsonl"
            path = self._folder / "events.jsonl"
            before = path.read_bytes() if path.exists() else b""
            if self._grown.here != self._folder:
                self._file.write_bytes(before)
            if before and not before.endswith(b"\n"):  # cut off by a kill
                with self._file.open("a", encoding="utf-8") as file:
                    file.write("\n")
        devices = jax.devices()
        about = {"processes": jax.process_count(), "devices": len(devices), "kind": devices[0].device_kind}
        about |= {"version": _version(), "jax": jax.__version__}
        self._write("resumed" if step else "begun", step, *self._entered, about)

    def write(self, event: str, step: int, **about: Any) -> None:
        self._write(event, step, time.time(), time.monotonic(), about)

    def _write(self, event: str, step: int, wall: float, now: float, about: dict[str, Any]) -> None:
        if not self._grown:
            return
        self._step, self._last = step, time.monotonic()
        line = {"event": event, "time": round(wall, 3), "seconds": round(now - _BEGAN, 3), "step": step}
        line |= {"waited": round(self.waited, 3), **about}
        if "why" in line:  # which need not say the step twice
            line["why"] = str(line["why"]).removeprefix(f"step {step}: ")
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._grown.send_now_and_then(at_once=event in _AT_ONCE)
        for listener in listeners:
            listener(self._folder, line)

    def at(self, step: int) -> None:
        """The run has got so far: a line now and then."""
        self._step = step
        if time.monotonic() - self._last > OFTEN:
            self.write("at", step)

    def send(self) -> None:
        """Of a run in a bucket: what was written is there then."""
        if self._grown:
            self._grown.send()

    def __enter__(self) -> "Events":
        before_failing.append(self._fail)
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        before_failing.remove(self._fail)
        if error is None:
            self.send()
        elif isinstance(error, Diverged):
            self._end("diverged", error.step, why=error.why)
        elif isinstance(error, Exception):
            self._fail(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")
        else:
            self._end("interrupted", self._step)

    def _fail(self, why: str) -> None:
        self._end("failed", self._step, why=why)

    def _end(self, event: str, step: int, **about: Any) -> None:
        with suppress(Exception):  # of a disk that is full, or a store that does not answer: the error itself says it
            self.write(event, step, **about)
            self.send()


def _version() -> str | None:
    try:
        return version("pegasus-zh")
    except PackageNotFoundError:
        return None
