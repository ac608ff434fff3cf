"""The one clock of all benchmarks: sides that take turns, each in a process of its own, on the same cores.

Every side has the same cores and as many threads, is made and run once before any is timed, and waits while another
runs, after which its turn begins with a run that is not timed; every other round goes backwards. Told are the median
and the least of a run's seconds, by the clock and of its processors, and how often the first side's time each of the
others takes: the median of the rounds' ratios, and between which they lie. What other processes took of the cores
meanwhile is told too, and where that was more than a few per cent the figures are marked as not to be quoted.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import accelerator, busy, environment, pin, processor, used
from benchmarks.process import Side, SideFailed
from benchmarks.side import Run, in_a_line
from training.peaks import peak

MOST = 0.03  # of the cores that others may take from what is quoted
SHORTEST = 1.0  # seconds of turns in which /proc, which counts hundredths, can tell


@dataclass(frozen=True, kw_only=True)
class Clock:
    repeats: int = 5
    """Turns of each side, after a run that warms it up."""
    cores: int = 0
    """That each side has, with as many threads; 0: all that this process may use."""
    apart: bool = False
    """One side after the other, each told as soon as it has run, rather than in turns: where minutes count."""
    record: str = ""
    """A file to which every measurement is added as a line of JSON."""


@dataclass(kw_only=True)
class Measured:
    title: str
    work: dict[str, float]  # by side, units in a turn
    unit: str
    flops: float  # in bfloat16, of a turn; 0: no matter
    cores: int
    times: dict[str, list[tuple[float, float]]]  # by side, of each turn the seconds by the clock and of its processors
    values: dict[str, Any] = field(default_factory=dict)  # by side, what its first run returned
    failed: dict[str, str] = field(default_factory=dict)  # by side, why
    lasted: float = 0.0  # seconds of all turns
    taken: float = 0.0  # seconds of the cores that other processes took of them

    @property
    def others(self) -> float:
        """Their share of the cores."""
        return min(max(self.taken, 0) / max(self.lasted, 1e-6) / self.cores, 1.0)

    @property
    def doubt(self) -> str | None:
        """Why it is not to be quoted."""
        if self.lasted < SHORTEST:
            return f"its turns lasted {self.lasted:.2f} s, too short to tell what else ran"
        return f"others took {self.others:.0%} of the cores" if self.others > MOST else None

    def ratios(self, name: str, base: str) -> list[float]:
        """Of each turn, for the same work."""
        work = self.work[name] / self.work[base]
        return [a / b / work for (a, _), (b, _) in zip(self.times[name], self.times[base], strict=True)]

    def lines(self) -> list[str]:
        """What a reader is told."""
        done = {name: turns for name, turns in self.times.items() if turns}
        base = next(iter(self.times))
        place = f"{self.cores} core{'s' if self.cores > 1 else ''} of {processor()}"
        gpu = accelerator()
        place += f" with {gpu}" if gpu else ""
        turns = max(map(len, done.values()), default=0)
        found = [f"{self.title}: medians of {turns}, {place}, others took {self.others:.1%}"]
        most = peak(gpu) if self.flops and gpu else None
        for name, taken in done.items():
            wall, own = (statistics.median(x) for x in zip(*taken, strict=True))
            line = f"  {name:24} {self.work[name] / wall:10,.2f} {self.unit}/s   {wall:8.3f} s "
            line += f"(least {min(taken)[0]:.3f}, processor {own:.3f})"
            line += f"   MFU {self.flops / wall / most:.1%}" if most else ""
            found.append(line + self._beside(name, base, done))
        found += [f"  {name}: {why}" for name, why in self.failed.items()]
        return found + ([f"  NOT TO BE QUOTED: {self.doubt}"] if done and self.doubt else [])

    def _beside(self, name: str, base: str, done: Mapping[str, list[tuple[float, float]]]) -> str:
        if name == base or base not in done:
            return ""
        each, (least, bases_least) = self.ratios(name, base), (min(done[x])[0] / self.work[x] for x in (name, base))
        own, bases_own = (statistics.median(own for _, own in done[x]) / self.work[x] for x in (name, base))
        return (
            f"   {statistics.median(each):.2f} x the time of {base} ({min(each):.2f} to {max(each):.2f}; "
            f"least {least / bases_least:.2f}, processor {own / max(bases_own, 1e-9):.2f})"
        )

    def record(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "work": self.work,
            "unit": self.unit,
            "flops": self.flops,
            "processor": processor(),
            "accelerator": accelerator(),
            "cores": self.cores,
            "seconds": {name: [wall for wall, _ in turns] for name, turns in self.times.items()},
            "processor_seconds": {name: [own for _, own in turns] for name, turns in self.times.items()},
            "failed": self.failed,
            "others": self.others,
            "doubt": self.doubt,
        }


class Failed(SystemExit):
    """A side failed, which has been told: the command's status is 1."""

    def __init__(self) -> None:
        super().__init__(1)


def measure(
    title: str,
    sides: Mapping[str, Callable[[], Run]],
    clock: Clock,
    *,
    work: float | Mapping[str, float] = 1,
    unit: str = "run",
    flops: float = 0,
    check: Callable[[Any, Any], str | None] | None = None,
) -> Measured:
    """Times the sides beside each other, and prints what was found. The first is the one that others are compared to.

    sides: by name a function of a module, or a partial of one, that in its own process makes what is run (see Side).
    work: in units, of one run, or by side of its own. flops: of one run, if in bfloat16: for the MFU of a GPU.
    check: of what the first run of the first side returned, and of another's: what to say about it, or AssertionError
    where the two cannot be compared.
    Raises Failed, after all, where a side failed; the others are measured all the same.
    """
    cores = pin(clock.cores)
    works = {name: work[name] if isinstance(work, Mapping) else work for name in sides}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    measured = Measured(title=title, work=works, unit=unit, flops=flops, cores=len(cores), times=times)
    base, values = next(iter(sides)), measured.values
    for names in [[name] for name in sides] if clock.apart else [list(sides)]:
        with ExitStack() as ending:
            running: dict[str, Side] = {}
            for name in names:
                try:
                    side = Side(name, sides[name], environment(len(cores)))
                    ending.callback(side.end)
                    values[name] = side.ready()  # one after the other
                    if check and name != base and base in values and (said := check(values[base], values[name])):
                        print(f"  {name}: {said}", flush=True)
                    running[name] = side
                except (SideFailed, AssertionError) as error:
                    measured.failed[name] = (str(error).strip().splitlines() or ["what it returned differs"])[0]
                except Exception as error:  # of pickle, or of the check
                    measured.failed[name] = in_a_line(error)
            _take_turns(running, measured, cores, clock.repeats)
        if clock.apart and running and len(sides) > 1:
            _tell(replace(measured, times={name: measured.times[name] for name in running}, failed={}), clock)
    _tell(measured, clock)
    if measured.failed:
        raise Failed
    return measured


def _take_turns(running: Mapping[str, Side], measured: Measured, cores: tuple[int, ...], repeats: int) -> None:
    """Adds the seconds of each to `measured`; a side that fails meanwhile has none."""
    pids = [os.getpid(), *(side.pid for side in running.values())]
    others = lambda: busy(cores) - sum(map(used, pids))  # noqa: E731
    begin, before = time.perf_counter(), others()
    for turn in range(repeats):
        for name in list(running)[:: -1 if turn % 2 else 1]:
            if name not in measured.failed:
                try:
                    measured.times[name].append(running[name].turn(idle=len(running) > 1))
                except SideFailed as error:
                    measured.failed[name], measured.times[name] = str(error), []
    measured.lasted += time.perf_counter() - begin
    measured.taken += others() - before


def _tell(measured: Measured, clock: Clock) -> None:
    print("\n".join(measured.lines()), flush=True)
    if clock.record:
        with Path(clock.record).open("a", encoding="utf-8") as file:
            print(json.dumps(measured.record(), ensure_ascii=False), file=file)


def in_turn(*parts: Callable[[], object]) -> None:
    """Runs all of them. Raises Failed, after the last, where one did: none ends the others."""
    failed = False
    for part in parts:
        try:
            part()
        except Failed:
            failed = True
    if failed:
        raise Failed
