"""What the exact distance of finite samples prefers, without any training: averages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gan.experiments.pictures import grid
from gan.transport import exact_plan, exact_w1
from training.experiment.cells import Made, experiment, run_cells
from training.experiment.page import Section, Table
from training.experiment.report import decimals, png, shown_settings, write_report
from training.experiment.statistics import Estimate, estimate_runs
from training.files.buckets import disk_path
from training.files.images import fingerprint, read_images, split_images
from training.ranges import check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class MinimaConfig:
    """Set a batch of real images beside another, beside its mean, its median and centres of clusters, by exact W1 to
    held-out batches: what a generator that minimises it would rather make."""

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for."""
    data: str | None = None
    """None: scikit-learn's digits; else MNIST's files, a folder of pictures, an .npz or tfds:NAME."""
    folder: str = "runs/wgan/false-minima"
    """Where everything goes; report.html is the result."""
    batch: tuple[int, ...] = (16, 64)
    """Images of a batch."""
    draws: int = 3
    """Pairs of batches of each size."""
    clusters: int = 10
    """Clusters whose centres, weighted, are one of the candidates."""

    def __post_init__(self):
        check_ranges(self, draws=(1, 1001), clusters=(1, 1001))
        check_lists(self, batch=range(2, 4097))


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"batch": (8, 16, 32, 64, 128, 256, 512), "draws": 50},
    "full": {"batch": (8, 16, 32, 64, 128, 256, 512), "draws": 400},
}


MEDIANS = 64  # of transport: the linear programs of more take minutes


def geometric_median(x: np.ndarray, weights: np.ndarray | None = None, steps: int = 100) -> np.ndarray:
    """The point [D] whose mean distance to x [n, D] is least, by Weiszfeld's iteration."""
    weights = np.ones(len(x)) if weights is None else weights
    centre = np.average(x, 0, weights)
    for _ in range(steps):
        near = weights / np.maximum(np.linalg.norm(x - centre, axis=1), 1e-9)
        centre = near @ x / near.sum()
    return centre


def transport_medians(x: np.ndarray, count: int, rounds: int = 15, seed: int = 0) -> np.ndarray:
    """[count, D]: points of equal mass whose W1 to x [n, D] no step of Lloyd's lessens: mass is carried exactly, and
    each goes to the geometric median of what it is carried to."""
    centres = x[np.random.default_rng(seed).choice(len(x), count, replace=False)].astype(float)
    equal = np.full(count, 1 / count)
    for _ in range(rounds):
        plan = exact_plan(centres, x, x_weights=equal)
        for n in range(count):
            mine = plan.source == n
            centres[n] = geometric_median(x[plan.target[mine]], plan.mass[mine], 10)
    return centres


def candidates(x: np.ndarray, size: int, clusters: int) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """What could stand for a batch of `size` images of one law with x [n, D]:
    points, and their masses if they are not equal."""
    from sklearn.cluster import KMeans

    few, many = (KMeans(min(k, len(x)), n_init=1, random_state=0).fit(x) for k in (clusters, size))
    return {
        "mean image": (x.mean(0)[None], None),
        "geometric median": (geometric_median(x)[None], None),
        f"{clusters} cluster centres": (few.cluster_centers_, np.bincount(few.labels_) / len(x)),
        "as many cluster centres": (many.cluster_centers_, np.bincount(many.labels_) / len(x)),
        f"transport medians, at most {MEDIANS}": (transport_medians(x, min(size, MEDIANS, len(x))), None),
    }


def false_minima(config: MinimaConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`.
    Raises ValueError for data or settings that cannot be."""
    images, folder = read_images(config.data), disk_path(config.folder, "--folder")
    first, second = split_images(images, len(images.labels) // 2)
    train, test = (part.pixels.reshape(len(part.labels), -1)[:5000] for part in (second, first))
    if max(config.batch) > min(len(train), len(test)):
        raise ValueError(f"batch is {max(config.batch)}: each half of the images has {min(len(train), len(test))}")

    def measure(size: int) -> dict[str, Any]:
        found: dict[str, list[float]] = {"real batch": []}
        made = candidates(train, size, config.clusters)
        for draw in range(config.draws):
            rng = np.random.default_rng([size, draw])
            held, real = (z[rng.choice(len(z), size, replace=False)] for z in (test, train))
            found["real batch"].append(exact_w1(held, real))
            for name, (points, mass) in made.items():
                mass = np.full(len(points), 1 / len(points)) if mass is None else mass
                found.setdefault(name, []).append(exact_w1(held, points, y_weights=mass))
        return {"batch": size, "w1": found}

    settings = {"draws": config.draws, "clusters": config.clusters, "images": fingerprint(images)}
    with experiment(folder, settings):
        made = run_cells(
            folder,
            {str(size): size for size in config.batch},
            measure,
            "batch size",
            lambda row: {"batch", "w1"} <= row.keys(),
        )
        pictures = {"held-out images": test[:16]} | {
            name: np.resize(points, (16, points.shape[1]))
            for name, (points, _) in candidates(train, 16, config.clusters).items()
        }
        tell(report(folder, made, grid(pictures, images.pixels.shape[1:]), len(images.labels), config))
        made.complete()


def report(folder: Path, made: Made, pictures: bytes, images: int, config: MinimaConfig) -> str:
    """minima.md, .csv, .json and report.html; returns the table. pictures: a PNG of the candidates. images:
    how many."""
    cells = [*made.cells.values()]
    found = {c["batch"]: {name: estimate_runs(w1) for name, w1 in c["w1"].items()} for c in cells}
    names = list(cells[0]["w1"])
    rows = [[f"{size}", *(decimals(found[size][name]) for name in names)] for size in found]
    sections = [
        Section(
            "minima",
            "What is near to a batch of held-out images",
            "W1(held-out batch, candidate), exact",
            "Where a candidate made of averages is below the real batch, a generator that minimises the exact distance "
            "of batches makes averages. That is the minibatch's truth: of the laws themselves, real images are at 0.",
            _by_size([*found], {name: [found[size][name] for size in found] for name in names}),
            table=Table(("batch", *names), rows),
        ),
        Section("candidates", "The candidates for a batch of 16", "made of the other half of the images", "", pictures),
    ]
    lines = (
        [cell["batch"], draw, name, value]
        for cell in cells
        for name, values in cell["w1"].items()
        for draw, value in enumerate(values)
    )
    settings = shown_settings(config)
    return write_report(
        folder,
        "minima",
        "False minima",
        sections,
        settings,
        lead=f"{config.draws} draws of each size from two halves of {images:,} images; intervals are of 95 %, by "
        "Student's t over draws, which overlap where batches are large.",
        columns=("batch", "draw", "candidate", "w1"),
        rows=lines,
        json={"settings": settings, "cells": cells},
        missing=made.missing,
    )


def _by_size(sizes: Sequence[int], curves: Mapping[str, list[Estimate]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        mean, low, high = np.array(values).T
        axes.errorbar(sizes, mean, [mean - low, high - mean], marker="o", capsize=2, label=name)
    axes.set(xscale="log", xlabel="images of the batch", ylabel="W1 to a held-out batch")
    axes.set_xticks(sizes, [str(s) for s in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return png(figure)
