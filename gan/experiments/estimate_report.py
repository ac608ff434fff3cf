"""What gan.experiments.estimate leaves: one table, one picture with all intervals on one axis, and what follows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from gan.experiments.estimate_cells import KINDS, Row, row
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, shown_settings, write_report
from training.experiment.statistics import Estimate

LAWS = "the laws that they were drawn from"
ROW = {"what", "kind", "of", "value", "low", "high", "note"}
COSTS = ("seconds", "cpu_seconds", "memory")  # of a method, all its rows together
COLORS = {"exact": "k", "lower": "C0", "upper": "C3", "estimate": "C2", "none": "C7", "other": "C4"}
MARKS = {"exact": "D", "lower": ">", "upper": "<", "estimate": "o", "none": "x", "other": "s"}


class Facts(NamedTuple):
    """Of the two files."""

    lines: list[str]  # what is in them, a line each
    sizes: tuple[int, int]
    dimensions: int

    @classmethod
    def of(cls, p: str, q: str, shape: str, x: np.ndarray, y: np.ndarray) -> "Facts":
        lines = []
        for name, path, z in (("P", p, x), ("Q", q, y)):
            repeats = len(z) - len(np.unique(z, axis=0))
            lines.append(
                f"{name}, {path}: {len(z):,} points of {shape} numbers from {z.min():.4g} to {z.max():.4g}, "
                f"{f'{repeats:,} of them repeats of others' if repeats else 'no two alike'}"
            )
        return cls(lines, (len(x), len(y)), x.shape[1])


def fits(cell: Mapping[str, Any]) -> bool:
    """Has a kept cell all that the report is of?"""
    return {"rows", *COSTS} <= cell.keys() and bool(cell["rows"]) and all(ROW <= one.keys() for one in cell["rows"])


def report(folder: Path, made: Made, facts: Facts, config: Any) -> str:
    """estimate.md, .csv, .json and report.html; returns the table and what follows from it."""
    cells = [*made.cells.values()]
    told = [(one, cell if one is cell["rows"][0] else {}) for cell in cells for one in cell["rows"]]
    told += [(one, {}) for one in extrapolated([one for one, _ in told], facts)]
    told.sort(key=lambda line: line[0]["of"] != "files")
    rows = [one for one, _ in told]
    summary = [conclusion(rows, "files"), conclusion(rows, "laws")]
    table = Table(
        ("method", "is", "of", "note", "W1", "seconds", "peak memory"),
        [[one["what"], KINDS[one["kind"]], _of(one), one["note"], _number(one), *_cost(cell)] for one, cell in told],
        left=4,
    )
    section = Section(
        "intervals",
        "Bounds and estimates of W1",
        "any plan between all points costs at least W1, any f(x) + g(y) <= |x - y| has means of at most W1",
        " ".join(summary),
        _picture(rows, summary),
        table=table,
    )
    settings = shown_settings(config)
    return write_report(
        folder,
        "estimate",
        "W1 of the points of two files",
        [section],
        settings,
        lead=f"{facts.lines[0]}. {facts.lines[1]}. Intervals are of 95 %.",
        columns=("method", "w1", "low", "high", "is", "of", *COSTS, "note"),
        rows=(
            [
                *(one[name] for name in ("what", "value", "low", "high", "kind", "of")),
                *map(cell.get, COSTS),
                one["note"],
            ]
            for one, cell in told
        ),
        json={"settings": settings, "files": facts.lines, "summary": summary, "cells": cells, "rows": rows},
        notes=[
            *facts.lines,
            "Bounds of the files' points hold for these points, whatever drew them; those of the laws if each file is "
            "of independent draws, of 95 % each; of several the best is told, which is less than 95 %.",
            "Peak memory is that of the whole process while the method ran, with its libraries and both files.",
        ],
        missing=made.missing,
    )


def _of(one: Row) -> str:
    return "the files' points" if one["of"] == "files" else "the laws"


def _number(one: Row) -> str:
    value = one["value"]
    if value is None:
        return "no number"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 3
    if one["low"] is None:
        return f"{value:.{digits}f}"
    return Estimate(value, one["low"], one["high"]).text(digits)


def _cost(cell: Mapping[str, Any]) -> tuple[str, str]:
    """Of a method's first row."""
    memory = cell.get("memory")
    return f"{cell['seconds']:.1f}" if cell else "", f"{memory / 2**30:.2f} GB" if memory else ""


def limits(rows: Sequence[Row], of: str) -> tuple[Row | None, Row | None]:
    """The highest lower bound and the lowest upper one: what is exact is both; of laws the ends of intervals."""
    found: list[Row | None] = []
    for kind, end, pick in (("lower", "low", max), ("upper", "high", min)):
        its = [one for one in rows if one["of"] == of and one["kind"] in (kind, "exact")]
        values = [(one["value"] if one[end] is None else one[end], n) for n, one in enumerate(its)]
        found.append(None if not values else its[pick(values)[1]] | {"bound": pick(values)[0]})
    return found[0], found[1]


def conclusion(rows: Sequence[Row], of: str) -> str:
    """One sentence."""
    low, high = limits(rows, of)
    exact = next((one for one in rows if one["of"] == of and one["kind"] == "exact"), None)
    if exact:
        return f"The files' points are {exact['value']:.6g} apart, exactly."
    begin = "The files' points are" if of == "files" else f"{LAWS.capitalize()} are, with 95 % each,"
    parts = [
        f"at least {max(low['bound'], 0):.5g} ({low['what']})" if low else "",
        f"at most {high['bound']:.5g} ({high['what']})" if high else "",
    ]
    return f"{begin} {' and '.join(filter(None, parts))} apart." if any(parts) else ""


def extrapolated(rows: Sequence[Row], facts: Facts) -> list[Row]:
    """What the exact distances of subsets point to for all points and for infinitely many."""
    sets = {one["points"]: one["draws"] for one in rows if "draws" in one}
    if len(sets) < 3:
        return []
    fit = fitted(sets, facts.sizes, facts.dimensions)
    note = "W + c n^-a, fitted to the subsets"
    known = any(one["kind"] == "exact" for one in rows)
    of_laws = f"a {fit['exponent']:.2f}{_outside(fit, rows)}"
    return [
        *([] if known else [row("extrapolated to all points", "estimate", "files", fit["files"], note=note)]),
        row("extrapolated", "estimate", "laws", fit["laws"], note=f"{note}; {of_laws}"),
    ]


def _outside(fit: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """A curve of another form than the distances have may end where bounds of the laws say that it cannot."""
    low, high = limits(rows, "laws")
    beyond = low and fit["laws"].mean < low["bound"] or high and fit["laws"].mean > high["bound"]
    return "; beyond the bounds of the laws, so the curve does not fit" if beyond else ""


def fitted(sets: Mapping[int, Sequence[float]], sizes: tuple[int, int], dimensions: int) -> dict[str, Any]:
    """files, laws: W + c n^-a at the files' sizes and at none, as the exact distances of subsets of some sizes have it;
    W and c from 0, and a from 1 / D (Fournier, Guillin 2015, arXiv 1312.2128) to 1. Intervals are of 95 %, by refits to
    means moved as their own errors are, by Student's t."""
    rng = np.random.default_rng(0)
    counts, draws = np.array([*sets], float), [np.array(values) for values in sets.values()]
    means = np.array([part.mean() for part in draws])
    errors = np.array([part.std(ddof=1) / len(part) ** 0.5 for part in draws])
    errors = np.maximum(errors, 1e-6 * means.max() + 1e-300)
    freedom = np.array([len(part) - 1 for part in draws])
    exponents = np.geomspace(1 / max(dimensions, 2), 1, 40)

    def fit(values: np.ndarray) -> tuple[float, float, float]:
        found = []
        for a in exponents:
            design = np.stack([np.ones_like(counts), counts**-a], 1)
            (limit, slope), rest = nnls(design / errors[:, None], values / errors)
            found.append((rest, limit + slope * sum(n**-a for n in sizes) / 2, limit, a))
        return min(found)[1:]

    best = fit(means)
    moved = np.array([fit(means + errors * rng.standard_t(freedom)) for _ in range(200)])
    low, high = np.percentile(moved, [2.5, 97.5], axis=0)
    ends = [Estimate(best[k], min(low[k], best[k]), max(high[k], best[k])) for k in range(2)]
    return {"files": ends[0], "laws": ends[1], "exponent": best[2]}


def _picture(rows: Sequence[Row], summary: Sequence[str]) -> bytes:
    from matplotlib.figure import Figure

    shown = [one for one in rows if one["value"] is not None]
    bounds = [one["value"] for one in shown if one["kind"] in ("upper", "exact", "lower")]
    right = 1.25 * max([*bounds, 1e-300])
    figure = Figure(figsize=(10, 1.6 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for of in ("files", "laws"):
        places = [n for n, one in enumerate(shown) if one["of"] == of]
        low, high = limits(shown, of)
        if places and low and high and low["bound"] <= high["bound"]:
            span = (low["bound"], high["bound"])
            axes.fill_betweenx([places[0] - 0.5, places[-1] + 0.5], *span, color="C8", alpha=0.3, lw=1)
        if of == "laws" and places:
            axes.axhline(places[0] - 0.5, color="k", lw=0.8)
    for place, one in enumerate(shown):
        color, value = COLORS[one["kind"]], one["value"]
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [place, place], color=color, lw=2, alpha=0.5)
        axes.plot(min(value, right), place, MARKS[one["kind"]], color=color, clip_on=False)
        axes.text(1.01, place, _number(one), transform=axes.get_yaxis_transform(), fontsize=7, va="center")
    for kind in dict.fromkeys(one["kind"] for one in shown):
        axes.plot([], [], MARKS[kind], color=COLORS[kind], label=KINDS[kind])
    axes.set_yticks(range(len(shown)), [f"{one['what']} ({one['of']})" for one in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(min([0.0, *(one["value"] for one in shown if one["value"] > -right)]), right)
    axes.set_xlabel("W1")
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=6, fontsize=8)
    return png(figure)
