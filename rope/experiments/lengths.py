"""Which positions let an encoder read longer text than it was trained on?

One encoder is trained by masked language model for each encoding and seed, on short rows. Held-out windows of long
documents are then read in pieces of each length, the same tokens masked in all: what a longer piece adds is context,
and positions that were never trained. A cell is one (encoding, seed).

Letters: W windows, C tokens of a window.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import numpy as np

from rope.encoder import roformer
from rope.encoder.pretrain import EncoderRecipe, Rows, pretrain_on, recipe_of
from rope.encoder.roformer import Positions, RoFormer, RoFormerConfig
from rope.experiments.factors import find_factors
from rope.experiments.lengths_by_position import in_bins, position_edges
from rope.experiments.lengths_report import report
from rope.experiments.windows import Scores, Windows, full_rows, mask_windows, reader, score
from rope.layers.computation import Computation
from rope.positions.angles import frequencies
from rope.positions.extension import Extension, longrope_magnitude, slowed
from training.experiment.cells import experiment, run_cells
from training.experiment.report import shown_settings
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.flags import one_of
from training.loop import LoopConfig
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.partition import Dtype
from training.ranges import check_ranges
from training.telling import silence, tell

Method = Literal["linear", "ntk", "dynamic", "yarn", "dynamic-yarn", "longrope", "rerope", "leaky"]
TRIED = 20  # training rows looked at for each window that is searched by


@dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    folder: str = "runs/lengths"
    """Where everything goes; report.html is the result, and lengths.md, .csv, .json and .png, positions.csv and
    .png."""
    lengths: tuple[int, ...] = (128, 256, 512, 1024)
    """The first is trained on, all are scored; each a multiple of the first."""
    positions: tuple[Positions, ...] = get_args(Positions)
    """Positions of the models."""
    extensions: tuple[Method, ...] = get_args(Method)
    """What the rotary model is continued by; learned positions have no continuation but the hierarchical one.
    longrope's factors are searched for, by text that is trained on."""
    seeds: int = 3
    """Independent repeats."""
    windows: int = 64
    """Held-out windows that are scored, at most."""
    search_windows: int = 16
    """longrope: windows of the training documents by which factors are searched for, at most."""
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
        check_ranges(self, seeds=1, windows=1, search_windows=1, steps=1, batch_size=1, learning_rate=0)
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


def lengths(config: LengthsConfig, rows_of: Callable[[int], Rows]) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. rows_of: the text in rows of a length.

    Raises DataError where the documents have no held-out text as long as the longest row.
    """
    folder, mesh, short = disk_path(config.folder, "--folder"), make_mesh(config.mesh), config.lengths[0]
    rows, long_rows = rows_of(short), rows_of(config.lengths[-1])
    windows = cut_windows(long_rows, config)
    searched = cut_search_windows(long_rows, config)
    note = (
        f"{len(windows.labels)} held-out windows of {windows.labels.shape[1]:,} tokens, {windows.masked.sum():,} masked"
    )
    edges = position_edges(short, config.lengths[-1])
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
            by_length: dict[str, dict[str, Any]] = {}
            by_position: dict[str, Any] = {}
            with jax.set_mesh(mesh):
                search = partial(search_factors, model, made, searched, config, folder / "factors" / str(seed), mesh)
                for name, length, continued in continuations(made, config, search):
                    found = score(reader(continued), model, windows, config.lengths[-1] // length, mesh)
                    by_length.setdefault(name, {})[str(length)] = by_window(found, windows)
                    if length in (short, config.lengths[-1]):
                        by_position.setdefault(name, {})[str(length)] = in_bins(found.entropy, edges)
            counts = in_bins(windows.masked, edges)
            return {
                "encoding": encoding,
                "seed": seed,
                "scores": by_length,
                "positions": {"edges": edges, "counts": counts, "entropy": by_position},
            }

        made = run_cells(folder, cells, make, "model", fits=lambda row: "positions" in row)
        tell(report(folder, made, config.positions, note, shown_settings(config)))
        made.complete()


def cut_windows(rows: Rows, config: LengthsConfig) -> Windows:
    """Of the held-out rows that one document fills as many as wanted, spread over all."""
    if rows.heldout is None:
        raise DataError("no document is held out: give a larger --eval-fraction, or more documents")
    found = [*full_rows(rows.heldout(batch_size=1, share=WHOLE))]
    if not found:
        raise DataError(f"no held-out document has {rows.length} tokens: give shorter --lengths, or longer documents")
    count = min(config.windows, len(found))
    spread = np.stack([found[n * len(found) // count] for n in range(count)])
    return mask_windows(spread, config.lengths[0], rows.vocabulary)


def cut_search_windows(rows: Rows, config: LengthsConfig) -> Windows | None:
    """What longrope's factors are searched for by, where they are: training documents, so that what is scored stays
    unseen."""
    if "longrope" not in config.extensions or "rotary" not in config.positions or len(config.lengths) == 1:
        return None
    count = config.search_windows
    trained = islice(rows.train(batch_size=TRIED, seed=0, start_step=0, share=WHOLE), count)
    if not (found := [*islice(full_rows(trained), count)]):
        raise DataError(
            f"no training document has {rows.length} tokens: give shorter --lengths, or --extensions without longrope"
        )
    return mask_windows(np.stack(found), config.lengths[0], rows.vocabulary)


def search_factors(
    model: RoFormer,
    config: RoFormerConfig,
    windows: Windows | None,
    given: LengthsConfig,
    folder: Path,
    mesh: jax.sharding.Mesh,
    length: int,
) -> tuple[float, ...]:
    """LongRoPE's factors for a trained model's rows of `length`. Kept, and gone on with, in `folder`."""
    assert windows is not None  # where longrope is wanted
    short, long = given.lengths[0], given.lengths[-1]
    factor, theta = length / short, frequencies(config.head_size, config.theta)
    read = reader(config, longrope_magnitude(factor, short))

    def loss(factors: np.ndarray) -> float:
        scores = score(read, model, windows, long // length, mesh, theta / factors)
        return float(scores.entropy.sum() / windows.masked.sum())

    others = [Extension(method=m, factor=factor, trained=short) for m in ("linear", "ntk", "yarn")]
    starts = [np.asarray(theta / slowed(x, config.head_size, length, config.theta)[0]) for x in others]
    return find_factors(loss, [np.maximum(x, 1) for x in starts], factor, folder / f"{length}.json")


def continuations(
    model: RoFormerConfig, config: LengthsConfig, search: Callable[[int], tuple[float, ...]]
) -> Iterator[tuple[str, int, RoFormerConfig]]:
    """(what the table calls it, length, the model that reads it) of all that a trained model is scored with. search:
    longrope's factors for a length."""
    short = config.lengths[0]
    for length in config.lengths:
        extension = Extension(factor=length / short, trained=short)
        if model.positions == "learned":
            yield "learned, hierarchical", length, replace(model, extension=replace(extension, method="hierarchical"))
            continue
        yield model.positions, length, model
        for method in config.extensions if model.positions == "rotary" else ():
            factors: tuple[float, ...] = ()
            if method == "longrope":
                factors = search(length) if length > short else (1.0,) * (model.head_size // 2)
            continued = replace(extension, method=method, long_factors=factors)
            yield f"rotary, {method}", length, replace(model, extension=continued)


def by_window(scores: Scores, windows: Windows) -> dict[str, list[float]]:
    """For each window the mean cross-entropy of its masked tokens, and the share guessed right."""
    count = windows.masked.sum(1)
    return {
        "cross_entropy": (scores.entropy.sum(1) / count).tolist(),
        "accuracy": (scores.right.sum(1) / count).tolist(),
    }
