"""What gan.experiments.static leaves: each law's tables, curves and slopes, and the published benchmark beside them."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gan.experiments.pictures import Panel, slopes
from gan.named import file_name
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import decimals, png, shown_settings, write_report
from training.experiment.statistics import Estimate, estimate_runs


def fits(cell: Mapping[str, Any]) -> bool:
    """Has a kept cell all that the report is of?"""
    return {"constraint", "slopes"} <= cell.keys()


def report(folder: Path, made: Made, config: Any) -> str:
    """static.md, .csv, .json and report.html; returns the tables."""
    cells = [*made.cells.values()]
    sections = []
    for name in config.laws:
        if not (its := [c for c in cells if c["law"] == name]):
            continue
        its.sort(key=lambda c: c["truth"] is None)  # critics of another metric last
        truth = its[0]["truth"]
        known = "unknown" if truth is None else f"{truth:.4g}"
        panel = Panel(
            title=f"{name}, {its[0]['dimensions']} dimensions",
            curves={c["critic"]: [(e["step"], estimate_runs(e["kr"])) for e in c["curve"]] for c in its},
            lines={"of the laws": truth, f"of batches of {config.batch}, exactly": float(np.mean(its[0]["minibatch"]))},
            label="mean f(x) - mean f(y)",
        )
        sections.append(
            Section(
                file_name(name),
                f"{name}: W1 {known}",
                "W1(P, Q) = max E f(x) - E f(y) over 1-Lipschitz f",
                f"The laws are {known} apart, batches of {config.batch} points {np.mean(its[0]['minibatch']):.4g}: a "
                "critic that approaches the second is accurate of the batch, not of the laws.",
                panel.picture(),
                table=Table(HEADS, [_row(cell) for cell in its]),
            )
        )
        parts = {c["critic"]: c["slopes"] for c in its if None not in np.ravel(c["slopes"])}
        sections.append(
            Section(
                f"{file_name(name)}-slopes",
                f"{name}: how steep the critics are, and how long they took",
                "|grad f| is at most 1, and 1 along the optimal plan's rays",
                "Gradients at points of P, of Q and between them, after the last step, all seeds; the last bar has all "
                "that is steeper. Seconds are of all seeds, with compilation and readings.",
                slopes(parts, {c["critic"]: c["seconds"] for c in its}),
            )
        )
    if compared := list(_beside_published(cells)):
        sections.append(
            Section(
                "published",
                "Beside the published single runs",
                "cosine of a critic's gradient with the optimal one, mean over points of P",
                f"After {config.steps or 'as many'} steps of ours; published: Korotin, Kolesov, Burnaev 2022, one "
                "seed. Its SN takes no gradient through the norm: the row sn-detached.",
                _heatmap(compared),
                table=Table(("law", "critic", "cosine", "published", "estimate / W1", "published"), compared),
            )
        )
    settings = shown_settings(config)
    return write_report(
        folder,
        "static",
        "What critics say of W1",
        sections,
        settings,
        lead=f"{len(cells)} cells; intervals are of 95 %, by Student's t over seeds.",
        columns=COLUMNS,
        rows=chain.from_iterable(map(_line, cells)),
        json={"settings": settings, "cells": cells},
        notes=NOTES,
        missing=made.missing,
    )


NOTES = (
    "estimate: the difference of f's means on fresh points, without any penalty. of the truth: that over what the "
    "optimal critic says of the same points. own objective: what the critic itself maximises, where that is another "
    "thing. exact, batch: W1 of batches of n points.",
    "steepest: the longest gradient that was met. cosine, L2 error: of the critic's gradient and the optimal one, a "
    "mean over points of P; 1 and 0 are best.",
    "constraint: how f is kept 1-Lipschitz. certified: no weights make what is read say more than W1, but for the "
    "sampling of points; penalised: the loss asks for it; clipped: some constant that nobody knows; none.",
)
HEADS = (
    "critic", "estimate", "of the truth", "own objective", "exact, batch", "truth", "steepest",
    "cosine", "L2 error", "constraint", "steps", "n", "seeds",
)  # fmt: skip
COLUMNS = (
    "law",
    "critic",
    "seed",
    "kr",
    "objective",
    "minibatch",
    "truth",
    "best",
    "steepest",
    "cosine",
    "l2",
    "bound",
    "constraint",
    "steps",
    "seconds",
)


def _told(cell: Mapping[str, Any], name: str) -> Estimate | None:
    values = np.array(cell["last"][name], float)
    return estimate_runs(values) if np.isfinite(values).all() else None


def _share(cell: Mapping[str, Any]) -> str:
    """What the critic says over what the optimal one says of the same points, in which their sampling cancels; where
    that is not known, over the laws' distance."""
    kr, best = (np.array(cell["last"][name], float) for name in ("kr", "best"))
    if not cell["truth"] or not np.isfinite(kr).all():
        return ""
    return estimate_runs(kr / np.where(np.isfinite(best), best, cell["truth"])).text(3)


def _row(cell: Mapping[str, Any]) -> list[str]:
    kr, truth, exact = _told(cell, "kr"), cell["truth"], float(np.mean(cell["minibatch"]))
    stopped = f"no number at step {cell['steps']}"
    return [
        cell["critic"],
        kr.text(3) if kr else stopped,
        _share(cell),
        decimals(_told(cell, "objective")) or ("not converged" if kr else ""),
        f"{exact:.3f}",
        f"{truth:.3f}" if truth is not None else "unknown",
        decimals(_told(cell, "steepest")),
        decimals(_told(cell, "cosine")),
        decimals(_told(cell, "l2")),
        cell["constraint"],
        f"{cell['steps']:,}",
        f"{cell['batch']}",
        f"{len(cell['last']['kr'])}",
    ]


def _line(cell: Mapping[str, Any]) -> Iterator[list[Any]]:
    last, mean = cell["last"], float(np.mean(cell["minibatch"]))
    rest = (cell["constraint"], cell["steps"], round(cell["seconds"], 1))
    for seed in range(len(last["kr"])):
        told = ("kr", "objective", "best", "steepest", "cosine", "l2", "bound")
        kr, objective, *others = (last[measure][seed] for measure in told)
        yield [cell["law"], cell["critic"], seed, kr, objective, mean, cell["truth"], *others, *rest]


@cache
def published() -> dict[tuple[str, str], tuple[float, float]]:
    """(law, critic) -> (estimate over the truth, cosine) of the published benchmark."""
    with open(Path(__file__).parent.parent / "benchmark" / "published.csv") as file:
        rows = list(csv.DictReader(file))
    truth = {(r["dimensions"], r["funnels"]): float(r["w1"]) for r in rows if r["critic"] == "truth"}
    return {
        (f"funnels:{d}:{n}", r["critic"]): (float(r["w1"]) / truth[d, n], float(r["cosine"]))
        for r in rows
        for d, n in [(r["dimensions"], r["funnels"])]
    }


def _beside_published(cells: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for cell in cells:
        kr, cosine = _told(cell, "kr"), _told(cell, "cosine")
        if (key := (cell["law"], cell["critic"])) in published() and kr and cosine:
            ratio, theirs = published()[key]
            yield [*key, cosine.text(2), f"{theirs:.2f}", f"{kr.mean / cell['truth']:.2f}", f"{ratio:.2f}"]


def _heatmap(rows: Sequence[Sequence[str]]) -> bytes:
    """Cosines: our mean above, the published one below."""
    from matplotlib.figure import Figure

    laws, critics = (list(dict.fromkeys(row[i] for row in rows)) for i in (0, 1))
    ours, theirs = (np.full((len(critics), len(laws)), np.nan) for _ in range(2))
    for law, critic, cosine, other, *_ in rows:
        at = critics.index(critic), laws.index(law)
        ours[at], theirs[at] = float(cosine.split()[0]), float(other)
    figure = Figure(figsize=(2.5 + 0.75 * len(laws), 1.2 + 0.5 * len(critics)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(ours, cmap="RdYlBu", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(ours):
        if np.isfinite(value):
            text = f"{value:.2f}\n({theirs[row, column]:.2f})"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="k" if abs(value) < 0.75 else "w")
    axes.set_xticks(range(len(laws)), [law.removeprefix("funnels:") for law in laws], rotation=45)
    axes.set_yticks(range(len(critics)), critics)
    axes.set_xlabel("dimensions : funnels")
    figure.colorbar(shown, label="cosine, ours (published)")
    return png(figure)
