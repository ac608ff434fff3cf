"""What the ways of training come to: rank correlations by way and task, what is drawn, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, write_report
from training.experiment.statistics import Estimate, estimate_runs

Row = Mapping[str, Any]
DRAWN = {
    "good": "alike, no copy",
    "other": "another meaning",
    "copies": "copies",
    "unique": "unlike each other",
    "distinct_2": "distinct-2",
}


def report(
    folder: Path,
    made: Made,
    ways: Sequence[str],
    judge: Mapping[str, float],
    settings: Mapping[str, Any],
) -> str:
    """questions.csv, .md, .png and report.html in `folder`; returns the tables.

    ways: all there are, in order. judge: its accuracies.
    """
    rows = sorted(made.cells.values(), key=lambda row: (bool(row["groups"]), ways.index(row["way"])))
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(_line(row), []).append(row)
    tasks = list(rows[0]["spearman"])
    sections = [
        Section(
            "spearman",
            "Spearman's correlation of cosines, on pairs that were held out",
            says="A dot a seed, and the mean of all tasks; intervals are Student's over seeds.",
            picture=png(_picture(lines)),
            table=_correlations(lines, tasks),
        )
    ]
    drawn = {name: seeds for name, seeds in lines.items() if "drawn" in seeds[0]}
    if drawn:
        sections.append(Section("drawn", "Questions that were drawn", says=_judged(judge), table=_shares(drawn)))
        name = next(iter(drawn))
        shown = [[text, " / ".join(several)] for text, several in drawn[name][0]["drawn"]["shown"]]
        table = Table(["question", f"drawn by {name}, as they came"], shown, left=2)
        sections.append(Section("questions", "Ten questions, and what was drawn of each", table=table))
    columns = ["way", "groups", "seed", *tasks, *DRAWN]
    return write_report(
        folder,
        "questions",
        "Which parts of RoFormer-Sim help?",
        sections,
        settings,
        lead=f"{len(rows)} trainings of {len(lines)} ways.",
        columns=columns,
        rows=[_csv(row, tasks) for row in rows],
        missing=made.missing,
    )


def _line(row: Row) -> str:
    return f"{row['way']} on {row['groups']}" if row["groups"] else row["way"]


def _csv(row: Row, tasks: Sequence[str]) -> list[Any]:
    found = [f"{row['spearman'][task]['mean']:.5f}" for task in tasks]
    drawn = [f"{row['drawn'][name]:.5f}" if name in row.get("drawn", {}) else "" for name in DRAWN]
    return [row["way"], row["groups"], row["seed"], *found, *drawn]


def _means(row: Row) -> float:
    return float(np.mean([x["mean"] for x in row["spearman"].values()]))


def _percent(values: Sequence[float]) -> str:
    return Estimate(*(100 * x for x in estimate_runs(values))).text(1)


def _correlations(lines: Mapping[str, Sequence[Row]], tasks: Sequence[str]) -> Table:
    body = []
    for name, rows in lines.items():
        of_tasks = [_percent([row["spearman"][task]["mean"] for row in rows]) for task in tasks]
        body.append([name, *of_tasks, _percent([_means(row) for row in rows])])
    caption = "Spearman's correlation x 100: mean over seeds [95 % interval]"
    return Table(["way", *tasks, "mean"], body, caption=caption)


def _shares(drawn: Mapping[str, Sequence[Row]]) -> Table:
    shown = [name for name in DRAWN if name in next(iter(drawn.values()))[0]["drawn"]]
    body = [[way, *(_percent([row["drawn"][name] for row in rows]) for name in shown)] for way, rows in drawn.items()]
    caption = "Shares of what was drawn, in percent: mean over seeds [95 % interval]"
    return Table(["way", *(DRAWN[name] for name in shown)], body, caption=caption)


def _judged(judge: Mapping[str, float]) -> str:
    said = ", ".join(f"{100 * value:.1f} % {name}" for name, value in judge.items())
    return (
        "Whether a question means the same says an encoder tuned on labelled pairs of texts that were held out; of "
        f"pairs that it was not tuned on it is right on {said}."
    )


def _picture(lines: Mapping[str, Sequence[Row]]) -> Figure:
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, rows in enumerate(lines.values()):
        seeds = [100 * _means(row) for row in rows]
        mean, low, high = estimate_runs(seeds)
        axes.plot(seeds, [place] * len(seeds), "o", color=f"C{place % 10}", markersize=4, alpha=0.6)
        if not np.isnan(low):
            axes.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], fmt="|", color=f"C{place % 10}", lw=2)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("Spearman x 100, mean of all tasks")
    return figure
