"""Goodput of a run, from its events.jsonl (training/events.py): the share of the wall time, from its first beginning on
and over all restarts, that went to steps whose results it still has.

What lies between two lines of one process is told apart by the later: before a `stepping` it has started, before
others stepped, less what that line took for itself. A resumed or rewound run has the steps up to where it goes on from;
those after it were lost. What a process that was killed did after its last line counts as down.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from training.files.atomic import atomic_write, read_objects

# What the wall time is cut into, in the order in which it is told.
KINDS = {
    "counted": "in steps that counted",
    "redone": "in steps lost, and done again",
    "start": "start and compilation",
    "evaluation": "evaluation",
    "saving": "saving",
    "waiting": "waiting for data",
    "down": "down between processes",
}
SILENT = 150.0  # s without a line, after which a run is not taken to go on: a bucket has them once a minute
ENDS = {"finished", "stopped", "diverged", "failed", "interrupted"}


class Stretch(NamedTuple):
    kind: str  # of KINDS
    begin: float  # s since 1970
    seconds: float
    first: int = 0  # of steps and the waiting within them: after this step
    last: int = 0  # up to this one


@dataclass
class Watched:
    stretches: list[Stretch] = field(default_factory=list)
    ends: list[tuple[float, str]] = field(default_factory=list)  # s since 1970, and why each process ended
    step: int = 0
    last: float = 0.0  # line, s since 1970
    going: bool = True  # for all that is known
    about: dict[str, Any] = field(default_factory=dict)  # its last beginning
    told: Counter[str] = field(default_factory=Counter)  # events by name

    @property
    def seconds(self) -> dict[str, float]:
        """By kind."""
        return {kind: sum(x.seconds for x in self.stretches if x.kind == kind) for kind in KINDS}

    @property
    def wall(self) -> float:
        return sum(x.seconds for x in self.stretches)

    @property
    def goodput(self) -> float:
        return self.seconds["counted"] / self.wall if self.wall else 0.0


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file, none if it is missing; lines cut off by a kill are left out."""
    return [event for event in read_objects(path) if {"event", "time", "seconds", "step", "waited"} <= event.keys()]


def watched(events: list[dict[str, Any]], now: float | None = None) -> Watched:
    """What the events say at `now`, s since 1970. Raises ValueError where the run has not begun."""
    now = time.time() if now is None else now
    run, before = Watched(), None
    for event in events:
        name = event["event"]
        run.told[name] += 1
        if name in ("begun", "resumed"):
            _begins(run, before, event)
        elif before:
            _goes_on(run, before, event)
            if name == "rewound":
                _lose(run, event["step"])
        if name in ENDS:
            why = event.get("why")
            run.ends.append((event["time"], f"{name} at step {event['step']:,}" + (f": {why}" if why else "")))
        before = event
    if before is None or not run.about:
        raise ValueError("no run has begun here yet: events.jsonl is missing, or has no line that says so")
    run.step, run.last, run.going = before["step"], before["time"], before["event"] not in ENDS
    if before["event"] != "finished" and now > run.last:
        kind = "counted" if run.going and before["event"] not in ("begun", "resumed", "rewound") else "start"
        silent = Stretch(kind if run.going and now - run.last < SILENT else "down", run.last, now - run.last)
        run.stretches.append(silent._replace(first=run.step, last=run.step))
    return run


def _begins(run: Watched, before: dict[str, Any] | None, event: dict[str, Any]) -> None:
    """A process takes the run up. Its own start is the run's too, but for the first, and after the run was finished."""
    begin, run.about = event["time"], event
    if before is None:
        return
    if before["event"] not in ENDS:
        run.ends.append((before["time"], f"no word after step {before['step']:,}: killed, or its machine was lost"))
    if before["event"] != "finished":
        process = min(max(before["time"], begin - event["seconds"]), begin)
        run.stretches.append(Stretch("down", before["time"], max(process - before["time"], 0.0)))
        run.stretches.append(Stretch("start", process, begin - process))
    _lose(run, event["step"])


def _goes_on(run: Watched, before: dict[str, Any], event: dict[str, Any]) -> None:
    name, begin, seconds = event["event"], before["time"], event["seconds"] - before["seconds"]
    if name in ("finished", "stopped"):
        run.stretches.append(Stretch("saving", begin, seconds))
    elif name == "stepping":
        run.stretches.append(Stretch("start", begin, seconds))
    else:
        took = min(event.get("took", 0.0), seconds)
        waited = min(max(event["waited"] - before["waited"], 0.0), seconds - took)
        reached = event.get("since", event["step"])
        steps = Stretch("counted", begin, seconds - took - waited, before["step"], reached)
        waiting = Stretch("waiting", begin + steps.seconds, waited, before["step"], reached)
        run.stretches += [steps, waiting]
        if kind := {"evaluated": "evaluation", "saved": "saving"}.get(name):
            run.stretches.append(Stretch(kind, begin + seconds - took, took))


def _lose(run: Watched, step: int) -> None:
    """Of the steps after this one nothing is left: they are done again."""
    kept = list[Stretch]()
    for one in run.stretches:
        if one.kind not in ("counted", "waiting") or one.last <= step:
            kept.append(one)
            continue
        share = max(step - one.first, 0) / (one.last - one.first) if one.last > one.first else 0.0
        good = one.seconds * share  # steps of one stretch are taken to be alike
        kept.append(one._replace(seconds=good, last=step))
        kept.append(Stretch("redone", one.begin + good, one.seconds - good))
    run.stretches = kept


def duration(seconds: float) -> str:
    """As one says it: 45 s, 3 min, 5.2 h, 2.1 days."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def table(run: Watched, now: float | None = None) -> str:
    """What scripts.watch prints."""
    now = time.time() if now is None else now
    about, silent = run.about, max(now - run.last, 0.0)
    lines = [
        f"last step {run.step:,}, {duration(silent)} ago"
        + ("" if not run.going else "; nothing has been written since" if silent > SILENT else "; it goes on"),
        f"{about.get('devices')} devices ({about.get('kind')}), {about.get('processes')} processes, "
        f"version {about.get('version')}",
        f"{'wall time':32}{duration(run.wall):>10}",
    ]
    for kind, seconds in run.seconds.items():
        lines.append(f"{KINDS[kind]:32}{duration(seconds):>10}{seconds / run.wall if run.wall else 0:8.1%}")
    skipped, rewound = run.told["skipped"], run.told["rewound"]
    restarts = run.told["begun"] + run.told["resumed"] - 1
    lines.append(f"{restarts} restarts, {skipped} updates skipped, {rewound} times rewound; how processes ended:")
    lines += [f"  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}  {why}" for at, why in run.ends]
    return "\n".join(lines if run.ends else [*lines, "  none has"])


def plot(run: Watched, path: Path) -> None:
    """A PNG: a bar of the wall time, coloured by what it went to."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2), layout="constrained")
    axes = figure.subplots()
    begin = min(x.begin for x in run.stretches)
    for number, kind in enumerate(KINDS):
        bars = [((x.begin - begin) / 3600, x.seconds / 3600) for x in run.stretches if x.kind == kind]
        label = f"{KINDS[kind]} {run.seconds[kind] / run.wall:.1%}"
        axes.broken_barh(bars, (0, 1), facecolors=f"C{number}", label=label)
    axes.set(xlabel="hours since the first beginning", yticks=[], xlim=(0, None), title=f"goodput {run.goodput:.1%}")
    figure.legend(loc="outside right upper", fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
