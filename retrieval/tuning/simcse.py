"""An encoder tuned for sentence vectors: by text alone (SimCSE), by pairs with hard negatives, or by scored pairs (CoSENT)."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
import tyro

from pegasus_zh.text.tokenizers import keep_tokenizer
from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.similarity import SimilarityTask, cosines, read_task
from retrieval.texts import read_columns
from retrieval.tuning.contrastive import LOSSES, Loss, cached_gradients
from retrieval.vectors.encoding import Encoding, encoder_for, lay_out, pack, row_length, texts_of
from retrieval.vectors.pooling import Pooling, check_poolings, embed
from rope.encoder import roformer
from rope.encoder.huggingface import Pooler
from rope.layers.primitives import Remat
from rope.positions.angles import rows_of
from training import loop
from training.experiment.statistics import spearman
from training.files.errors import DataError
from training.files.locks import locked
from training.files.weights import fingerprint
from training.loop import HostBatch, LoopConfig, microbatch, train
from training.mesh import MeshConfig, data_share, join_processes, make_mesh
from training.metrics import silent
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import check_divisible, parts_of, replicate, spec
from training.ranges import check_lists, check_ranges
from training.step import Batch, TrainState, init_state, update_step


@dataclass(frozen=True, kw_only=True)
class SimCSEConfig:
    """Tune an encoder for sentence vectors; the same command goes on. The defaults are the published Chinese recipe."""

    model: str
    """A work folder of scripts.pretrain_encoder, or a Hugging Face folder."""
    data: tuple[str, ...]
    """.txt, .tsv or .jsonl files, also .gz. For simcse one text a line, or all of a .tsv's columns but numbers; for pairs .tsv of
    sentence TAB its like [TAB hard negatives]; for cosent .tsv of a TAB b TAB score."""
    loss: Loss = "simcse"
    """simcse: each sentence twice, with other dropout; pairs: the second sentence among all; cosent: the order of the scores."""
    pooling: Pooling = "cls"
    """cls (P1), pooler (P2), mean (P3), first-last (P4) or last-two."""
    pooler: Pooler = "auto"
    """Of a Hugging Face folder whose config.json does not say it: tanh (BERT), linear (SimBERT, RoFormer-Sim)."""
    folder: str = "runs/simcse"
    """Where everything of the run goes; scripts.embed takes it as --model."""
    field: str = "text"
    """The JSON field with a text."""
    examples: int = 10_000
    """How many sentences or pairs are drawn; 0: all."""
    max_length: int = 64
    """Ids of a sentence, [CLS] and [SEP] included."""
    epochs: float = 1.0
    """Passes over the examples."""
    batch_size: int = 64
    """Examples of an update, over all devices and microbatches; every one is compared with all."""
    accumulate: int = 1
    """Microbatches that are computed one after the other to save memory (gradient caching: the same gradient)."""
    dropout: float = 0.3
    """Of hidden states; that of attention weights is the model's own."""
    scale: float = 20.0
    """Of the cosines: 1 / temperature."""
    valid: str = ""
    """A .tsv of a TAB b TAB score, whose Spearman correlation is told as training goes."""
    eval_every: int = 50
    """Updates between these, and between checkpoints."""
    seed: int = 0
    """Of the examples drawn, their order, and dropout."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters stay float32."""
    remat: Remat = "none"
    """What the backward pass recomputes to save memory."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""
    distributed: bool = False
    """One process of several: joins them through jax.distributed (a TPU pod finds the others by itself)."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-5, weight_decay=0, warmup=1, clip=0, epsilon=1e-7)
    )
    """Keras's Adam at 1e-5."""

    def __post_init__(self):
        names = ("batch_size", "accumulate", "eval_every")
        check_ranges(
            self, **dict.fromkeys(names, 1), examples=0, epochs=(0, 1 << 20), max_length=3, scale=0, seed=(0, 1 << 32)
        )
        check_ranges(self, dropout=(0, 1))
        check_lists(self, data=None)
        if not (self.epochs and self.scale):
            raise ValueError(f"epochs {self.epochs:g}, scale {self.scale:g}: both must be above 0")
        if self.loss == "simcse" and self.dropout == 0:
            raise ValueError("dropout is 0: the two views of a sentence would be the same; give the 0.3 of the recipe")
        microbatch(self.batch_size, self.accumulate)
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: an example needs others to be told from")


class Examples(NamedTuple):
    """What is trained on: of each example S sentences, and of scored pairs their scores."""

    sentences: list[tuple[str, ...]]
    scores: np.ndarray | None = None  # float32 [n]


def simcse(config: SimCSEConfig, say: Callable = print) -> TrainState:
    """Runs, or goes on with, the tuning in `config.folder`. Raises DataError and ValueError."""
    if config.distributed:
        join_processes()
    with locked(Path(config.folder)) if jax.process_index() == 0 else nullcontext():
        say = say if jax.process_index() == 0 else silent
        source = load_text_encoder(config.model, pooler=config.pooler, say=say)
        valid = read_task("valid", [config.valid]) if config.valid else None
        state = tune(config, source, read_examples(config), valid, say)
        say(f"{config.folder}: a --model for scripts.embed, scripts.search and scripts.evaluate_similarity")
        return state


def read_examples(config: SimCSEConfig) -> Examples:
    """The examples of the files. Raises DataError, with file, line and remedy."""
    if config.loss == "cosent":
        task = read_task("examples", config.data)
        pairs = [pair for split in task.splits for pair in zip(split.first, split.second, strict=True)]
        scores = np.concatenate([split.scores for split in task.splits])
        ranks = np.unique(scores, return_inverse=True)[1]  # float32 keeps their order, which is all that counts
        return Examples([(task.texts[a], task.texts[b]) for a, b in pairs], ranks.astype(np.float32))
    rows = [row for path in config.data for row in read_columns(path, config.field)]
    if config.loss == "simcse":
        sentences = dict.fromkeys(text for _, row in rows for text in row if len(row) == 1 or not _number(text))
        return Examples([(text,) for text in sentences])
    if not rows:
        raise DataError(f"{', '.join(config.data)}: no pair in it")
    counts = {len(row) for _, row in rows}
    if len(counts) != 1 or counts == {1}:
        place, row = next((p, r) for p, r in rows if len(r) != len(rows[0][1]) or len(r) == 1)
        before = "" if len(row) == 1 else f", and {len(rows[0][1])} on the first line"
        raise DataError(
            f"{place}: {len(row)} column(s){before}; every line is sentence TAB its like, with as many hard negatives"
        )
    if all(_number(row[-1]) for _, row in rows):
        raise DataError(
            f"{rows[0][0]}: {rows[0][1][-1]!r}, and every other line ends in a number: --loss cosent is for scores; "
            "for pairs keep the lines that are alike, and cut -f1,2"
        )
    return Examples([row for _, row in rows])


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def tune(
    config: SimCSEConfig, source: TextEncoder, examples: Examples, valid: SimilarityTask | None, say: Callable = print
) -> TrainState:
    """Trains in `config.folder`; where it was told to stop, the state is not that of the last of `steps_of`."""
    check_poolings([config.pooling], source.config, config.model)
    tokenizer, mesh = source.tokenizer, make_mesh(config.mesh)
    own = {"dropout": config.dropout, "dtype": config.dtype, "remat": config.remat}
    model = replace(source.config, **own)
    check_divisible(mesh, {"batch_size / accumulate": ("batch", microbatch(config.batch_size, config.accumulate))})
    check_divisible(mesh, roformer.sizes(model))
    count = len(examples.sentences)
    chosen = np.random.default_rng(config.seed).permutation(count)[: config.examples or None]
    if len(chosen) < config.batch_size:
        raise DataError(
            f"{', '.join(config.data)}: {len(chosen)} examples, fewer than one batch of {config.batch_size}"
        )
    ids = [
        [tokenizer.frame_source(tokenizer.encode(text), config.max_length) for text in examples.sentences[i]]
        for i in chosen
    ]
    scores = None if examples.scores is None else examples.scores[chosen]
    batches = Batches(ids, scores, config, tokenizer.pad_id, mesh)
    steps = steps_of(config, len(ids))
    plan = LoopConfig(
        steps=steps,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        log_every=min(10, steps),
        eval_every=config.eval_every,
        save_every=config.eval_every,
        seed=config.seed,
    )
    say(f"{len(ids):,} examples, {plan.steps} updates of {config.batch_size}")
    tx = make_optimizer(config.optimizer, plan.steps)

    def vectors(arrays: roformer.RoFormer, batch: Batch, key: jax.Array | None) -> jax.Array:
        return sentence_vectors(arrays, batch, model, config.pooling, key)

    encode = encoder_for(model, tokenizer, [config.pooling], Encoding(max_length=config.max_length))

    def review(arrays: roformer.RoFormer, step: int) -> dict[str, float]:
        found = np.concatenate([part.vectors[:, 0] for part in encode(arrays, valid.texts)])
        return {"spearman": spearman(valid.splits[0].scores, cosines(found, valid.splits[0]))}

    task = loop.Task(
        init=partial(init_state, partial(roformer.init, model), tx, config.seed),
        step=update_step(cached_gradients(vectors, partial(LOSSES[config.loss], scale=config.scale)), tx),
        evaluate=lambda arrays, batch: {},
        train_batches=batches,
        eval_batches=lambda: (),
        config={
            "encoder": dataclasses.asdict(source.config),
            "tokenizer": tokenizer.fingerprint,
            "pooling": config.pooling,
        },
        fixed={
            "model": fingerprint(source.model),
            "loss": [config.loss, config.pooling, config.scale, config.dropout],
            "examples": [len(ids), _digest(ids, scores)],
        },
        weights=source.model,
        review=review if valid else None,
        count=lambda host: (int(np.count_nonzero(host["segments"])), host["segments"].size),
    )
    if jax.process_index() == 0:
        keep_tokenizer(tokenizer, Path(config.folder) / "tokenizer")
    return train(task, plan, mesh, Path(config.folder), say)


def _digest(ids: Sequence, scores: np.ndarray | None) -> str:
    return hashlib.sha256(repr(ids).encode() + (b"" if scores is None else scores.tobytes())).hexdigest()[:8]


def sentence_vectors(
    model: roformer.RoFormer, batch: Batch, config: roformer.RoFormerConfig, pooling: Pooling, key: jax.Array | None
) -> jax.Array:
    """A microbatch's rows [R, T] of packed sentences, and the places [B, S] of each example's -> vectors [B, S, D]."""
    ids, segments, places = (batch[name] for name in ("ids", "segments", "places"))
    texts = texts_of(ids.shape[1])
    found = embed(model, ids, segments, config, [pooling], texts, key)
    flat = jax.lax.reshape(found, (len(ids) * texts, found.shape[-1]), out_sharding=spec("batch", None))
    return rows_of(replicate(flat), places, spec("batch", None, None))


class Batches:
    """Batches of packed sentences, all of one shape, by step number; every epoch is a new order.

    What is left of an epoch below a batch is left out. Each process packs its own examples.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[Sequence[int]]],
        scores: np.ndarray | None,
        config: SimCSEConfig,
        pad: int,
        mesh: jax.sharding.Mesh,
    ):
        """ids: of each example and sentence."""
        self._ids, self._scores, self._config, self._pad = ids, scores, config, pad
        known: dict[tuple[int, ...], int] = {}
        self._texts = np.array([[known.setdefault(tuple(x), len(known)) for x in example] for example in ids], np.int32)
        self._index, self._parts = data_share(mesh)
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([config.seed, epoch]).permutation(len(ids)))
        self._per_epoch = len(ids) // config.batch_size
        self._views = 2 if config.loss == "simcse" else 1
        self._room = row_length([len(x) for example in ids for x in example], config.max_length)
        steps = range(steps_of(config, len(ids)))
        devices = parts_of("batch", mesh) // self._parts
        # The batch with the most rows decides the shape of all: of many short sentences the others have nearly as many.
        most = max(len(rows) for step in steps for part in range(self._parts) for rows in self._packed(step, part)[1])
        self._rows = -(-most // devices) * devices

    def _packed(self, step: int, part: int) -> tuple[list[list[list[int]]], list[list[list[int]]], np.ndarray]:
        """Of each microbatch of this part: its sentences, which of them its rows have; and the examples' numbers."""
        config, (epoch, number) = self._config, divmod(step, self._per_epoch)
        size = config.batch_size // self._parts
        mine = self._order(epoch)[number * config.batch_size + part * size :][:size]
        # Example e goes to microbatch e % accumulate, as training.loop.to_mesh has it.
        groups = [mine[m :: config.accumulate] for m in range(config.accumulate)]
        sentences = [[x for i in group for x in self._ids[i] * self._views] for group in groups]
        return sentences, [pack([len(x) for x in found], self._room) for found in sentences], mine

    def __call__(self, first: int) -> Iterator[HostBatch]:
        """Batch `first` and all later: this process's ids and segments [r, T], places [b, S], texts [b, S], the same number for the
        same text, and scores [b] if there are any."""
        count, texts = len(self._ids[0]) * self._views, texts_of(self._room)
        for step in itertools.count(first):
            sentences, packed, mine = self._packed(step, self._index)
            laid, places = [], []
            for found, rows in zip(sentences, packed, strict=True):
                laid.append(lay_out(rows, found, (self._rows, self._room), self._pad))
                place = np.empty(len(found), np.int32)
                for row, members in enumerate(rows, self._index * self._rows):
                    place[members] = row * texts + np.arange(len(members))
                places.append(place.reshape(-1, count))
            # Interleaved: row r goes to microbatch r % accumulate.
            ids, segments, place = (
                np.stack(x, 1).reshape(-1, x[0].shape[1]) for x in (*zip(*laid, strict=True), places)
            )
            batch = {"ids": ids, "segments": segments, "places": place, "texts": self._texts[mine]}
            yield batch if self._scores is None else batch | {"scores": self._scores[mine]}


def steps_of(config: SimCSEConfig, examples: int) -> int:
    """Updates of the tuning on so many sentences or pairs."""
    return max(round(config.epochs * (min(examples, config.examples or examples) // config.batch_size)), 1)
