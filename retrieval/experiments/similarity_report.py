"""What a grid of rank correlations ends in: CSV, Markdown and a heat map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.text import Text

from retrieval.vectors.pooling import SHORT
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, write_report
from training.experiment.statistics import Estimate

Row = dict[str, Any]
COLUMNS = ("model", "pooling", "method", "dimensions", "task", "split", "pairs", "spearman", "low", "high")


def report(folder: Path, made: Made, settings: Mapping[str, Any]) -> str:
    """similarity.csv, .md, .png and report.html in `folder`; returns the table and where the page is."""
    rows = [*made.cells.values()]
    says = "Colours are of a task alone, from its lowest correlation to its highest."
    section = Section("similarity", "Spearman's correlation", says=says, picture=png(heat_map(rows)), table=table(rows))
    return write_report(
        folder,
        "similarity",
        "How good are sentence vectors?",
        [section],
        settings,
        lead=f"{len(rows)} cells; intervals are of 95 %, by a bootstrap of pairs.",
        columns=COLUMNS,
        rows=_lines(rows),
        missing=made.missing,
    )


def _lines(rows: Sequence[Row]) -> list[list[Any]]:
    lines = []
    for row in rows:
        about = [row[name] for name in ("model", "pooling", "method", "dimensions", "task")]
        for name, x in row["splits"].items():
            lines.append([*about, name, x["pairs"], x["mean"], x["low"], x["high"]])
        pairs = sum(x["pairs"] for x in row["splits"].values())
        lines.append([*about, "(average)", pairs, row["average"], "", ""])
        lines.append([*about, "(weighted average)", pairs, *(row["weighted"][k] for k in ("mean", "low", "high"))])
    return lines


def _grid(rows: Sequence[Row]) -> tuple[list[tuple[str, str, str]], list[str], dict[tuple, Estimate]]:
    """Lines (model, pooling, method), tasks, and what is at each."""
    lines = list(dict.fromkeys((row["model"], row["pooling"], row["method"]) for row in rows))
    order = {name: place for place, name in enumerate(SHORT)}
    models = list(dict.fromkeys(model for model, _, _ in lines))
    methods = list(dict.fromkeys(method for _, _, method in lines))
    lines.sort(key=lambda x: (models.index(x[0]), order[x[1]], methods.index(x[2])))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    found = {(row["model"], row["pooling"], row["method"], row["task"]): Estimate(**row["weighted"]) for row in rows}
    return lines, tasks, found


def table(rows: Sequence[Row]) -> Table:
    """A line for each model, pooling and method, a column for each task; the best of a task is bold."""
    lines, tasks, found = _grid(rows)
    best = {task: max(x.mean for key, x in found.items() if key[-1] == task) for task in tasks}

    def cell(line: tuple[str, str, str], task: str) -> str:
        if (*line, task) not in found:
            return ""
        x = found[*line, task]
        text = Estimate(*(100 * value for value in x)).text(1)
        return f"**{text}**" if x.mean == best[task] else text

    names = [
        [model, f"{SHORT[pooling]} {pooling}" if SHORT[pooling][0] == "P" else pooling, method]
        for model, pooling, method in lines
    ]
    body = [[*name, *(cell(line, task) for task in tasks)] for name, line in zip(names, lines, strict=True)]
    caption = (
        "Spearman's correlation x 100, mean over a task's files by their sizes, [95 % interval]; "
        "a task's highest is bold"
    )
    return Table(["model", "pooling", "method", *tasks], body, left=3, caption=caption)


def heat_map(rows: Sequence[Row]) -> Figure:
    """The same as colours, each task's own scale, with the numbers."""
    lines, tasks, found = _grid(rows)
    figure = Figure(figsize=(3.2 + 1.1 * len(tasks), 1.2 + 0.26 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(-0.5, len(tasks) - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    colours = colormaps["viridis"]
    for x, task in enumerate(tasks):
        values = [found[key].mean for key in found if key[-1] == task]
        low, spread = min(values), max(max(values) - min(values), 1e-9)
        for y, line in enumerate(lines):
            if (*line, task) in found:
                value = found[*line, task].mean
                share = (value - low) / spread
                axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=colours(share), linewidth=0)
                axes.text(
                    x, y, f"{100 * value:.1f}", ha="center", va="center", fontsize=8, color="k" if share > 0.6 else "w"
                )
    axes.set_xticks(range(len(tasks)), tasks)
    names = {pooling: f"{short} {pooling}" if short[0] == "P" else short for pooling, short in SHORT.items()}
    models = list(dict.fromkeys(model for model, _, _ in lines))
    several = len(models) > 1
    axes.set_yticks(
        range(len(lines)), [f"{f'{m} ' if several else ''}{names[p]}, {k}" for m, p, k in lines], fontsize=8
    )
    figure.suptitle("Sentence vectors" + ("" if several else f" of {models[0]}"), fontsize=10)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xlabel("Spearman x 100;\ncolours by column", fontsize=8)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name may have a $
    return figure
