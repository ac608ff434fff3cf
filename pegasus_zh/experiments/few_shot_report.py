"""What the cells of the few-shot experiment say: a row for each, tables with intervals, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pegasus_zh.evaluation import METRICS
from training.experiment.page import Section, Table
from training.experiment.report import png, write_report
from training.experiment.statistics import estimate

Figures = Mapping[tuple[str, int, str], np.ndarray]  # (task, examples, objective) -> Rouge-L [seeds, test examples]
COLUMNS = ("task", "examples", "objective", "seed")


def report(
    folder: Path,
    cells: Sequence[dict[str, Any]],
    copied: Mapping[str, float],
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """few_shot.csv, few_shot.md, few_shot.png and report.html in `folder`, of the cells' files; returns the tables.

    copied: for each task the Rouge-L of its sources' first characters. notes: lines on the data. settings: of the page.
    """
    figures: dict[tuple[str, int, str], list] = {}
    for cell in sorted(cells, key=lambda cell: cell["seed"]):
        figures.setdefault((cell["task"], cell["examples"], cell["objective"]), []).append(cell["scores"]["rouge-l"])
    rows = (
        [
            *(cell[name] for name in COLUMNS),
            *(f"{np.mean(cell['scores'][name]):.5f}" for name in METRICS),
            len(set(cell["written"])),
            cell["best"]["step"],
        ]
        for cell in cells
    )
    return write_report(
        folder,
        "few_shot",
        "Which pretraining helps where examples are few?",
        _sections({key: np.array(x) for key, x in figures.items()}, copied),
        settings,
        lead=f"{len(cells)} fine-tunings; intervals are of 95 %, by a bootstrap of seeds and test examples.",
        columns=[*COLUMNS, *METRICS, "distinct", "best_step"],
        rows=rows,
        notes=notes,
    )


def _sections(figures: Figures, copied: Mapping[str, float]) -> list[Section]:
    rows, objectives = list(dict.fromkeys(key[:2] for key in figures)), list(dict.fromkeys(key[2] for key in figures))
    first, *others = objectives
    seeds = len(next(iter(figures.values())))
    absolute = [
        [f"{100 * copied[row[0]]:.2f}", *(estimate(100 * figures[*row, x]).text(2) for x in objectives)] for row in rows
    ]
    caption = f"Rouge-L in percent, mean of {seeds} seed(s) and the test examples [95 % interval]"
    says = (
        "A line an objective in its interval, a dot a seed; "
        "dashed is what copying the source's first characters scores."
    )
    table = _table(["copied", *objectives], rows, absolute, caption)
    made = [
        Section("few_shot", "Rouge-L by training examples", says=says, picture=_picture(figures, copied), table=table)
    ]
    if others:
        paired = [
            [estimate(100 * (figures[*row, first] - figures[*row, x])).text(2, "+") for x in others] for row in rows
        ]
        caption = (
            f"Difference, seed by seed and example by example: {first} is better where all of the interval is above 0"
        )
        table = _table([f"{first} - {x}" for x in others], rows, paired, caption)
        made.append(Section("differences", f"{first} beside the others", table=table))
    return made


def _table(
    heads: Sequence[str], rows: Sequence[tuple[str, int]], cells: Sequence[Sequence[str]], caption: str
) -> Table:
    lines = [[task, f"{examples:,}", *x] for (task, examples), x in zip(rows, cells, strict=True)]
    return Table(["task", "examples", *heads], lines, caption=caption)


def _picture(figures: Figures, copied: Mapping[str, float]) -> bytes:
    """One panel a task: Rouge-L by examples, a line an objective in its interval, a dot a seed."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(task for task, _, _ in figures))
    objectives = list(dict.fromkeys(objective for _, _, objective in figures))
    figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        sizes = sorted({key[1] for key in figures if key[0] == task})
        for number, objective in enumerate(objectives):
            values = [100 * figures[task, n, objective] for n in sizes]
            found = [estimate(x) for x in values]
            places = np.array(sizes) * 1.06 ** (number - (len(objectives) - 1) / 2)  # beside each other
            (line,) = axes.plot(places, [x.mean for x in found], "-", linewidth=1.6, label=objective)
            color = line.get_color()
            axes.fill_between(places, [x.low for x in found], [x.high for x in found], color=color, alpha=0.12, lw=0)
            for x, seeds in zip(places, values, strict=True):
                axes.plot([x] * len(seeds), seeds.mean(1), "o", color=color, markersize=3.5)
        axes.axhline(100 * copied[task], color="0.4", linestyle="--", linewidth=1, label="first characters copied")
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.set_xticks([], minor=True)
        axes.set(title=task, xlabel="training examples", ylabel="Rouge-L, %", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(objectives) + 1)
    return png(figure)
