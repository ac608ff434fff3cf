"""What the ways of matching come to: AUC by way beside the one it is compared with, and learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from retrieval.experiments.matching_ways import Way
from retrieval.matching.score import Parts, estimate_auc, parts_of_auc
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, write_report
from training.experiment.statistics import Estimate

Row = Mapping[str, Any]
COLUMNS = ("way", "fold", "seed", "auc", "seconds")
# Ways whose learning is drawn; the post's recipe is dashed.
CURVES = ("random", "random, pretrained", "rank", "context", "key", "plain", "taught", "best")
POST = ("the post, random", "the post", "the post, context")


def report(
    folder: Path, made: Made, ways: Mapping[str, Way], labels: Sequence[np.ndarray], settings: Mapping[str, Any]
) -> str:
    """matching.csv, .md, PNG and report.html in `folder`; returns the tables. labels: of each fold's pairs."""
    rows = [*made.cells.values()]
    of = {name: found for name in ways if (found := [row for row in rows if row["way"] == name])}
    parts = {name: _parts(found, labels) for name, found in of.items()}
    sections = [
        Section(
            "auc",
            "AUC on pairs that were held out",
            says="The mean of the folds; bars are 95 % intervals by DeLong's variance, dots the seeds.",
            picture=png(_areas(of, parts)),
            table=_table(of, parts, ways),
        ),
        Section(
            "curves",
            "How fast they learn",
            says="The mean AUC of held-out pairs over folds and seeds, by passes.",
            picture=png(_curves(of)),
        ),
    ]
    return write_report(
        folder,
        "matching",
        "What makes a matcher of anonymised texts good?",
        sections,
        settings,
        lead=f"{len(rows)} cells of {len(of)} ways, {sum(map(len, labels)):,} pairs in {len(labels)} folds.",
        columns=COLUMNS,
        rows=[[row[name] for name in COLUMNS] for row in rows],
        missing=made.missing,
    )


def _parts(rows: Sequence[Row], labels: Sequence[np.ndarray]) -> dict[int, Parts]:
    """Of each fold that is there, the mean over seeds."""
    found: dict[int, list[Parts]] = {}
    for row in rows:
        found.setdefault(row["fold"], []).append(parts_of_auc(np.array(row["scores"]), labels[row["fold"]]))
    return {fold: Parts(*(np.mean(part, 0) for part in zip(*several, strict=True))) for fold, several in found.items()}


def _less(one: Mapping[int, Parts], other: Mapping[int, Parts]) -> Estimate | None:
    """The difference on the folds that both have."""
    both = [fold for fold in one if fold in other]
    less = [Parts(*(a - b for a, b in zip(one[fold], other[fold], strict=True))) for fold in both]
    return estimate_auc(less) if less else None


def _table(of: Mapping[str, Sequence[Row]], parts: Mapping[str, Mapping[int, Parts]], ways: Mapping[str, Way]) -> Table:
    body = []
    for name, rows in of.items():
        beside = ways[name].beside
        less = _less(parts[name], parts[beside]) if beside in parts and beside != name else None
        minutes = sum(row["seconds"] for row in rows) / 60
        counts = f"{len({row['fold'] for row in rows})} x {len({row['seed'] for row in rows})}"
        found = [_percent(estimate_auc([*parts[name].values()])), _percent(less, "+") if less else ""]
        body.append([name, *found, beside if less else "", counts, f"{minutes:.1f}"])
    caption = "AUC x 100 [95 % interval], and the difference to another way on the same pairs"
    return Table(["way", "AUC", "difference", "to", "folds x seeds", "minutes"], body, caption=caption)


def _percent(value: Estimate, sign: str = "") -> str:
    return Estimate(*(100 * x for x in value)).text(1, sign)


def _areas(of: Mapping[str, Sequence[Row]], parts: Mapping[str, Mapping[int, Parts]]) -> Figure:
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(of)), layout="constrained")
    axes = figure.subplots()
    for place, (name, rows) in enumerate(of.items()):
        seeds = {row["seed"] for row in rows}
        each = [100 * float(np.mean([row["auc"] for row in rows if row["seed"] == seed])) for seed in sorted(seeds)]
        mean, low, high = (100 * x for x in estimate_auc([*parts[name].values()]))
        axes.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], fmt="|", color="C0", lw=2)
        axes.plot(each, [place] * len(each), "o", color="C0", markersize=4, alpha=0.6)
    axes.set_yticks(range(len(of)), list(of))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("AUC x 100")
    return figure


def _curves(of: Mapping[str, Sequence[Row]]) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    curves = {name: found for name, rows in of.items() if (found := [row["curve"] for row in rows if row["curve"]])}
    for name in filter(curves.__contains__, CURVES + POST):
        passes = min(map(len, curves[name]))
        means = np.mean([[area for _, area in curve[:passes]] for curve in curves[name]], 0)
        axes.plot(range(passes), 100 * means, "o--" if name in POST else "o-", ms=4, label=name)
    axes.set_xlabel("passes over the pairs")
    axes.set_ylabel("AUC x 100")
    axes.grid(alpha=0.3)
    axes.legend(title="way", fontsize=8, bbox_to_anchor=(1.02, 1), loc="upper left")
    return figure
