"""A plan as tables: where the step's time goes, what a chip's memory holds, and two plans side by side.

They are made of the plan as JSON, so that one that was kept can be shown and compared.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.files.atomic import read_json
from training.files.errors import DataError
from training.pods.lines import PHASES
from training.pods.memory import GIB

Told = Mapping[str, Any]  # a plan as JSON, see training.pods.plan.Plan.told
COLUMNS = (
    "training",
    "slice",
    "mesh",
    "rows a chip",
    "GiB a chip",
    "step, ms",
    "bound, ms",
    "MFU",
    "by estimated_cycles: ms",  # the compiler's own estimate alone, which is longer
    "MFU by it",
)


def heading() -> str:
    return f"{_line(COLUMNS)}\n{_line(['---'] * len(COLUMNS))}"


def row(told: Told) -> str:
    """One line that a machine can read."""
    return _line(
        (
            told["name"],
            told["slice"],
            " x ".join(map(str, told["mesh"])),
            told["rows"],
            _gib(told["memory"]["all"]),
            _ms(told["seconds"], told),
            _ms(told["bound"], told) or "-",
            _mfu(told["seconds"], told) or "-",
            _ms(told["estimated_seconds"], told),
            _mfu(told["estimated_seconds"], told) or "-",
        )
    )


def breakdown(told: Told) -> str:
    """Where the time goes, a line of the model each, in ms."""
    lines = told["lines"]
    phases = [phase for phase in PHASES if any(phase in line["seconds"] for line in lines)]
    rows: list[Sequence[str]] = [("", *phases, "in all", "share", "of that at least by")]
    for line in lines:
        parts = (line["seconds"].get(phase) for phase in phases)
        rows.append(
            (
                line["line"],
                *(_ms(part, told) for part in parts),
                _ms(sum(line["seconds"].values()), told),
                f"{sum(line['seconds'].values()) / told['seconds']:.0%}",
                _binding(line),
            )
        )
    of_phase = [sum(line["seconds"].get(phase, 0) for line in lines) for phase in phases]
    rows.append(("in all", *(_ms(part, told) for part in of_phase), _ms(told["seconds"], told), "100%", ""))
    return _table(rows)


def memory(told: Told) -> str:
    """What a chip holds, and whether that fits."""
    of, room = dict(told["memory"]), told["memory"]["hbm"]
    whole = of.pop("all")
    parts = ", ".join(f"{_size(size)} {kind}" for kind, size in of.items() if kind != "hbm")
    return f"{_size(whole)} of {_size(room)} a chip, {_size(room - whole)} left: {parts}"


def _size(size: float) -> str:
    """Of bytes, with its unit."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{1024 * size / GIB:.1f} MiB"


def _gib(size: float) -> str:
    """The same in GiB, for a column; a small size is told to a tenth of a MiB there too."""
    return f"{size / GIB:.{2 if size >= GIB / 10 else 4}f}"


def known(told: Told) -> str:
    """How the times are known."""
    says = {
        "scheduled": "by the compiler's schedule and HBM's rate",
        "estimated": "by the compiler's cycles",
        "kernel": "kernels by their own schedule",
        "bounded": "without either, by their FLOPs and bytes",
        "collective": "collectives by the links' rates",
        "network": "between slices by the network's rate",
        "copy": "copies beside the operations, by HBM's rate",
    }
    parts = [
        f"{says[how]}: {one['operations']} in {_ms(one['seconds'], told) or 0} ms"
        for how, one in told["known"].items()
        if one["operations"]
    ]
    hidden = [told["known"][how] for how in ("collective", "network", "copy")]
    behind = sum(one["busy"] - one["seconds"] for one in hidden)
    text = "; ".join(parts) + f"; {_ms(behind, told) or 0} ms of what is beside the operations hide"
    estimated = told["estimated_seconds"]
    text += f"; all of them by the compiler's cycles, where it says some: {_ms(estimated, told)} ms"
    text += f", {mfu} MFU" if (mfu := _mfu(estimated, told)) else ""
    loops, kernels = told["unknown_loops"], told["unmeasured_kernels"]
    text += f"; {loops} loops of unknown length counted once" * bool(loops)
    return text + f"; {kernels} kernels were not measured, and are a bound alone" * bool(kernels)


def network(told: Told) -> str:
    """What crosses the network between slices, and what of the step it is; nothing of one slice."""
    of = told["network"]
    if not of["bytes"]:
        return ""
    waits, sends = (f"{_ms(of[what], told) or 0} ms" for what in ("seconds", "busy"))
    share, whole = of["seconds"] / told["seconds"], of["busy"] / (told["seconds"] - of["seconds"] + of["busy"])
    return (
        f"between slices each chip sends {_size(of['bytes'])} a step, {sends} at {of['rate'] / 1e9:g} GB/s; the step "
        f"waits for {waits} of it, {share:.1%} of its time, and would for {whole:.1%} if nothing hid"
    )


def read_told(file: Path) -> Told:
    """A plan that --json wrote, with all that `against` shows of it. Raises DataError."""
    again = "write one by plan --json"
    told = read_json(file, again)
    match told:
        case {
            "lines": [*lines],
            "seconds": int() | float(),
            "mfu": int() | float(),
            "memory": {"all": int() | float()},
        } if all(map(_is_line, lines)):
            return told
    raise DataError(f"{file}: no plan of a step that fits; {again}")


def _is_line(line: object) -> bool:
    match line:
        case {"line": str(), "seconds": {**parts}}:
            return all(isinstance(seconds, int | float) for seconds in parts.values())
    return False


def against(told: Told, other: Told) -> str:
    """Two plans side by side, in ms."""
    rows: list[Sequence[str]] = [("", "here", "there", "difference")]
    mine, its = ({line["line"]: sum(line["seconds"].values()) for line in one["lines"]} for one in (told, other))
    pairs = {name: (mine.get(name, 0.0), its.get(name, 0.0)) for name in {**mine, **its}}
    widest = sorted(pairs.items(), key=lambda item: -abs(item[1][0] - item[1][1]))
    for name, (a, b) in [*widest, ("step", (told["seconds"], other["seconds"]))]:
        rows.append((name, _ms(a, told), _ms(b, told), f"{1e3 * (a - b):+.1f}"))
    a, b = (one["memory"]["all"] for one in (told, other))
    digits = 2 if max(a, b) >= GIB / 10 else 4
    rows.append(("GiB a chip", _gib(a), _gib(b), f"{(a - b) / GIB:+.{digits}f}"))
    a, b = told["mfu"], other["mfu"]
    rows.append(("MFU", f"{a:.1%}", f"{b:.1%}", f"{100 * (a - b):+.1f} points"))
    return _table(rows)


def _binding(line: Mapping[str, Any]) -> str:
    """What alone would take most of the line's time, and how much of it."""
    whole = sum(line["seconds"].values())
    name, seconds = max(line["bounds"].items(), key=lambda item: item[1])
    return f"{name} {seconds / whole:.0%}" if whole else ""


def _ms(seconds: float | None, told: Told) -> str:
    """With as many digits as the step is long; nothing for nothing."""
    return f"{1e3 * seconds:.{1 if told['seconds'] > 0.01 else 3}f}" if seconds else ""


def _mfu(seconds: float, told: Told) -> str:
    """Nothing for a training that does not count its FLOPs."""
    return f"{told['bound'] / seconds:.1%}" if told["bound"] else ""


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    padded = [
        [row[0].ljust(widths[0]), *(x.rjust(n) for x, n in zip(row[1:], widths[1:], strict=True))] for row in rows
    ]
    marks = ["-" * widths[0], *("-" * (n - 1) + ":" for n in widths[1:])]
    return "\n".join(map(_line, (padded[0], marks, *padded[1:])))
