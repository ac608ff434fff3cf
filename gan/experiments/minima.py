"""What the exact distance of finite samples prefers, without any training: averages, and how far samples of one law are apart."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from gan.experiments.pictures import grid
from gan.experiments.report import number, write_report
from gan.laws import law_of
from gan.transport import exact_plan, exact_w1
from training.experiment import estimate_runs, png, run_cells
from training.images import read_images, split_images
from training.lock import locked
from training.page import Section, Table
from training.ranges import check_ranges


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
        if not self.batch or not all(2 <= size <= 4096 for size in self.batch) or len({*self.batch}) < len(self.batch):
            raise ValueError(f"batch is {self.batch}: numbers from 2 to 4,096, each once")


MINIMA: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"batch": (16, 32, 64, 128, 256, 512), "draws": 10},
    "full": {"batch": (16, 32, 64, 128, 256, 512, 898), "draws": 20},
}


def geometric_median(x: np.ndarray, weights: np.ndarray | None = None, steps: int = 100) -> np.ndarray:
    """The point [D] whose mean distance to x [n, D] is least, by Weiszfeld's iteration."""
    weights = np.ones(len(x)) if weights is None else weights
    centre = np.average(x, 0, weights)
    for _ in range(steps):
        near = weights / np.maximum(np.linalg.norm(x - centre, axis=1), 1e-9)
        centre = near @ x / near.sum()
    return centre


def transport_medians(x: np.ndarray, count: int, rounds: int = 15, seed: int = 0) -> np.ndarray:
    """[count, D]: points of equal mass whose W1 to x [n, D] no step of Lloyd's lessens: mass is carried exactly, and each goes to
    the geometric median of what it is carried to."""
    centres = x[np.random.default_rng(seed).choice(len(x), count, replace=False)].astype(float)
    equal = np.full(count, 1 / count)
    for _ in range(rounds):
        plan = exact_plan(centres, x, x_weights=equal)
        for n in range(count):
            mine = plan.source == n
            centres[n] = geometric_median(x[plan.target[mine]], plan.mass[mine], 10)
    return centres


Candidate = tuple[np.ndarray, np.ndarray | None]  # points, and their masses if they are not equal


def candidates(x: np.ndarray, other: np.ndarray, clusters: int) -> dict[str, Candidate]:
    """What could stand for the batch `other`, all made without it, from a batch x of its size and the rest of what it came from."""
    from sklearn.cluster import KMeans

    size = len(other)
    few = KMeans(min(clusters, len(x)), n_init=1, random_state=0).fit(x)
    many = KMeans(min(size, len(x)), n_init=1, random_state=0).fit(x)
    medians = transport_medians(x, min(size, 64))
    return {
        "mean image": (x.mean(0)[None], None),
        "geometric median": (geometric_median(x)[None], None),
        f"{len(few.cluster_centers_)} cluster centres": (few.cluster_centers_, np.bincount(few.labels_) / len(x)),
        "as many cluster centres": (many.cluster_centers_, np.bincount(many.labels_) / len(x)),
        f"{len(medians)} transport medians": (medians, None),
    }


def false_minima(config: MinimaConfig, say: Callable = print) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises ValueError for data or settings that cannot be."""
    images, folder = read_images(config.data), Path(config.folder)
    first, second = split_images(images, len(images.labels) // 2)
    train, test = (part.pixels.reshape(len(part.labels), -1)[:5000] for part in (second, first))
    if max(config.batch) > min(len(train), len(test)):
        raise ValueError(f"batch is {max(config.batch)}: each half of the images has {min(len(train), len(test))}")

    def measure(cell: tuple[int, int]) -> dict[str, Any]:
        size, draw = cell
        rng = np.random.default_rng([size, draw])
        held = test[rng.choice(len(test), size, replace=False)]
        found = {"real batch": exact_w1(held, train[rng.choice(len(train), size, replace=False)])}
        for name, (points, mass) in candidates(train, held, config.clusters).items():
            if mass is None:
                mass = np.full(len(points), 1 / len(points))
            found[name] = exact_w1(held, points, y_weights=mass)
        return {"batch": size, "draw": draw, "w1": found}

    with locked(folder):
        paths = {(s, d): folder / "cells" / f"{s}-{d}.json" for s in config.batch for d in range(config.draws)}
        cells = run_cells(paths, measure, "draw")
        names = list(
            dict.fromkeys(name.split(" ", 1)[1] if name[0].isdigit() else name for c in cells for name in c["w1"])
        )

        def values(size: int, name: str) -> list[float]:
            told = [v for c in cells if c["batch"] == size for k, v in c["w1"].items() if k.endswith(name)]
            return told

        rows = [[f"{size}", *(number(estimate_runs(values(size, n))) for n in names)] for size in config.batch]
        points = candidates(train, test[: min(64, len(test))], config.clusters)
        pictures = {"held-out images": test[:16]} | {
            name: np.resize(p, (16, p.shape[1])) for name, (p, _) in points.items()
        }
        sections = [
            Section(
                "minima",
                "What is near to a batch of held-out images",
                "W1(held-out batch, candidate), exact",
                "Where a candidate made of averages is below the real batch, a generator that minimises the exact distance of "
                "batches makes averages. That is the minibatch's truth: of the laws themselves, real images are at 0.",
                _by_size(
                    config.batch, {name: [estimate_runs(values(s, name)) for s in config.batch] for name in names}
                ),
                table=Table(("batch", *names), rows),
            ),
            Section(
                "candidates",
                "The candidates",
                "made of the other half of the images",
                "",
                grid(pictures, images.pixels.shape[1:]),
            ),
        ]

        def line(cell: Mapping[str, Any]) -> Iterator[list[Any]]:
            yield from ([cell["batch"], cell["draw"], name, value] for name, value in cell["w1"].items())

        say(
            write_report(
                folder,
                "minima",
                "False minima",
                sections,
                config,
                cells,
                columns=("batch", "draw", "candidate", "w1"),
                line=line,
            )
        )


def _by_size(sizes, curves: Mapping[str, list]) -> bytes:
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
        for name in ("laws", "points"):
            if not (given := getattr(self, name)) or len({*given}) < len(given):
                raise ValueError(f"{name} is {given}: give one or more, each once")
        if not all(2 <= n <= 10_000 for n in self.points):
            raise ValueError(f"points is {self.points}: numbers from 2 to 10,000")


SAMPLES: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {
        "laws": ("shift:1", "shift:2", "shift:4", "shift:16", "shift:64", "funnels:2:4", "funnels:16:4", "funnels:128:4"),
        "points": (16, 64, 256, 1024, 2048),
    },
    "full": {"laws": ("shift:1", "shift:2", "shift:4", "shift:8", "shift:16", "shift:64", "shift:128"), "points": (16, 64, 256, 1024, 4096), "draws": 10},
}  # fmt: skip


def sample_complexity(config: SamplesConfig, say: Callable = print) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises ValueError for settings that cannot be."""
    folder = Path(config.folder)
    laws = {name: law_of(name, lambda: read_images(None)) for name in config.laws}

    def measure(cell: tuple[str, int]) -> dict[str, Any]:
        law, count = laws[cell[0]], cell[1]
        pairs = (law.sample(jax.random.key(draw), count) for draw in range(config.draws))
        return {
            "law": cell[0],
            "points": count,
            "dimensions": law.dimensions,
            "truth": law.w1,
            "w1": [exact_w1(*p) for p in pairs],
        }

    with locked(folder):
        paths = {
            (law, n): folder / "cells" / f"{law.replace(':', '-')}-{n}-{config.draws}.json"
            for n in config.points
            for law in config.laws
        }
        cells = run_cells(paths, measure, "sample")
        found = {(c["law"], c["points"]): estimate_runs(c["w1"]) for c in cells}
        rows = [[law, number(laws[law].w1), *(number(found[law, n]) for n in config.points)] for law in config.laws]
        section = Section(
            "samples",
            "The exact distance of n points of each law",
            "E W1(P_n, Q_n) - W1(P, Q) falls like n^(-1/D) in D > 2 dimensions (Fournier, Guillin 2015, arXiv 1312.2128)",
            "In many dimensions a minibatch's exact distance is that of its own few points, however large the batch.",
            _by_points(config, laws, found),
            table=Table(("law", "truth", *(f"n = {n}" for n in config.points)), rows),
        )

        def line(cell: Mapping[str, Any]) -> Iterator[list[Any]]:
            yield from ([cell["law"], cell["points"], n, cell["truth"], value] for n, value in enumerate(cell["w1"]))

        columns = ("law", "points", "draw", "truth", "w1")
        say(
            write_report(
                folder, "samples", "How many points W1 needs", [section], config, cells, columns=columns, line=line
            )
        )


def _by_points(config: SamplesConfig, laws, found) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots()
    sizes = np.array(config.points)
    for place, name in enumerate(config.laws):
        mean, low, high = np.array([found[name, n] for n in config.points]).T
        color, truth = f"C{place % 10}", laws[name].w1
        axes.errorbar(sizes, mean, [mean - low, high - mean], marker="o", color=color, label=name, capsize=2)
        axes.axhline(truth, color=color, linestyle="--", linewidth=1)
        if (above := mean[0] - truth) > 0 and laws[name].dimensions > 2:
            axes.plot(
                sizes, truth + above * (sizes / sizes[0]) ** (-1 / laws[name].dimensions), color=color, linestyle=":"
            )
    axes.set(xscale="log", yscale="log", xlabel="points n", ylabel="exact W1 of n points")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_title("dashes: the laws' distance; dots: falling to it like n^(-1/D)", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return png(figure)
