"""What the cells of the lengths experiment say: a table with intervals, a row for each figure, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rope.experiments.lengths_by_position import position_section
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, seeds_told, write_report
from training.experiment.statistics import Estimate, estimate

Figures = Mapping[tuple[str, int], np.ndarray]  # (encoding, length) -> [seeds, windows]
METRICS = {"cross_entropy": "Cross-entropy of the masked tokens, nats", "accuracy": "Masked tokens guessed right, %"}


def report(folder: Path, made: Made, positions: Sequence[str], note: str, settings: Mapping[str, Any]) -> str:
    """lengths.csv, .json, .md, .png, positions.csv, .png and report.html in `folder`, of the cells' files; returns the
    tables.

    positions: the encodings in order. note: a line on the data. settings: of the page.
    """
    cells = sorted(made.cells.values(), key=lambda cell: positions.index(cell["encoding"]))
    arrays = {metric: gather(cells, metric) for metric in METRICS}
    arrays["accuracy"] = {key: 100 * values for key, values in arrays["accuracy"].items()}
    rows = [
        {"encoding": e, "length": n, "metric": metric, "seeds": values.mean(1).tolist(), **estimate(values)._asdict()}
        for metric, figures in arrays.items()
        for (e, n), values in figures.items()
    ]
    columns = ("encoding", "length", "metric", "mean", "low", "high")
    return write_report(
        folder,
        "lengths",
        "Which positions read longer text than they were trained on?",
        [*_sections(arrays), position_section(folder, cells, *_ends(arrays["cross_entropy"]))],
        settings,
        lead=f"{len(cells)} models; intervals are of 95 %, by a bootstrap of seeds and windows.",
        columns=columns,
        rows=([row[name] for name in columns] for row in rows),
        json={"data": note, "rows": rows},
        notes=[note],
        missing=made.missing,
    )


def _sections(arrays: Mapping[str, Figures]) -> list[Section]:
    entropies = arrays["cross_entropy"]
    short = min(length for _, length in entropies)
    about = f"Mean of {seeds_told(entropies.values())} and the windows [95 % interval]\n\n"
    first, second = (_table(arrays[metric], "", heading) for metric, heading in METRICS.items())
    made = [
        Section(
            "lengths",
            "Cross-entropy by length",
            says="The same tokens are masked at all lengths: "
            "what a longer row adds is context, and positions never trained.",
            picture=_picture(entropies),
            table=first._replace(caption=about + first.caption),
        ),
        Section("accuracy", "Tokens guessed right", table=second),
    ]
    gains = {(e, n): values - entropies[e, short] for (e, n), values in entropies.items() if n != short}
    gained = (
        f"Cross-entropy less that of the same model on rows of {short}, seed by seed and window by window: longer "
        "rows help where all of the interval is below 0"
    )
    best, behind = _behind(entropies)
    far = (
        f"Cross-entropy less that of {best}, the best on the longest rows, of the same models and windows. It is the "
        "best of these figures, so an interval just above 0 says little"
    )
    differences = (
        ("gains", "Do longer rows help?", gained, gains),
        ("behind", "How far behind the best way on?", far, behind),
    )
    made += [Section(n, title, table=_table(of, "+", caption)) for n, title, caption, of in differences if of]
    return made


def _behind(entropies: Figures) -> tuple[str, Figures]:
    """The rotary model's way on that is best on the longest rows, and how far behind it the others are."""
    longest = _ends(entropies)[1]
    rotary = [e for e, n in entropies if n == longest and e.split(",")[0] == "rotary"]
    if not rotary:
        return "", {}
    best = min(rotary, key=lambda e: entropies[e, longest].mean())
    others = [(e, n) for e, n in entropies if e in rotary and e != best]
    return best, {(e, n): entropies[e, n] - entropies[best, n] for e, n in others}


def gather(cells: Sequence[dict[str, Any]], metric: str) -> Figures:
    """The figures of the seeds there are."""
    lists: dict[tuple[str, int], list] = {}
    for cell in cells:
        for encoding, by_length in cell["scores"].items():
            for length, found in by_length.items():
                lists.setdefault((encoding, int(length)), []).append(found[metric])
    return {key: np.array(values) for key, values in lists.items()}


def _ends(figures: Figures) -> tuple[int, int]:
    """The trained length and the longest."""
    lengths = [length for _, length in figures]
    return min(lengths), max(lengths)


def _axes(figures: Figures) -> tuple[list[str], list[int]]:
    """The encodings and the lengths there are, in order."""
    return list(dict.fromkeys(e for e, _ in figures)), list(dict.fromkeys(n for _, n in figures))


def _table(figures: Figures, sign: str, caption: str) -> Table:
    encodings, lengths = _axes(figures)
    rows = [[e, *(estimate(figures[e, n]).text(2, sign) for n in lengths)] for e in encodings]
    return Table(["positions", *map(str, lengths)], rows, caption=caption)


def _picture(figures: Figures) -> bytes:
    """Cross-entropy by length: a panel of the encodings, and one of what continues the rotary one."""
    from matplotlib.figure import Figure

    encodings, lengths = _axes(figures)
    continued = [e for e in encodings if e.startswith("rotary,")]
    panels = [("encodings", [e for e in encodings if e not in continued])]
    if continued:
        panels.append(("rotary, continued", ["rotary", *continued]))
    figure = Figure(figsize=(5.6 * len(panels), 4.4), layout="constrained")
    for axes, (title, names) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
    ):
        for number, name in enumerate(names):
            found: list[Estimate] = [estimate(figures[name, n]) for n in lengths]
            places = np.array(lengths) * 1.02 ** (number - (len(names) - 1) / 2)  # beside each other
            error = np.array([[x.mean - x.low for x in found], [x.high - x.mean for x in found]])
            axes.errorbar(
                places, [x.mean for x in found], error, marker="o", markersize=4, lw=1.5, capsize=2, label=name
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes.set_xticks([], minor=True)
        axes.set(title=title, xlabel=f"tokens of a row (trained on {min(lengths)})")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("cross-entropy of masked tokens, nats")
    return png(figure)
