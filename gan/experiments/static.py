"""What do critics say of two laws that stay as they are, and what is true?

A cell is one (law, critic) with all its seeds. A seed decides the initial weights and every draw;
the points that are scored are other draws.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import jax
import numpy as np

from gan.critic import Critic, Shape
from gan.experiments.static_report import fits, report
from gan.laws import Law
from gan.named import OF_IMAGES, check_critics, critic_of_name, file_name, law_of
from gan.objectives import CRITICS
from gan.training import Reading, minibatch_w1, train
from training.experiment.cells import experiment, run_cells
from training.files.buckets import disk_path
from training.files.images import fingerprint, read_images
from training.ranges import check_choices, check_lists, check_ranges
from training.telling import tell

# Of the published benchmark (Korotin, Kolesov, Burnaev 2022, arXiv 2206.07767, and its notebooks).
PUBLISHED_STEPS = {
    "wc": 5_000, "gp": 60_000, "lp": 60_000, "sn": 10_000, "sn-detached": 10_000, "ortho": 25_000, "ls": 10_000,
    "c": 25_000, "cow": 25_000, "mm": 20_000, "mm-reverse": 20_000, "exact": 1,
}  # fmt: skip
OTHERS_STEPS = 25_000  # of critics that are not among its own


@dataclass(frozen=True, kw_only=True)
class StaticConfig:
    """Train critics on laws that stay as they are, and set what they say beside the truth; the same command goes on.

    Laws: shift:D, scale:D, shells:D, point:D (against a sphere), mixture (on a line), null:D
    (shells in 2 of D dimensions), funnels:D:N (the published benchmark), squares:SIDE, classes, halves and marked
    (of --data), files:P.npy:Q.npy (points of two files, or of text, a point a line).
    """

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for: under a minute, minutes on a laptop,
    or the published benchmark's grid and steps."""
    data: str | None = None
    """Images of the laws classes, halves and marked. None: scikit-learn's digits;
    else MNIST's files, pictures, an .npz or tfds:NAME."""
    folder: str = "runs/wgan/static"
    """Where everything goes; report.html is the result, and static.md, .csv and .json."""
    laws: tuple[str, ...] = ("scale:2",)
    """Pairs of laws, see above."""
    critics: tuple[str, ...] = ("wc", "gp", "ortho", "c")
    """Critics; ortho, aol, sll, sn and sn-detached are certified, docs/wgan.md says what each is. With settings:
    gp:weight=1 c-soft:epsilon=1:rate=1e-3."""
    steps: int = 300
    """Updates of each critic; 0: as many as the published benchmark gave it, 25,000 where it had none."""
    batch: int = 256
    """Points of P, and of Q, of an update."""
    network: Literal["fc", "conv"] = "fc"
    """Fully connected critics, or convolutional ones, which laws of images can have: squares, classes, halves,
    marked."""
    hidden: tuple[int, ...] = ()
    """Units of the hidden layers; () is two of max(2 D, 128), or 64, 128, 256 features of convolutions of stride 2."""
    seeds: int = 3
    """Independent repeats."""
    readings: int = 5
    """Times that a critic is asked on its way."""
    scored: int = 4096
    """Points that it is then asked about."""
    linear_decay: bool = False
    """Updates shrink to nothing by the last step,
    which settles critics that constant ones keep moving about their best."""

    def __post_init__(self):
        check_ranges(self, steps=0, batch=(2, 1 << 20), seeds=(1, 1001), readings=(1, 10_001), scored=(2, 1 << 20))
        check_choices(self)
        check_lists(self, laws=None)
        check_critics(self)
        if self.hidden:
            check_lists(self, repeated=True, hidden=range(1, (1 << 14) + 1))


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {
        "laws": ("shift:16", "scale:16", "shells:2", "mixture", "classes", "funnels:2:4", "funnels:16:4"),
        "critics": ("wc", "gp", "lp", "sn", "ortho", "ls", "c", "cow", "exact"),
        "steps": 1_000,
        "readings": 10,
    },
    "full": {
        "laws": tuple(f"funnels:{d}:{n}" for d in (2, 4, 8, 16, 32, 64, 128) for n in (4, 16, 64, 256)),
        "critics": tuple(CRITICS),
        "steps": 0,
        "batch": 1024,
        "readings": 20,
    },
}  # fmt: skip


def static(config: StaticConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`.
    Raises ValueError for data or settings that cannot be."""
    images, folder = cache(partial(read_images, config.data)), disk_path(config.folder, "--folder")
    laws = {name: law_of(name, images) for name in config.laws}
    made = {(law, critic): critic_for(laws[law], law, critic, config) for law in laws for critic in config.critics}
    free = ("folder", "preset", "laws", "critics", "data")
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    if {*OF_IMAGES} & {*laws}:
        settings["images"] = fingerprint(images())
    with experiment(folder, settings):
        cells = {f"{file_name(law)}-{critic.replace(':', '-')}": (law, critic) for law, critic in made}
        found = run_cells(
            folder,
            cells,
            lambda cell: measure(laws[cell[0]], made[cell], *cell, config),
            "critic",
            fits,
        )
        tell(report(folder, found, config))
        found.complete()


def critic_for(law: Law, name: str, critic: str, config: StaticConfig) -> Critic:
    """Raises ValueError where the law's points are no images for convolutions, or the critic cannot be so."""
    if config.network == "conv" and law.image is None:
        raise ValueError(
            f"law {name!r}: no images, so --network conv is not for it, but for squares, classes, halves, marked"
        )
    image = law.image if config.network == "conv" else None
    made = critic_of_name(critic)(Shape(size=law.dimensions, hidden=config.hidden, image=image))
    jax.eval_shape(made.init, jax.random.key(0))  # refused now, and not after the cells before it
    return made


def measure(law: Law, made: Critic, name: str, critic: str, config: StaticConfig) -> dict[str, Any]:
    """One cell: what the critic says on its way, and the exact distances of batches of its size."""
    if made.metric != "l2" and law.dimensions > 1:  # what is known is Euclidean
        law = replace(law, w1=None, gradient=None, potential=None)
    begin = time.perf_counter()
    steps = config.steps or PUBLISHED_STEPS.get(critic.partition(":")[0], OTHERS_STEPS)
    chunk = -(-steps // config.readings)
    readings: Iterator[tuple[Reading, Any]] = train(
        made,
        law,
        steps=steps,
        batch=config.batch,
        seeds=config.seeds,
        chunk=chunk,
        scored=config.scored,
        linear_decay=config.linear_decay,
    )
    curve = [{k: _plain(v) for k, v in asdict(reading).items()} for reading, _ in readings]
    parts = [entry.pop("slopes") for entry in curve][-1]
    seconds = time.perf_counter() - begin
    return {
        "law": name,
        "critic": critic,
        "constraint": made.constraint,
        "dimensions": law.dimensions,
        "batch": config.batch,
        "truth": law.w1,
        "minibatch": minibatch_w1(law, config.batch, metric=made.metric).tolist(),
        "steps": curve[-1]["step"],
        "asked": steps,
        "seconds": seconds,
        "curve": [entry for entry in curve if None not in entry["kr"]],
        "last": {k: v for k, v in curve[-1].items() if k != "step"},
        "slopes": parts,
    }


def _plain(values: int | np.ndarray) -> Any:
    """As JSON has it, which knows no NaN."""
    if isinstance(values, int):
        return values
    known = values.astype(object)
    known[~np.isfinite(values)] = None
    return known.tolist()
