"""Some steps of a training traced: where the devices' time goes, in a file that XProf and TensorBoard read."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from training.files.buckets import growing, in_bucket, send
from training.telling import tell


class _Trace:
    def __init__(self, first: int, last: int, folder: Path):
        self.first, self.last, self.folder, self.running = first, last, folder, False
        self.numbers: list[int] = []  # of the steps that were traced
        self.made: Any = None  # by the last of them

    def step(self, number: int, step: Callable, *arguments: Any) -> Any:
        if not self.running:
            jax.profiler.start_trace(growing(self.folder) if in_bucket(self.folder) else self.folder)
            self.running = True
        self.made = None  # the step may take its memory
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            self.made = step(*arguments)
        self.numbers.append(number)
        return self.made

    def stop(self) -> None:
        """Once what it traces is computed."""
        if not self.running:
            return
        self.running = False
        try:
            jax.block_until_ready(self.made)
        finally:
            jax.profiler.stop_trace()
            self.made = None
            if in_bucket(self.folder):
                here = growing(self.folder)
                for file in here.rglob("*"):  # not as a folder, which would be this process's alone
                    if file.is_file():
                        send(file, self.folder / file.relative_to(here).as_posix())
        if self.numbers:
            tell(f"{self.folder}: the trace of steps {self.numbers[0]} to {self.numbers[-1]}")


_asked: _Trace | None = None  # by the command of this process; a loop within reads it, as it does jax's settings


def parse_steps(text: str) -> tuple[int, int]:
    """(first, last) of FIRST:LAST, counted from 1. Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f"profile is {text!r}: it must be FIRST:LAST, two steps counted from 1, such as 10:12")
    return int(found[1]), int(found[2])


@contextmanager
def profiled(steps: str, folder: Path) -> Iterator[None]:
    """The steps FIRST:LAST of a training within are traced into `folder`, those of a resumed run that it still has."""
    global _asked
    _asked = trace = _Trace(*parse_steps(steps), folder)
    try:
        yield
    finally:
        _asked = None
        trace.stop()
    if not trace.numbers:
        tell(f"--profile {steps}: no such step was run, so nothing was traced")


def traced(number: int, step: Callable, *arguments: Any) -> Any:
    """step(*arguments), which is step `number` of the run; waited for where it is the last one of the trace."""
    trace = _asked
    if trace is None or not trace.first <= number <= trace.last:
        return step(*arguments)
    made = trace.step(number, step, *arguments)
    if number == trace.last:
        trace.stop()
    return made
