"""Which positions let an encoder read longer text than it was trained on?

One encoder is trained by masked language model for each encoding and seed, on short rows. Held-out windows of long
documents are then read in pieces of each length, the same tokens masked in all: what a longer piece adds is context,
and positions that were never trained. A cell is one (encoding, seed).

Letters: W windows, C tokens of a window, T positions of a row, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from rope.encoder import roformer
from rope.encoder.mlm import mask_tokens
from rope.encoder.pretrain import EncoderRecipe, Rows, pretrain_on, recipe_of
from rope.encoder.roformer import Positions, RoFormer, RoFormerConfig, encode, logits
from rope.experiments.lengths_report import report
from rope.layers.computation import Computation
from rope.layers.cross_entropy import of_labels
from rope.positions.extension import Extension
from training.experiment.cells import experiment, run_cells
from training.experiment.report import shown_settings
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.flags import one_of
from training.loop import LoopConfig, to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.partition import Dtype, parts_of, to_host
from training.ranges import check_ranges
from training.step import Batch, compiler_options
from training.telling import silence, tell

Method = Literal["linear", "ntk", "dynamic", "yarn", "rerope", "leaky"]
FRAME = 2  # [CLS] and [SEP] of a row
GROUP = 4  # windows at once


@dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    folder: str = "runs/lengths"
    """Where everything goes; report.html is the result, and lengths.md, .csv, .json and .png."""
    lengths: tuple[int, ...] = (128, 256, 512, 1024)
    """The first is trained on, all are scored; each a multiple of the first."""
    positions: tuple[Positions, ...] = get_args(Positions)
    """Positions of the models."""
    extensions: tuple[Method, ...] = get_args(Method)
    """What the rotary model is continued by; learned positions have no continuation but the hierarchical one."""
    seeds: int = 3
    """Independent repeats."""
    windows: int = 64
    """Held-out windows that are scored, at most."""
    preset: Annotated[str, one_of(roformer.PRESETS)] = "tiny"
    """Shape of the models."""
    steps: int = 1000
    """Updates of each training."""
    batch_size: int = 32
    """Rows of an update."""
    learning_rate: float | None = None
    """Peak of the trainings' cosine schedule after a tenth of the steps; by default the preset's."""
    dtype: Dtype = "float32"
    """Of the computation."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        check_ranges(self, seeds=1, windows=1, steps=1, batch_size=1, learning_rate=0)
        for name in ("lengths", "positions"):
            if not (given := getattr(self, name)) or len({*given}) < len(given):
                raise ValueError(f"{name} is {given}: give one or more, each once")
        least = self.lengths[0]
        if least < 8 or any(length % least or length < least for length in self.lengths):
            raise ValueError(f"lengths are {self.lengths}: multiples of the first, which is 8 or more")
        if any(self.lengths[-1] % length for length in self.lengths):
            raise ValueError(f"lengths are {self.lengths}: the last must be a multiple of all")
        if "learned" in self.positions and self.lengths[-1] > least**2:
            raise ValueError(f"lengths are {self.lengths}: learned positions of {least} can be continued to {least**2}")

    def recipe(self, encoding: Positions, seed: int) -> EncoderRecipe:
        """What trains a cell's model."""
        basis = recipe_of(self.preset)
        each = min(self.steps, 500)
        return replace(
            basis,
            positions=encoding,
            length=self.lengths[0],
            computation=Computation(dtype=self.dtype),
            loop=LoopConfig(
                steps=self.steps, batch_size=self.batch_size, seed=seed, eval_every=each, save_every=each, keep=1
            ),
            optimizer=replace(
                basis.optimizer,
                learning_rate=basis.optimizer.learning_rate if self.learning_rate is None else self.learning_rate,
                schedule="cosine",
                warmup=max(self.steps // 10, 1),
            ),
        )


class Windows(NamedTuple):
    """Text of held-out documents without frame, some tokens masked."""

    inputs: np.ndarray  # [W, C]
    labels: np.ndarray  # [W, C]
    masked: np.ndarray  # bool [W, C]
    frame: tuple[int, int]  # the ids before and after a row's text


def lengths(config: LengthsConfig, rows_of: Callable[[int], Rows]) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. rows_of: the text in rows of a length.

    Raises DataError where the documents have no held-out text as long as the longest row.
    """
    folder, mesh, long = disk_path(config.folder, "--folder"), make_mesh(config.mesh), config.lengths[-1]
    rows = rows_of(config.lengths[0])
    windows = cut_windows(rows_of(long), config)
    note = (
        f"{len(windows.labels)} held-out windows of {windows.labels.shape[1]:,} tokens, {windows.masked.sum():,} masked"
    )
    cells = {f"{e}-{s}": (e, s) for s in range(config.seeds) for e in config.positions}
    free = ("folder", "positions", "seeds", "mesh")
    settings = {name: value for name, value in asdict(config).items() if name not in free}
    with experiment(folder, settings | {"data": rows.fingerprint}):
        tell(note)

        def make(cell: tuple[Positions, int]) -> dict[str, Any]:
            encoding, seed = cell
            recipe, place = config.recipe(encoding, seed), folder / "trained" / f"{encoding}-{seed}"
            made = recipe.model(rows.vocabulary.size)
            with silence():
                model = pretrain_on(recipe, made, rows, mesh, place).complete().model
            scores: dict[str, dict[str, Any]] = {}
            with jax.set_mesh(mesh):
                for name, length, continued in continuations(made, config):
                    found = score(model, continued, windows, long // length, mesh)
                    scores.setdefault(name, {})[str(length)] = found
            return {"encoding": encoding, "seed": seed, "scores": scores}

        made = run_cells(folder, cells, make, "model")
        tell(report(folder, made, config.positions, note, shown_settings(config)))
        made.complete()


def cut_windows(rows: Rows, config: LengthsConfig) -> Windows:
    """Of the held-out rows that one document fills as many as wanted, spread over all."""
    if rows.heldout is None:
        raise DataError("no document is held out: give a larger --eval-fraction, or more documents")
    found, frame = [], (0, 0)
    for batch in rows.heldout(batch_size=1, share=WHOLE):
        ids, segments = batch["ids"][0], batch["segments"][0]
        if (segments == 1).all():
            frame = int(ids[0]), int(ids[-1])
            found.append(ids[1:-1])
    if not found:
        raise DataError(f"no held-out document has {rows.length} tokens: give shorter --lengths, or longer documents")
    inner = config.lengths[0] - FRAME
    count = min(config.windows, len(found))
    labels = np.stack([found[n * len(found) // count] for n in range(count)])[
        :, : rows.length // config.lengths[0] * inner
    ]
    pieces = labels.reshape(-1, inner)  # the share of the masked is the same in each
    tokens = jnp.asarray(pieces)
    made = mask_tokens(tokens, jnp.ones_like(tokens), rows.vocabulary, jax.random.key(0))
    made = jax.tree.map(np.asarray, made)
    masked = np.zeros(pieces.shape, bool)
    np.put_along_axis(masked, made.places, made.weights > 0, 1)
    return Windows(made.inputs.reshape(labels.shape), labels, masked.reshape(labels.shape), frame)


def continuations(model: RoFormerConfig, config: LengthsConfig) -> Iterator[tuple[str, int, RoFormerConfig]]:
    """(what the table calls it, length, the model that reads it) of all that a trained model is scored with."""
    short = config.lengths[0]
    for length in config.lengths:
        extension = Extension(factor=length / short, trained=short)
        if model.positions == "learned":
            yield "learned, hierarchical", length, replace(model, extension=replace(extension, method="hierarchical"))
            continue
        yield model.positions, length, model
        for method in config.extensions if model.positions == "rotary" else ():
            yield f"rotary, {method}", length, replace(model, extension=replace(extension, method=method))


def score(
    model: RoFormer, config: RoFormerConfig, windows: Windows, pieces: int, mesh: jax.sharding.Mesh
) -> dict[str, list[float]]:
    """For each window the mean cross-entropy of its masked tokens, and the share guessed right,
    read in so many pieces."""
    count = len(windows.labels)
    parts = parts_of("batch", mesh)
    group = -(-GROUP // parts) * parts
    found = []
    read = jax.jit(partial(_read, config=config), compiler_options=compiler_options())
    for begin in range(0, count, group):
        which = np.arange(begin, begin + group) % count  # one shape, one program
        text, labels, masked = (x[which].reshape(group * pieces, -1) for x in windows[:3])
        sides = ((0, 0), (1, 1))
        ids = np.pad(text, sides)
        ids[:, 0], ids[:, -1] = windows.frame
        rows = {"ids": ids, "labels": np.pad(labels, sides), "weights": np.pad(masked, sides).astype(np.float32)}
        found.append(to_host(read(model, to_mesh(rows, mesh))).reshape(group, pieces, 3).sum(1)[: count - begin])
    entropy, right, weight = np.concatenate(found).T
    return {"cross_entropy": (entropy / weight).tolist(), "accuracy": (right / weight).tolist()}


def _read(model: RoFormer, batch: Batch, config: RoFormerConfig) -> jax.Array:
    """[B, 3]: each row's sums of cross-entropy, of right guesses and of weights."""
    hidden = encode(model, batch["ids"], jnp.ones_like(batch["ids"]), config)
    scores = logits(model, hidden, config)
    entropy = jax.nn.logsumexp(scores, -1) - of_labels(scores, batch["labels"])
    right = jnp.argmax(scores, -1) == batch["labels"]
    return jnp.stack([jnp.sum(x * batch["weights"], 1) for x in (entropy, right, jnp.ones_like(entropy))], 1)
