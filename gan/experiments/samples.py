"""How far apart are n points of each law, where the laws themselves are so far?"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from gan.laws import Law
from gan.named import file_name, law_of
from gan.transport import exact_w1
from training.experiment.cells import Made, experiment, run_cells
from training.experiment.page import Section, Table
from training.experiment.report import decimals, png, shown_settings, write_report
from training.experiment.statistics import Estimate, estimate_runs
from training.files.buckets import disk_path
from training.files.images import read_images
from training.ranges import check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """Set the exact distance of more and more points beside that of the laws, in more and more dimensions."""

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for."""
    folder: str = "runs/wgan/sample-complexity"
    """Where everything goes; report.html is the result."""
    laws: tuple[str, ...] = ("shift:1", "shift:2", "shift:16")
    """Pairs of laws; see python -m scripts.wgan static --help."""
    points: tuple[int, ...] = (16, 64, 256)
    """Points drawn of each law."""
    draws: int = 5
    """Pairs of samples of each size."""

    def __post_init__(self):
        check_ranges(self, draws=(1, 1001))
        check_lists(self, laws=None, points=range(2, 10_001))


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {
        "laws": (
            "shift:1", "shift:2", "shift:4", "shift:16", "shift:64",
            "funnels:2:4", "funnels:16:4", "funnels:128:4",
        ),
        "points": (16, 64, 256, 1024, 2048),
    },
    "full": {
        "laws": ("shift:1", "shift:2", "shift:4", "shift:8", "shift:16", "shift:64", "shift:128"),
        "points": (16, 64, 256, 1024, 4096),
        "draws": 10,
    },
}  # fmt: skip


def sample_complexity(config: SamplesConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises ValueError for settings that cannot be."""
    folder = disk_path(config.folder, "--folder")
    laws = {name: law_of(name, lambda: read_images(None)) for name in config.laws}

    def measure(cell: tuple[str, int]) -> dict[str, Any]:
        law, count = laws[cell[0]], cell[1]
        pairs = (law.sample(jax.random.key(draw), count) for draw in range(config.draws))
        return {
            "law": cell[0],
            "points": count,
            "dimensions": law.dimensions,
            "truth": law.w1,
            "w1": [exact_w1(x, y) for x, y in pairs],
        }

    with experiment(folder, {}):  # a cell's name says what it is made with
        wanted = {f"{file_name(law)}-{n}-{config.draws}": (law, n) for n, law in product(config.points, config.laws)}
        made = run_cells(folder, wanted, measure, "sample", lambda row: {"law", "points", "w1"} <= row.keys())
        tell(report(folder, made, laws, config))
        made.complete()


def report(folder: Path, made: Made, laws: Mapping[str, Law], config: SamplesConfig) -> str:
    """samples.md, .csv, .json and report.html; returns the table."""
    cells = [*made.cells.values()]
    found = {(c["law"], c["points"]): estimate_runs(c["w1"]) for c in cells}
    rows = [[law, decimals(laws[law].w1), *(decimals(found.get((law, n))) for n in config.points)] for law in laws]
    section = Section(
        "samples",
        "The exact distance of n points of each law",
        "E W1(P_n, Q_n) - W1(P, Q) is at most of the order n^(-1/D) in D > 2 dimensions "
        "(Fournier, Guillin 2015, arXiv 1312.2128)",
        "In many dimensions a minibatch's exact distance is that of its own few points, however large the batch.",
        _by_points(config, laws, found),
        table=Table(("law", "truth", *(f"n = {n}" for n in config.points)), rows),
    )
    settings = shown_settings(config)
    return write_report(
        folder,
        "samples",
        "How many points W1 needs",
        [section],
        settings,
        lead=f"{config.draws} draws of each size; intervals are of 95 %, by Student's t.",
        columns=("law", "points", "draw", "truth", "w1"),
        rows=([c["law"], c["points"], n, c["truth"], value] for c in cells for n, value in enumerate(c["w1"])),
        json={"settings": settings, "cells": cells},
        missing=made.missing,
    )


def _by_points(config: SamplesConfig, laws: Mapping[str, Law], found: Mapping[tuple[str, int], Estimate]) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(config.laws):
        sizes = np.array([n for n in config.points if (name, n) in found])
        if not len(sizes):
            continue
        mean, low, high = np.array([found[name, n] for n in sizes]).T
        color, truth = f"C{place % 10}", laws[name].w1
        axes.errorbar(sizes, mean, [mean - low, high - mean], marker="o", color=color, label=name, capsize=2)
        if truth is None:
            continue
        axes.axhline(truth, color=color, linestyle="--", linewidth=1)
        if (above := mean[0] - truth) > 0 and laws[name].dimensions > 2:
            axes.plot(
                sizes, truth + above * (sizes / sizes[0]) ** (-1 / laws[name].dimensions), color=color, linestyle=":"
            )
    axes.set(xscale="log", yscale="log", xlabel="points n", ylabel="exact W1 of n points")
    axes.set_xticks(config.points, [str(n) for n in config.points])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # powers of ten alone may be one, or none
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_title("dashes: the laws' distance; dots: towards it like n^(-1/D)", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return png(figure)
