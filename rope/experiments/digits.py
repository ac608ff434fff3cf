"""Which position encoding lets a ViT read digits where it never saw them?

One small ViT is trained for each encoding and seed on images as they come, and scored on test images as they come,
shifted, placed anywhere on a larger canvas, and enlarged. A cell is one (encoding, seed): its seed decides the initial
weights and the order of the training images; the parts of the data, and where test images are placed, are the same for
all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from itertools import count, islice
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rope.experiments.digits_report import report
from rope.experiments.placing import canvas_of, conditions
from rope.vit.config import Positions, ViTConfig
from rope.vit.model import ViT, forward, init
from training.experiment.cells import experiment, run_cells
from training.experiment.report import shown_settings
from training.files.buckets import disk_path
from training.files.images import Images, fingerprint, read_images, split_images
from training.loop import to_mesh
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import Dtype, check_divisible
from training.program import HostBatch
from training.ranges import check_ranges
from training.step import Batch, Sums, compile_step, compiler_options, init_state, make_train_step
from training.telling import tell

SCORED = 256  # images at once
LAST = 100  # steps whose mean loss is told


@dataclass(frozen=True, kw_only=True)
class DigitsConfig:
    """Compare a ViT's position encodings on images moved, on a larger canvas or enlarged after the training; the same
    command goes on."""

    data: str | None = None
    """None: scikit-learn's digits; else a folder with MNIST's IDX files, one such file of images, or tfds:NAME."""
    folder: str = "runs/digits"
    """Where everything goes; report.html is the result, and digits.md, .csv, .json and .png."""
    positions: tuple[Positions, ...] = get_args(Positions)
    """Encodings; the first is compared with each of the others."""
    theta: str = "100^-t"
    """Frequencies of rotary and sinusoidal positions."""
    seeds: int = 5
    """Independent repeats."""
    steps: int = 600
    """Updates of each training."""
    batch_size: int = 32
    """Images of an update."""
    patch: int = 2
    """Pixels a side of a patch."""
    width: int = 48
    """Model dimension; feed-forward layers have four times as many."""
    heads: int = 4
    """Attention heads."""
    layers: int = 2
    """Layers."""
    dropout: float = 0.1
    """Of embeddings and residual branches while training."""
    dtype: Dtype = "float32"
    """Of the computation."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-3, schedule="cosine", warmup=50)
    )
    """What updates the weights."""
    test_images: int = 500
    """Images that are scored."""
    valid_images: int = 200
    """Images, scored as they come, by which to choose settings."""
    shifts: tuple[int, ...] = (1, 2)
    """Pixels by which test images are moved; what leaves the canvas is lost."""
    canvases: tuple[float, ...] = (1.5, 2.0)
    """Larger canvases, in sides of the image, rounded up to whole patches."""
    places: int = 4
    """Random shifts, or places on a larger canvas, of each test image."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        names = ("seeds", "steps", "batch_size", "patch", "test_images", "valid_images", "places")
        check_ranges(self, **dict.fromkeys(names, 1))
        check_ranges(self, places=(1, 1000))
        for name in ("positions", "shifts", "canvases"):
            if len({*(given := getattr(self, name))}) < len(given) or name == "positions" and not given:
                raise ValueError(f"{name} is {given}: give {'one or more, ' if not given else ''}each once")
        if not all(1 <= x < 10 for x in (*self.shifts, *self.canvases)):
            raise ValueError(f"shifts are {self.shifts} and canvases {self.canvases}: numbers from 1 to below 10")

    def model(self, positions: Positions, images: Images) -> ViTConfig:
        """The ViT of an encoding for such images. Raises ValueError where they are not whole patches."""
        _, height, width, channels = images.pixels.shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"images of {height} x {width} pixels: --patch {self.patch} does not divide both")
        return ViTConfig(
            width=self.width,
            feed_forward=4 * self.width,
            heads=self.heads,
            layers=self.layers,
            dropout=self.dropout,
            attention_dropout=0.0,
            dtype=self.dtype,
            patch=self.patch,
            channels=channels,
            classes=int(images.labels.max()) + 1,
            positions=positions,
            theta=self.theta,
            grid=(height // self.patch, width // self.patch),
        )


class Parts(NamedTuple):
    test: Images
    valid: Images
    training: Images


def digits(config: DigitsConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`.
    Raises ValueError for data or settings that cannot be."""
    images, folder, mesh = read_images(config.data), disk_path(config.folder, "--folder"), make_mesh(config.mesh)
    parts = Parts(*split_images(images, config.test_images, config.valid_images))
    sizes = [len(part.labels) for part in parts]
    if sizes[2] < config.batch_size:
        raise ValueError(f"{sizes[2]} images to train on: fewer than --batch-size {config.batch_size}")
    made = [canvas_of(images.pixels.shape[1:3], factor, config.patch) for factor in config.canvases]
    if len({*made}) < len(made):
        raise ValueError(f"canvases are {config.canvases}: in whole patches two of them are the same, {made}")
    models = {positions: config.model(positions, images) for positions in config.positions}
    shares = {"width": ("embed", config.width), "heads": ("heads", config.heads)}
    check_divisible(mesh, shares | {"batch size": ("batch", config.batch_size), "images scored": ("batch", SCORED)})
    name, (height, width) = config.data or "scikit-learn's digits", images.pixels.shape[1:3]
    note = (
        f"{name}: {height} x {width} pixels; "
        f"{sizes[2]:,} images to train on, {sizes[1]:,} to choose by, {sizes[0]:,} to test"
    )
    with experiment(folder, settings_of(config, parts)), jax.set_mesh(mesh):
        tell(note)
        options = {name: getattr(config, name) for name in ("shifts", "canvases", "places")}
        tests = dict(conditions(parts.test.pixels, config.patch, **options))
        trainer = cache(lambda positions: Trainer(models[positions], config, parts.training, mesh))

        def make(cell: tuple[Positions, int]) -> dict[str, Any]:
            positions, seed = cell
            return trainer(positions).cell(seed, parts, tests)

        cells = {f"{p}-{s}": (p, s) for s in range(config.seeds) for p in config.positions}
        examples = {name: pixels[0] for name, pixels in tests.items()}
        found = run_cells(folder, cells, make, "model", lambda row: {"positions", "seed", "scores"} <= row.keys())
        tell(report(folder, found, config.positions, examples, note, shown_settings(config)))
        found.complete()


def settings_of(config: DigitsConfig, parts: Parts) -> dict[str, Any]:
    """What a folder's cells are made with; encodings and seeds may be added."""
    free = ("data", "folder", "positions", "seeds", "mesh")
    return {name: x for name, x in asdict(config).items() if name not in free} | {"data": fingerprint(*parts)}


class Trainer:
    """An encoding's programs, compiled once for all seeds:
    by the engine, which compiles, logs and saves each run, a cell took twice as long."""

    def __init__(self, model: ViTConfig, config: DigitsConfig, training: Images, mesh: jax.sharding.Mesh):
        self.model, self._config, self._training, self._mesh = model, config, training, mesh
        tx = make_optimizer(config.optimizer, config.steps)
        self._init = jax.jit(lambda seed: init_state(partial(init, model), tx, seed))
        step, batch = make_train_step(partial(loss, config=model), tx), next(batches(training, 0, config.batch_size))
        self._step = compile_step(step, jax.eval_shape(self._init, 0), to_mesh(batch, mesh, 1))
        self._right = jax.jit(partial(right, config=model), compiler_options=compiler_options())

    def cell(self, seed: int, parts: Parts, tests: Mapping[str, np.ndarray]) -> dict[str, object]:
        """Trains and scores: for each condition how often each test image was read right, over its places."""
        state, losses, config = self._init(seed), [], self._config
        for batch in islice(batches(self._training, seed, config.batch_size), config.steps):
            state, sums = self._step(state, to_mesh(batch, self._mesh, 1))
            losses.append(sums["loss"])
            if len(losses) > 1:  # the step before: the devices do not wait
                losses[-2] = float(losses[-2][0]) / float(losses[-2][1])
        losses[-1] = float(losses[-1][0]) / float(losses[-1][1])
        if not np.isfinite(losses).all():
            raise ValueError(f"{self.model.positions}, seed {seed}: the loss is not a number; lower the learning rate")
        found = {name: self.score(state.model, pixels, parts.test.labels) for name, pixels in tests.items()}
        return {
            "positions": self.model.positions,
            "seed": seed,
            "loss": float(np.mean(losses[-LAST:])),
            "valid": float(self.score(state.model, parts.valid.pixels[None], parts.valid.labels).mean()),
            "scores": {name: x.tolist() for name, x in found.items()},
        }

    def score(self, model: ViT, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """[n]: the part of [times, n, H, W, channels] read right."""
        flat, wanted = pixels.reshape(-1, *pixels.shape[2:]), np.tile(labels, len(pixels))
        found = []
        for begin in range(0, len(flat), SCORED):
            rows = {"pixels": flat[begin : begin + SCORED], "labels": wanted[begin : begin + SCORED]}
            filled = {name: np.resize(x, (SCORED, *x.shape[1:])) for name, x in rows.items()}  # one shape, one program
            found.append(np.asarray(self._right(model, to_mesh(filled, self._mesh)))[: len(rows["labels"])])
        return np.concatenate(found).reshape(len(pixels), -1).mean(0)


def batches(images: Images, seed: int, size: int) -> Iterator[HostBatch]:
    """Without end: in each epoch whole batches of the images in a new order."""
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(len(images.labels))
        for begin in range(0, len(order) - size + 1, size):
            rows = order[begin : begin + size]
            yield {"pixels": images.pixels[rows], "labels": images.labels[rows]}


def loss(model: ViT, batch: Batch, key: jax.Array | None, config: ViTConfig) -> Sums:
    """Cross-entropy."""
    logits = forward(model, batch["pixels"], config, key=key)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
    return {"loss": (jnp.sum(entropy), jnp.float32(len(entropy)))}


def right(model: ViT, batch: Batch, config: ViTConfig) -> jax.Array:
    """bool [B]: is the likeliest class the label?"""
    return jnp.argmax(forward(model, batch["pixels"], config), -1) == batch["labels"]
