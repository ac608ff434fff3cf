"""What the cells of the few-shot experiment say: a row for each, tables with intervals, and a picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pegasus_zh.evaluation import METRICS
from pegasus_zh.experiments.few_shot_curves import curve_sections, points_of
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, seeds_told, write_report
from training.experiment.statistics import Runs, differences, estimate, estimate_runs, over_seeds

Figures = Mapping[tuple[str, int, str], Runs]  # (task, examples, objective) -> what each seed scored on the test part
Curves = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]  # (objective, seed) -> the rows of a run's metrics
NONE = "none"  # the objective of a model that is not pretrained
COLUMNS = ("task", "examples", "objective", "seed")


def report(
    folder: Path,
    made: Made,
    objectives: Sequence[str],
    baselines: Mapping[str, Mapping[str, float]],
    curves: Curves,
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """few_shot.md, .csv and .json, the pictures and report.html in `folder`, of the cells' files; returns the tables.

    objectives: in order, of which the first is compared with each of the others, and these with none, over the seeds
    that both have.
    baselines: for each task what `without_model` found. notes: lines on the data. settings: of the page.
    """
    cells, points = [*made.cells.values()], {key: points_of(rows) for key, rows in curves.items()}
    rows = (
        [
            *(cell[name] for name in COLUMNS),
            *(f"{np.mean(cell['scores'][name]):.5f}" for name in METRICS),
            f"{cell['source_gain']:.5f}",
            f"{np.mean(cell['part_from_source']):.5f}",
            len(set(cell["written"])),
            cell["best"]["step"],
        ]
        for cell in cells
    )
    return write_report(
        folder,
        "few_shot",
        "Which pretraining helps where examples are few?",
        [*_sections(cells, objectives, baselines), *_of_sources(cells, objectives, baselines), *curve_sections(points)],
        settings,
        lead=f"{len(cells)} fine-tunings; intervals are of 95 %, by a bootstrap of seeds and test examples.",
        columns=[*COLUMNS, *METRICS, "source_gain", "part_from_source", "distinct", "best_step"],
        rows=rows,
        json={
            "without a model": baselines,
            "curves": {f"{objective}-{seed}": found for (objective, seed), found in points.items()},
        },
        notes=notes,
        missing=made.missing,
    )


def _figures(
    cells: Sequence[Mapping[str, Any]],
    objectives: Sequence[str],
    tasks: Sequence[str],
    of: Callable[[Mapping[str, Any]], Sequence[float]] = lambda cell: cell["scores"]["rouge-l"],
) -> Figures:
    def place(cell: Mapping[str, Any]) -> tuple[int, ...]:
        return tasks.index(cell["task"]), cell["examples"], objectives.index(cell["objective"]), cell["seed"]

    figures: dict[tuple[str, int, str], dict[int, Sequence[float]]] = {}
    for cell in sorted(cells, key=place):
        key = cell["task"], cell["examples"], cell["objective"]
        figures.setdefault(key, {})[cell["seed"]] = of(cell)
    return figures


def _sections(
    cells: Sequence[Mapping[str, Any]], objectives: Sequence[str], baselines: Mapping[str, Mapping[str, float]]
) -> list[Section]:
    figures = _figures(cells, objectives, [*baselines])
    copied = {task: found["copied"] for task, found in baselines.items()}
    rows, (first, *others) = list(dict.fromkeys(key[:2] for key in figures)), objectives
    at = lambda row, objective: figures.get((*row, objective), {})  # noqa: E731
    absolute = [[f"{100 * copied[row[0]]:.2f}", *(_told(over_seeds(at(row, x))) for x in objectives)] for row in rows]
    caption = f"Rouge-L in percent, mean of {seeds_told(figures.values())} and the test examples [95 % interval]"
    says = (
        "A line an objective with its intervals, a dot a seed; "
        "dashed is what copying the source's first characters scores."
    )
    table = _table(["copied", *objectives], rows, absolute, caption)
    made = [
        Section(
            "few_shot",
            "Rouge-L by training examples",
            says=says,
            picture=_picture(figures, objectives, copied),
            table=table,
        )
    ]
    if others:
        compared = [(first, other) for other in others]
        compared += [(other, NONE) for other in others if NONE in others and other != NONE]
        paired = [[_told(differences(at(row, x), at(row, y)), "+") for x, y in compared] for row in rows]
        caption = (
            "Difference, seed by seed and example by example: the one named first is better where all of the interval "
            "is above 0"
        )
        table = _table([f"{x} - {y}" for x, y in compared], rows, paired, caption)
        made.append(Section("differences", "One beside the other", table=table))
    return made


def _of_sources(
    cells: Sequence[Mapping[str, Any]], objectives: Sequence[str], baselines: Mapping[str, Mapping[str, float]]
) -> list[Section]:
    """What scores without a model, and of the fine-tuned ones what they make of their sources."""
    tasks, heads = [*baselines], ["copied", "sentence", "lcs", "rouge-l", "best"]
    lines = [[task, *(f"{100 * found[name]:.2f}" for name in heads)] for task, found in baselines.items()]
    told = (
        "Without a model, Rouge-L in percent: the source's first characters, its first sentence, the sentence that the "
        "selectors lcs and rouge-l take first, and that which scores most"
    )
    made = [Section("without", "Without a model", table=Table(["task", *heads], lines, caption=told))]
    gains = _figures(cells, objectives, tasks, lambda cell: [cell["source_gain"]])
    rows = list(dict.fromkeys(key[:2] for key in gains))
    shown = [
        [estimate_runs(over_seeds(found)[:, 0]).text(3) if (found := gains.get((*row, x))) else "" for x in objectives]
        for row in rows
    ]
    caption = (
        "Source gain after fine-tuning, in nats a token: the references' cross-entropy after another source, less that "
        "after their own; mean of the seeds [95 % interval, of two or more]"
    )
    made.append(Section("source_gain", "Is the source looked at?", table=_table(objectives, rows, shown, caption)))
    parts = _figures(cells, objectives, tasks, lambda cell: cell["part_from_source"])
    shown = [
        [
            f"{100 * baselines[row[0]]['part']:.1f}",
            *(_told(over_seeds(parts.get((*row, x), {})), digits=1) for x in objectives),
        ]
        for row in rows
    ]
    caption = "Of the written bigrams of characters, those that stand in the source, in percent [95 % interval]"
    table = _table(["references", *objectives], rows, shown, caption)
    return [*made, Section("part_from_source", "What is taken from the source", table=table)]


def _table(
    heads: Sequence[str], rows: Sequence[tuple[str, int]], cells: Sequence[Sequence[str]], caption: str
) -> Table:
    lines = [[task, f"{examples:,}", *x] for (task, examples), x in zip(rows, cells, strict=True)]
    return Table(["task", "examples", *heads], lines, caption=caption)


def _told(values: np.ndarray, sign: str = "", digits: int = 2) -> str:
    """A table's cell; "" where no seed is there."""
    return estimate(100 * values).text(digits, sign) if values.size else ""


def _picture(figures: Figures, objectives: Sequence[str], copied: Mapping[str, float]) -> bytes:
    """One panel a task: Rouge-L by examples, a line an objective in its interval, a dot a seed."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(task for task, _, _ in figures))
    figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        sizes = sorted({key[1] for key in figures if key[0] == task})
        for number, objective in enumerate(objectives):
            there = [n for n in sizes if (task, n, objective) in figures]
            values = [100 * over_seeds(figures[task, n, objective]) for n in there]
            found = [estimate(x) for x in values]
            places = np.array(there) * 1.06 ** (number - (len(objectives) - 1) / 2)  # beside each other
            color, ends = f"C{number}", np.abs([[x.mean - x.low, x.high - x.mean] for x in found]).T
            axes.errorbar(
                places, [x.mean for x in found], ends if there else None, color=color, linewidth=1.6, elinewidth=1,
                capsize=3, label=objective,
            )  # fmt: skip
            for x, seeds in zip(places, values, strict=True):
                axes.plot([x] * len(seeds), seeds.mean(1), "o", color=color, markersize=3.5)
        axes.axhline(100 * copied[task], color="0.4", linestyle="--", linewidth=1, label="first characters copied")
        axes.set_xscale("log")
        axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.set_xticks([], minor=True)
        axes.set(title=task, xlabel="training examples", ylabel="Rouge-L, %", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(objectives) + 1)
    return png(figure)
