"""Pretraining of an encoder by masked language model, over rows of ids that somebody else made of text."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import jax
import tyro

from rope.encoder import roformer
from rope.encoder.load import load_encoder
from rope.encoder.mlm import Vocabulary
from rope.encoder.program import mlm_program
from rope.encoder.roformer import Positions, RoFormer, RoFormerConfig
from rope.layers.computation import Computation
from rope.positions.angles import SINUSOIDAL
from training.files.buckets import path_of
from training.files.errors import DataError
from training.files.weights import fingerprint
from training.flags import FLAT, one_of
from training.launch import LaunchConfig, hold, joined
from training.loop import LoopConfig, Trained, Training, train
from training.mesh import make_mesh
from training.optimizer import OptimizerConfig
from training.partition import check_divisible
from training.program import Data, HostBatch, Program
from training.ranges import check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of ids and how to read them, the same on any number of hosts; the position in the data is the step number.

    A batch is {"ids": int32 [b, T], "segments": int32 [b, T]}, a process's share; a segment of 0 is padding.
    """

    length: int
    vocabulary: Vocabulary
    fingerprint: str  # of documents, settings and tokenizer
    tokenizer: str  # the tokenizer's fingerprint
    train: Callable[..., Iterator[HostBatch]]  # (batch_size, seed, start_step, share)
    heldout: Callable[..., Iterable[HostBatch]] | None  # (batch_size, share)


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """What trains: the model, its rows and its updates."""

    preset: Annotated[str, one_of(roformer.PRESETS)] = "tiny"
    """Shape of the model, and the recipe that goes with it."""
    positions: Positions = "rotary"
    """rotary; learned (BERT's table); sinusoidal, or with trainable frequencies; T5's relative buckets; none."""
    theta: str = SINUSOIDAL
    """Frequencies of rotary and sinusoidal positions: 10000^-t, 1000^-t, t^2, t, …"""
    length: int = 128
    """Positions of a row."""
    dropout: float = 0.1
    """Of embeddings, branches and attention weights."""
    computation: Annotated[Computation, FLAT] = field(default_factory=Computation)
    """How the model is computed."""
    loop: tyro.conf.OmitArgPrefixes[LoopConfig] = field(default_factory=LoopConfig)
    """Steps, batches, evaluation and checkpoints."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(default_factory=OptimizerConfig)
    """AdamW or Adafactor, and the learning rate."""

    def __post_init__(self):
        check_ranges(self, dropout=(0, 1), length=8)

    def model(self, vocabulary: int) -> RoFormerConfig:
        """The preset's model for such a vocabulary rounded up to a multiple of 16, for a mesh to cut."""
        model = replace(
            roformer.PRESETS[self.preset],
            vocabulary=-(-vocabulary // 16) * 16,
            max_positions=self.length,
            positions=self.positions,
            theta=self.theta,
            pooler="none",  # which nothing here trains
        )
        return self._trained(model)

    def model_from(self, start: RoFormerConfig, vocabulary: int, where: str) -> RoFormerConfig:
        """The model that is begun with, as it is to be trained.

        Raises DataError for one without head, or with fewer rows in its embedding or its table of positions.
        """
        if not start.head:
            raise DataError(f"{where}: it has no masked language model's head to train")
        if start.positions == "learned" and start.max_positions < self.length:
            raise DataError(f"{where}: its learned positions end at {start.max_positions}: give such a --length")
        if start.vocabulary < vocabulary:
            raise DataError(f"{where}: {start.vocabulary:,} rows in its embedding, fewer than {vocabulary:,} tokens")
        return self._trained(start)

    def _trained(self, model: RoFormerConfig) -> RoFormerConfig:
        computation = dataclasses.asdict(self.computation)
        return replace(model, **computation, dropout=self.dropout, attention_dropout=self.dropout)

    def program(self, model: RoFormerConfig, vocabulary: Vocabulary) -> Program:
        """The training of `model` on rows of `length`."""
        loop = self.loop
        return mlm_program(model, vocabulary, self.length, self.optimizer, steps=loop.steps, seed=loop.seed)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    recipe: Annotated[EncoderRecipe, FLAT] = field(default_factory=EncoderRecipe)
    """What trains."""
    start: str = ""
    """Begin with this encoder, a run or a Hugging Face folder with a masked language model's head, instead of random
    weights; its shape, positions and tokenizer hold."""
    folder: str = "runs/encoder"
    """Where everything of the run goes."""
    launch: Annotated[LaunchConfig, FLAT] = field(default_factory=LaunchConfig)
    """On what it runs."""


def recipe_of(preset: str) -> EncoderRecipe:
    """What goes with a preset: RoFormer's first stage, but for those that fit two cores, in minutes (`tiny`) or an hour
    (`roformer-char-mini`)."""
    loop, optimizer = {
        "tiny": (
            LoopConfig(steps=1000, batch_size=32, eval_every=200, save_every=200),
            OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=100),
        ),
        "roformer-char-mini": (
            LoopConfig(steps=4000, batch_size=32, eval_every=500, save_every=500),
            OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup=300),
        ),
    }.get(
        preset,
        (
            LoopConfig(steps=200_000, batch_size=256, save_every=1000),
            OptimizerConfig(learning_rate=1e-4, schedule="linear", warmup=10_000),
        ),
    )
    positions = roformer.PRESETS[preset].positions
    return EncoderRecipe(preset=preset, positions=positions, loop=loop, optimizer=optimizer)


def defaults(preset: str) -> EncoderConfig:
    """The command's, for a preset."""
    folder = "runs/encoder" if preset == "tiny" else f"runs/{preset}"
    return EncoderConfig(recipe=recipe_of(preset), folder=folder)


def plan_of(config: EncoderConfig, vocabulary: Vocabulary) -> tuple[Program, LoopConfig]:
    """What the command would train on text of such a vocabulary (of a start: its own), for scripts.plan."""
    recipe = config.recipe
    if not config.start:
        return recipe.program(recipe.model(vocabulary.size), vocabulary), recipe.loop
    start = load_encoder(config.start).config
    model = recipe.model_from(start, start.vocabulary, config.start)
    return recipe.program(model, vocabulary._replace(size=start.vocabulary)), recipe.loop


def pretrain_encoder(config: EncoderConfig, rows_of: Callable[[], Rows]) -> tuple[Trained, RoFormerConfig]:
    """Runs, or resumes, the pretraining in `config.folder`; returns what came of it and the model's config.

    rows_of: makes the rows, which may take long: it is called in the lock of the folder, and once all else is known to
    fit. Errors are those of training.loop.train, and of `rows_of`.
    """
    joined(config.launch)
    with hold(config.folder, config.launch):
        return _pretrain(config, rows_of)


def _pretrain(config: EncoderConfig, rows_of: Callable[[], Rows]) -> tuple[Trained, RoFormerConfig]:
    recipe, loop, mesh = config.recipe, config.recipe.loop, make_mesh(config.launch.mesh)
    start, shape = load_encoder(config.start)[:2] if config.start else (None, None)

    def model_of(vocabulary: int) -> RoFormerConfig:
        return recipe.model_from(shape, vocabulary, config.start) if shape else recipe.model(vocabulary)

    sizes = {"batch_size / accumulate": ("batch", loop.microbatch)} | roformer.sizes(model_of(1))
    if not start:
        del sizes["vocabulary"]  # not known yet
    check_divisible(mesh, sizes)

    rows = rows_of()
    if start:
        tell(
            f"{config.start}: its shape, positions and tokenizer hold, "
            "whatever --preset, --positions and --vocabulary say"
        )
    model = model_of(rows.vocabulary.size)
    return pretrain_on(recipe, model, rows, mesh, path_of(config.folder, "--folder"), start=start), model


def pretrain_on(
    recipe: EncoderRecipe,
    model: RoFormerConfig,
    rows: Rows,
    mesh: jax.sharding.Mesh,
    folder: Path,
    *,
    start: RoFormer | None = None,
) -> Trained:
    """Trains `model` on rows in `folder`, which is then an encoder for rope.encoder.load. Errors as train raises."""
    loop, program = recipe.loop, recipe.program(model, rows.vocabulary)
    program.check(mesh, loop.microbatch)
    size = roformer.parameters(model) / 1e6
    what = "as the start" if start else recipe.preset
    tell(f"{what}: {size:.1f}M parameters, {model.positions}, rows of {rows.length}")
    if rows.heldout is None:
        tell("no document is held out, so nothing is evaluated: give a larger --eval-fraction and another --folder")
    data = Data(
        train=lambda first, share: rows.train(
            batch_size=loop.batch_size, seed=loop.seed, start_step=first, share=share
        ),
        heldout=lambda share: rows.heldout(batch_size=loop.microbatch, share=share) if rows.heldout else (),
        identity={
            "data": rows.fingerprint,
            "positions": model.positions,
            "theta": model.theta,
            "start": start and fingerprint(start),
        },
    )
    about = {"encoder": dataclasses.asdict(model), "tokenizer": rows.tokenizer, "preset": recipe.preset}
    training = Training(program=program, data=data, about=about, start=start)
    return train(training, loop, mesh, folder)
