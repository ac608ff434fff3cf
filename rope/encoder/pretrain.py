"""Pretraining of an encoder by masked language model, over rows of ids that somebody else made of text."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from rope.encoder import mlm, roformer
from rope.encoder.load import load_encoder
from rope.encoder.mlm import Vocabulary
from rope.encoder.roformer import Positions, RoFormer, RoFormerConfig
from rope.layers.kernels import Implementation
from rope.layers.primitives import Remat
from rope.positions.angles import SINUSOIDAL
from training.files.errors import DataError
from training.files.locks import locked
from training.files.weights import fingerprint
from training.loop import HostBatch, LoopConfig, Task, microbatch, train
from training.mesh import MeshConfig, data_share, make_mesh
from training.metrics import silent
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import check_divisible
from training.ranges import check_ranges
from training.step import TrainState, init_state, make_train_step


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of ids and how to read them, the same on any number of hosts; the position in the data is the step number.

    A batch is {"ids": int32 [b, T], "segments": int32 [b, T]}, this process's share; a segment of 0 is padding.
    """

    length: int
    vocabulary: Vocabulary
    fingerprint: str  # of documents, settings and tokenizer
    tokenizer: str  # the tokenizer's fingerprint
    train: Callable[..., Iterator[HostBatch]]  # (batch_size, seed, start_step, process_index, process_count)
    heldout: Callable[..., Iterable[HostBatch]] | None  # (batch_size, process_index, process_count)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    preset: Literal[tuple(roformer.PRESETS)] = "tiny"
    """Shape of the model, and the recipe that goes with it."""
    start: str = ""
    """Begin with this encoder, a run or a Hugging Face folder with a masked language model's head, instead of random
    weights; its shape, positions and tokenizer hold."""
    positions: Positions = "rotary"
    """rotary; learned (BERT's table); sinusoidal, or with trainable frequencies; T5's relative buckets; none."""
    theta: str = SINUSOIDAL
    """Frequencies of rotary and sinusoidal positions: 10000^-t, 1000^-t, t^2, t, …"""
    length: int = 128
    """Positions of a row."""
    folder: str = "runs/encoder"
    """Where everything of the run goes."""
    dropout: float = 0.1
    """Of embeddings, branches and attention weights."""
    attention: Implementation = "auto"
    """What computes attention: Pallas's kernel on a TPU needs --dropout 0."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; bfloat16 on TPUs and recent GPUs. Parameters stay float32."""
    remat: Remat = "none"
    """What the backward pass recomputes to save memory."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""
    loop: tyro.conf.OmitArgPrefixes[LoopConfig] = field(default_factory=LoopConfig)
    """Steps, batches, evaluation and checkpoints."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(default_factory=OptimizerConfig)
    """AdamW or Adafactor, and the learning rate."""

    def __post_init__(self):
        check_ranges(self, dropout=(0, 1), length=8)

    def model(self, vocabulary: int, start: RoFormerConfig | None = None) -> RoFormerConfig:
        """The preset's model for such a vocabulary rounded up to a multiple of 16, for a mesh to cut; or `start` as it is to
        be trained.

        Raises DataError for a start without head, or with fewer rows in its embedding or its table of positions.
        """
        same = {name: getattr(self, name) for name in ("dropout", "attention", "dtype", "remat")}
        same["attention_dropout"] = self.dropout
        if start is None:
            shape = {"vocabulary": -(-vocabulary // 16) * 16, "max_positions": self.length}
            own = {"positions": self.positions, "theta": self.theta, "pooler": "none"}  # which nothing here trains
            return replace(roformer.PRESETS[self.preset], **own, **shape, **same)
        if not start.head:
            raise DataError(f"{self.start}: it has no masked language model's head to train")
        if start.positions == "learned" and start.max_positions < self.length:
            raise DataError(f"{self.start}: its learned positions end at {start.max_positions}: give such a --length")
        if start.vocabulary < vocabulary:
            raise DataError(
                f"{self.start}: {start.vocabulary:,} rows in its embedding, fewer than {vocabulary:,} tokens"
            )
        return replace(start, **same)


def recipe(preset: str) -> EncoderConfig:
    """The defaults that go with a preset: RoFormer's first stage, but for those that fit two cores, in minutes (`tiny`) or an
    hour (`roformer-char-mini`)."""
    if preset == "roformer-char-mini":
        return EncoderConfig(
            preset=preset,
            folder=f"runs/{preset}",
            loop=LoopConfig(steps=4000, batch_size=32, eval_every=500, save_every=500),
            optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup=300),
        )
    if preset != "tiny":
        loop = LoopConfig(steps=200_000, batch_size=256, save_every=1000)
        optimizer = OptimizerConfig(learning_rate=1e-4, schedule="linear", warmup=10_000)
        positions = roformer.PRESETS[preset].positions
        return EncoderConfig(
            preset=preset, positions=positions, folder=f"runs/{preset}", loop=loop, optimizer=optimizer
        )
    return EncoderConfig(
        loop=LoopConfig(steps=1000, batch_size=32, eval_every=200, save_every=200),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=100),
    )


def pretrain_encoder(
    config: EncoderConfig, rows_of: Callable[[], Rows], say: Callable = print
) -> tuple[TrainState, RoFormerConfig]:
    """Runs, or resumes, the pretraining in `config.folder`; returns the last state and the model's config.

    rows_of: makes the rows, which may take long: it is called in the lock of the folder, and once all else is known to fit. Errors are
    those of training.loop.train, and of `rows_of`.
    """
    with locked(Path(config.folder)) if jax.process_index() == 0 else nullcontext():
        return _pretrain(config, rows_of, say if jax.process_index() == 0 else silent)


def _pretrain(config: EncoderConfig, rows_of: Callable[[], Rows], say: Callable) -> tuple[TrainState, RoFormerConfig]:
    loop, mesh = config.loop, make_mesh(config.mesh)
    start, shape = load_encoder(config.start, say=say)[:2] if config.start else (None, None)
    batch = microbatch(loop.batch_size, loop.accumulate)
    sizes = {"batch_size / accumulate": ("batch", batch)} | roformer.sizes(config.model(1, shape))
    check_divisible(
        mesh, {name: size for name, size in sizes.items() if start or name != "vocabulary"}
    )  # not known yet

    rows = rows_of()
    model = config.model(rows.vocabulary.size, shape)
    check_divisible(mesh, roformer.sizes(model))
    if start:
        say(
            f"{config.start}: its shape, positions and tokenizer hold, whatever --preset, --positions and --vocabulary say"
        )
    say(
        f"{config.start or config.preset}: {roformer.parameters(model) / 1e6:.1f}M parameters, {model.positions}, rows of {rows.length}"
    )
    tx = make_optimizer(config.optimizer, loop.steps)
    objective = partial(mlm.loss, config=model, vocabulary=rows.vocabulary)
    index, count = data_share(mesh)
    mine = {"process_index": index, "process_count": count}
    if rows.heldout is None:
        say("no document is held out, so nothing is evaluated: give a larger --eval-fraction and another --folder")
    task = Task(
        init=partial(init_state, partial(roformer.init, model), tx, loop.seed),
        step=make_train_step(objective, tx),
        evaluate=lambda model, batch: objective(model, batch, None),
        train_batches=lambda first: rows.train(batch_size=loop.batch_size, seed=loop.seed, start_step=first, **mine),
        eval_batches=lambda: rows.heldout(batch_size=batch, **mine) if rows.heldout else (),
        count=lambda host: (int(np.count_nonzero(host["segments"])), host["segments"].size),
        flops_per_row=mlm.flops_per_row(model, rows.length),
        config={"encoder": dataclasses.asdict(model), "tokenizer": rows.tokenizer, "preset": config.preset},
        fixed={
            "data": rows.fingerprint,
            "positions": model.positions,
            "theta": model.theta,
            "start": start and fingerprint(start),
        },
        weights=start,
    )
    return train(task, loop, mesh, Path(config.folder), say), model


def trained(
    config: EncoderConfig, rows_of: Callable[[], Rows], say: Callable = silent
) -> tuple[RoFormer, RoFormerConfig]:
    """The model of a run that is finished, or finished now. Raises KeyboardInterrupt where it was told to stop."""
    state, model = pretrain_encoder(config, rows_of, say)
    if int(state.step) < config.loop.steps:  # it has saved, and the same command goes on
        raise KeyboardInterrupt
    return state.model, model
