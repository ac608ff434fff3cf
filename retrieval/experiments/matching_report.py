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
from training.experiment.statistics import Estimate, estimate_runs

Row = Mapping[str, Any]
COLUMNS = ("way", "fold", "seed", "auc", "seconds")
# Ways whose learning is drawn; the post's recipe is dashed.
CURVES = ("random", "random, pretrained", "rank", "context", "key", "plain", "taught", "best")
POST = ("the post, random", "the post", "the post, context")


def report(
    folder: Path,
    made: Made,
    ways: Mapping[str, Way],
    labels: Sequence[np.ndarray],
    settings: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """matching.csv, .md, PNG and report.html in `folder`; returns the tables. labels: of each fold's pairs. notes: on
    the pairs."""
    rows = [*made.cells.values()]
    of = {name: found for name in ways if (found := [row for row in rows if row["way"] == name])}
    parts = {name: _parts(found, labels) for name, found in of.items()}
    sections = [
        Section(
            "auc",
            "AUC on pairs that were held out",
            says="The mean of the folds. Bars are 95 % intervals, of which pairs there are (DeLong) and, of several, "
            "of the seeds, which are dots.",
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
        notes=notes,
        missing=made.missing,
    )


def _parts(rows: Sequence[Row], labels: Sequence[np.ndarray]) -> dict[int, Parts]:
    """Of each fold that is there, the mean over seeds."""
    found: dict[int, list[Parts]] = {}
    for row in rows:
        found.setdefault(row["fold"], []).append(parts_of_auc(np.array(row["scores"]), labels[row["fold"]]))
    return {fold: Parts(*(np.mean(part, 0) for part in zip(*several, strict=True))) for fold, several in found.items()}


def _seeds(rows: Sequence[Row]) -> list[float]:
    """The mean AUC of each seed that has all folds."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["seed"], []).append(row["auc"])
    most = max(map(len, found.values()))
    return [float(np.mean(areas)) for areas in found.values() if len(areas) == most]


def _estimate(parts: Mapping[int, Parts], *ways: Sequence[Row]) -> Estimate:
    """With Student's interval over the seeds of these ways, where there are several."""
    mean, _, high = estimate_auc([*parts.values()])
    seeds = [estimate_runs(x) for rows in ways if len(x := _seeds(rows)) > 1]
    half = float(np.linalg.norm([high - mean, *(x.high - x.mean for x in seeds)]))
    return Estimate(mean, mean - half, mean + half)


def _less(one: Mapping[int, Parts], other: Mapping[int, Parts]) -> dict[int, Parts]:
    """The difference on the folds that both have."""
    both = [fold for fold in one if fold in other]
    return {fold: Parts(*(a - b for a, b in zip(one[fold], other[fold], strict=True))) for fold in both}


def _table(of: Mapping[str, Sequence[Row]], parts: Mapping[str, Mapping[int, Parts]], ways: Mapping[str, Way]) -> Table:
    body = []
    for name, rows in of.items():
        beside = ways[name].beside
        less = _less(parts[name], parts[beside]) if beside in parts and beside != name else {}
        apart = [_percent(_estimate(less, rows, of[beside]), "+"), beside] if less else ["", ""]
        aligned = f"{100 * rows[0]['aligned']:.1f}" if rows[0].get("aligned") is not None else ""
        updates = f"{rows[0]['curve'][-1][0]:,}" if rows[0]["curve"] else ""
        found = [aligned, _percent(_estimate(parts[name], rows)), *apart]
        body.append([name, *found, str(len({row["seed"] for row in rows})), updates])
    caption = (
        "AUC x 100 [95 % interval], and the difference to another way on the same pairs; intervals are of the pairs "
        "alone where there is one seed"
    )
    return Table(["way", "% of the text aligned", "AUC", "difference", "to", "seeds", "updates"], body, caption=caption)


def _percent(value: Estimate, sign: str = "") -> str:
    return Estimate(*(100 * x for x in value)).text(1, sign)


def _areas(of: Mapping[str, Sequence[Row]], parts: Mapping[str, Mapping[int, Parts]]) -> Figure:
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(of)), layout="constrained")
    axes = figure.subplots()
    for place, (name, rows) in enumerate(of.items()):
        each = [100 * area for area in _seeds(rows)]
        mean, low, high = (100 * x for x in _estimate(parts[name], rows))
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
