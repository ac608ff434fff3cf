"""What a grid of alignments comes to: shares that are right, by method, kind of plain text and size, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, write_report
from training.experiment.statistics import Estimate, estimate_runs

Row = Mapping[str, Any]
COLUMNS = ("method", "kind", "size", "seed", "numbers", "plain", "characters", "text", "seconds")


def report(folder: Path, made: Made, settings: Mapping[str, Any]) -> str:
    """alignment.csv, .md, .png and report.html in `folder`; returns the tables."""
    rows = [*made.cells.values()]
    section = Section(
        "alignment",
        "Numbers that are aligned rightly",
        says="The share of running text whose characters are found, by how many anonymised texts there are.",
        picture=png(_picture(rows)),
        table=_table(rows),
    )
    return write_report(
        folder,
        "alignment",
        "What does it take to know what the numbers are?",
        [section],
        settings,
        lead=f"{len(rows)} alignments.",
        columns=COLUMNS,
        rows=[[row[name] for name in COLUMNS] for row in rows],
        missing=made.missing,
    )


def _lines(rows: Sequence[Row]) -> dict[tuple[str, str], dict[int, list[Row]]]:
    lines: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        seeds = lines.setdefault((row["kind"], row["method"]), {}).setdefault(row["size"], [])
        if row["seed"] not in [other["seed"] for other in seeds]:  # all texts may be as many as a size that is given
            seeds.append(row)
    return dict(sorted(lines.items(), key=lambda x: [*dict.fromkeys(k for k, _ in lines)].index(x[0][0])))


def _table(rows: Sequence[Row]) -> Table:
    lines, sizes = _lines(rows), sorted({row["size"] for row in rows})
    body = []
    for (kind, method), found in lines.items():
        cells = []
        for size in sizes:
            both = [_percent([row[name] for row in found.get(size, [])]) for name in ("characters", "text")]
            cells.append(" / ".join(both) if size in found else "")
        body.append([kind, method, *cells])
    caption = "Shares that are right, in percent: of the numbers / of the text; with several seeds [95 % interval]"
    return Table(["plain text", "method", *(f"{size:,} texts" for size in sizes)], body, left=2, caption=caption)


def _percent(values: Sequence[float]) -> str:
    return Estimate(*(100 * x for x in estimate_runs(values))).text(1) if values else ""


def _picture(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = _lines(rows)
    kinds = [*dict.fromkeys(kind for kind, _ in lines)]
    methods = [*dict.fromkeys(method for _, method in lines)]
    for (kind, method), found in lines.items():
        sizes = sorted(found)
        means = [100 * sum(row["text"] for row in found[size]) / len(found[size]) for size in sizes]
        style = ["-", "--", ":", "-."][methods[::-1].index(method) % 4]
        axes.plot(sizes, means, style, marker="o", ms=4, color=f"C{kinds.index(kind)}", label=f"{kind}, {method}")
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_xlabel("anonymised texts")
    axes.set_ylabel("% of the text aligned rightly")
    axes.grid(alpha=0.3)
    axes.legend(title="plain text, method", fontsize=8, title_fontsize=8, bbox_to_anchor=(1.02, 1), loc="upper left")
    return figure
