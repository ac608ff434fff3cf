"""How far apart are the points or images of two files? Bounds of W1 that hold, beside estimates that say they are none.

A cell is one method with its seconds and memory. What is drawn (subsets, directions, what critics are trained on) is
drawn by fixed seeds.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gan.experiments import estimate_cells as cells
from gan.experiments.estimate_cells import Points, Row
from gan.experiments.estimate_report import Facts, fits, report
from gan.files import read_cloud
from gan.laws import EXACT
from gan.named import check_critics
from gan.objectives import CRITICS
from training.experiment.cells import experiment, run_cells
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.ranges import check_choices, check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """Measure W1 of two files' points or images: exactly where that can be had, between bounds, and by critics; the
    same command goes on.

    Files: .npy or .npz, text with a point a line, MNIST's files or their folder, a folder of pictures, tfds:NAME.
    """

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for: a first look, minutes on two cores, or an accelerator."""
    p: str = ""
    """The file or folder of P."""
    q: str = ""
    """The file or folder of Q."""
    folder: str = "runs/wgan/estimate"
    """Where everything goes; report.html is the result, and estimate.md, .csv and .json."""
    critics: tuple[str, ...] = ("ortho", "gp")
    """Critics; ortho, aol, sll, sn and sn-detached are certified, docs/wgan.md says what each is. With settings:
    gp:weight=1."""
    steps: int = 500
    """Updates of each critic."""
    batch: int = 256
    """Points of P, and of Q, of an update."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of the critics' hidden layers."""
    held_out: float = 0.2
    """The part of the points that critics are not trained on, to say something of the laws."""
    exact: int = EXACT
    """Points of each file up to which the distance is exact, in more than one dimension: twice as many take some eight
    times as long, and four times the memory."""
    block: int = 1000
    """Pairs that a plan between all points is made better of at a time: more are nearer to the best plan."""
    rounds: int = 30
    """Times, at most, that it is."""
    passes: int = 20
    """Passes over all pairs of points by which a potential is made better."""
    points: tuple[int, ...] = (16, 64, 256, 1024)
    """Points of each subset whose distance is exact, to see how it falls with their number."""
    draws: int = 5
    """Subsets of each size, at most: no point is in two."""
    directions: int = 128
    """Random directions of the sliced distance."""
    sinkhorn: int = 1000
    """Points of each file that Sinkhorn's iterations are over."""
    epsilon: float = 0.05
    """Of them, in mean distances."""
    iterations: int = 2000
    """Of them, at most."""

    def __post_init__(self):
        check_choices(self)
        check_ranges(
            self, steps=1, batch=(2, 1 << 20), exact=(0, 50_001), block=(2, 10_001), rounds=(1, 1001),
            passes=(1, 10_001), draws=(2, 1001), directions=(2, 1 << 20),
            sinkhorn=(2, 10_001), epsilon=(1e-4, 100), iterations=1, held_out=(0, 0.9),
        )  # fmt: skip
        check_lists(self, points=range(2, 10_001))
        check_lists(self, repeated=True, hidden=range(1, (1 << 14) + 1))
        check_critics(self, [name for name in CRITICS if name != "exact"])


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"steps": 2_000, "critics": ("ortho", "aol", "gp", "lp", "c"), "sinkhorn": 2_000},
    "full": {
        "steps": 20_000,
        "critics": ("ortho", "aol", "sll", "sn", "gp", "lp", "c", "ls"),
        "batch": 1024,
        "hidden": (512, 512, 512),
        "points": (16, 64, 256, 1024, 4096),
        "draws": 10,
        "sinkhorn": 5_000,
        "exact": 10_000,
    },
}


def estimate(config: EstimateConfig) -> None:
    """Runs, or goes on with, the measurement in `config.folder`. Raises ValueError for files or settings that cannot
    be."""
    for name in ("p", "q"):
        if not getattr(config, name):
            raise ValueError(f"--{name} is missing: give --p and --q, the two files")
    folder = disk_path(config.folder, "--folder")
    points, facts = read_both(config.p, config.q)
    for name in config.critics:
        cells.made_critic(name, points.x.shape[1], config.hidden)
    free = ("folder", "preset", "critics", "points", "p", "q")
    files = f"{Path(config.p).name} and {Path(config.q).name} (of digest {_digest(points)})"
    settings = {k: v for k, v in asdict(config).items() if k not in free} | {"files": files}
    with experiment(folder, settings):
        found = run_cells(folder, measures(points, config), cells.measured, "method", fits)
        tell(report(folder, found, facts, config))
        found.complete()


def read_both(p: str, q: str) -> tuple[Points, Facts]:
    """Raises DataError where their points are of different shapes."""
    clouds = {path: read_cloud(path) for path in (p, q)}
    shapes = {path: " x ".join(map(str, cloud.shape)) for path, cloud in clouds.items()}
    if len({*shapes.values()}) > 1:
        raise DataError(f"{p} has points of {shapes[p]} numbers, {q} of {shapes[q]}: they must be alike")
    for path, cloud in clouds.items():
        if not np.abs(cloud.points).max() < 1e100:
            raise DataError(f"{path}: a number above 1e100; scale both files, W1 of points times c is c W1")
    both = [clouds[path].points for path in (p, q)]
    return Points(*both), Facts.of(p, q, shapes[p], *both)


def _digest(points: Points) -> str:
    digest = hashlib.sha256()
    for part in points:
        digest.update(repr(part.shape).encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:12]


def measures(points: Points, config: EstimateConfig) -> dict[str, Callable[[], list[Row]]]:
    """By name of the cell, what is to be measured; the quickest first."""
    least, most = (pick(map(len, points)) for pick in (min, max))
    small = points.x.shape[1] == 1 or most <= config.exact
    over = cells.Sinkhorn(config.sinkhorn, config.epsilon, config.iterations)
    plan = {"block": config.block, "rounds": config.rounds}
    pairs = {
        "untrained": partial(cells.untrained, points),
        "ascent": partial(cells.ascent, points, over=over, passes=config.passes, **plan),
    }
    found: dict[str, Callable[[], list[Row]]] = {
        **({"exact": partial(cells.exact, points)} if small else {}),
        "blocks": partial(cells.plans, points, **plan),
        **(pairs if cells.within_reach(points) else {}),
        **{
            f"subsets-{count}": partial(cells.subsets, points, count=count, draws=config.draws)
            for count in sorted(config.points)
            if count <= least // 2
        },
        "sliced": partial(cells.sliced, points, directions=config.directions),
        "sinkhorn": partial(cells.sinkhorn, points, over=over),
    }
    trained: dict[str, Any] = {
        "steps": config.steps,
        "batch": config.batch,
        "hidden": config.hidden,
        "held_out": config.held_out,
    }
    return found | {
        f"critic-{name.replace(':', '-')}": partial(cells.critic, points, name, **trained) for name in config.critics
    }
