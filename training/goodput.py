"""Goodput of a run, from its events.jsonl (training/events.py): the share of the wall time, from its first beginning on
and over all restarts, that went to steps whose results it still has.

What lies between two lines of one process is told apart by the later: before a `stepping` it has started, before
others stepped, less what that line took for itself. Before an end in failure that got no further than the line before
it was in a step that came to nothing, such as one that waited for a dead peer: redone, or start where none had begun.
A resumed or rewound run has the steps up to where it goes on from; those after it were lost. What a process that was
killed did after its last line counts as down, and so does what the wall clock ran ahead of the process's own: it was
suspended, or the clock set forward (one set back is not seen).
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
JUMP = 1.0  # s that the wall clock runs ahead of the monotonic one between two lines: less is rounding
FAILURES = {"diverged", "failed", "interrupted"}
ENDS = {"finished", "stopped", *FAILURES}
STARTS = {"begun", "resumed", "rewound"}  # before the first step from there
# Of a line, and the types of each.
READ: dict[str, set[type]] = {"event": {str}, **dict.fromkeys(("step", "since"), {int})}
READ |= dict.fromkeys(("time", "seconds", "waited", "took"), {int, float})


class Stretch(NamedTuple):
    kind: str  # of KINDS
    begin: float  # s since 1970
    seconds: float
    first: int = 0  # of steps and the waiting within them: after this step
    last: int = 0  # up to this one


@dataclass
class Watched:
    steps: list[Stretch] = field(default_factory=list)  # that the run still has, and the waiting within them, in order
    others: list[Stretch] = field(default_factory=list)
    ends: list[tuple[float, str]] = field(default_factory=list)  # s since 1970, and why each process ended
    step: int = 0
    last: float = 0.0  # line, s since 1970
    going: bool = True  # for all that is known
    about: dict[str, Any] = field(default_factory=dict)  # its last beginning
    told: Counter[str] = field(default_factory=Counter)  # events by name

    @property
    def stretches(self) -> list[Stretch]:
        return [*self.others, *self.steps]

    @property
    def seconds(self) -> dict[str, float]:
        """By kind."""
        stretches = self.stretches
        return {kind: sum(x.seconds for x in stretches if x.kind == kind) for kind in KINDS}

    @property
    def wall(self) -> float:
        return sum(x.seconds for x in self.stretches)

    @property
    def goodput(self) -> float:
        return self.seconds["counted"] / self.wall if self.wall else 0.0


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file, none if it is missing; lines cut off by a kill are left out, as are those no run wrote."""
    return [event for event in read_objects(path) if _is_event(event)]


def _is_event(line: dict[str, Any]) -> bool:
    """Has it all that is read here, each of its kind, and no number that is infinite, or none?"""
    line = {"took": 0, "since": 0, **line}
    return all(type(line.get(name)) in kinds for name, kinds in READ.items()) and all(
        abs(line[name]) < 1e15 for name in READ if name != "event"
    )


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
        kind = "start" if before["event"] in STARTS else "counted"
        kind = kind if run.going and now - run.last < SILENT else "down"
        run.others.append(Stretch(kind, run.last, now - run.last))
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
        run.others.append(Stretch("down", before["time"], max(process - before["time"], 0.0)))
        run.others.append(Stretch("start", process, begin - process))
    _lose(run, event["step"])


def _goes_on(run: Watched, before: dict[str, Any], event: dict[str, Any]) -> None:
    name, seconds = event["event"], max(event["seconds"] - before["seconds"], 0.0)
    begin, reached = event["time"] - seconds, event.get("since", event["step"])
    if begin - before["time"] > JUMP:
        run.others.append(Stretch("down", before["time"], begin - before["time"]))
    if name in ("finished", "stopped"):
        run.others.append(Stretch("saving", begin, seconds))
    elif name == "stepping" or (name in FAILURES and before["event"] in STARTS):
        run.others.append(Stretch("start", begin, seconds))
    elif name in FAILURES and reached <= before["step"]:
        run.others.append(Stretch("redone", begin, seconds))
    else:
        took = min(event.get("took", 0.0), seconds)
        waited = min(max(event["waited"] - before["waited"], 0.0), seconds - took)
        steps = Stretch("counted", begin, seconds - took - waited, before["step"], reached)
        waiting = Stretch("waiting", begin + steps.seconds, waited, before["step"], reached)
        run.steps += [steps, waiting]
        if kind := {"evaluated": "evaluation", "saved": "saving"}.get(name):
            run.others.append(Stretch(kind, begin + seconds - took, took))


def _lose(run: Watched, step: int) -> None:
    """Of the steps after this one nothing is left: they are done again."""
    kept = list[Stretch]()
    while run.steps and run.steps[-1].last > step:
        one = run.steps.pop()
        share = max(step - one.first, 0) / (one.last - one.first) if one.last > one.first else 0.0
        good = one.seconds * share  # steps of one stretch are taken to be alike
        if good:
            kept.append(one._replace(seconds=good, last=step))
        run.others.append(Stretch("redone", one.begin + good, one.seconds - good))
    run.steps += reversed(kept)


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
        f"version {about.get('version') or 'unknown: not installed as a package'}",
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
