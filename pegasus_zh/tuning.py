"""Tuning on (source, reference) pairs, by T5-PEGASUS's recipe: the epoch with the best validation BLEU is kept.

One pair a row, padded to the longest there is. After each epoch the validation sources are written for, greedily, and
scored; the best model lies in `best/` as a folder that transformers, scripts.generate and scripts.export read.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np
import tyro

from pegasus_zh.evaluation import scores
from pegasus_zh.rows.makers import MAKERS, PAIR
from pegasus_zh.rows.packing import Example, decode_rows, encode_row
from pegasus_zh.rows.prepared_set import id_dtype
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.load import Start
from pegasus_zh.t5.program import t5_program
from pegasus_zh.text.losses import counting
from pegasus_zh.text.tokenizer_files import keep_tokenizer
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.text.words import sentinels
from pegasus_zh.writing import Writing, generate, marks_of
from rope.layers.computation import Computation
from training.files.atomic import read_json, write_json
from training.files.errors import DataError
from training.flags import FLAT
from training.loop import LoopConfig, Stopped, Training, train
from training.mesh import Share
from training.optimizer import OptimizerConfig
from training.partition import parts_of, to_host
from training.program import Data, HostBatch, Program
from training.ranges import check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """What trains: lengths, passes and updates. The defaults are T5-PEGASUS's."""

    epochs: int = 40
    """Passes over the training pairs."""
    batch_size: int = 32
    """Pairs of an update."""
    accumulate: int = 1
    """Microbatches that an update's pairs are cut into, to save memory."""
    eval_epochs: int = 1
    """Epochs between evaluations."""
    max_source: int = 256
    """Ids of a source, special tokens included; longer ones are cut."""
    max_target: int = 32
    """Ids of a reference, special tokens included; longer ones are cut."""
    seed: int = 0
    """Of the examples drawn, their order, and dropout."""
    dropout: float | None = None
    """Instead of the model's."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over the vocabulary."""
    z_loss: float = 0.0
    """Weight of log(Z)^2 in the loss, 1e-4 where logits drift in bfloat16."""
    computation: Annotated[Computation, FLAT] = field(default_factory=Computation)
    """How the model is computed."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-4, weight_decay=0, warmup=1, clip=0, epsilon=1e-7)
    )
    """Keras's Adam at 2e-4."""

    def __post_init__(self):
        names = ("epochs", "batch_size", "accumulate", "eval_epochs")
        check_ranges(self, **dict.fromkeys(names, 1), max_source=3, max_target=3, seed=(0, 1 << 32))
        check_ranges(self, dropout=(0, 1), label_smoothing=(0, 1), z_loss=0)

    def model(self, start: mt5.MT5Config) -> mt5.MT5Config:
        """The model that the tuning begins with, as it is to be trained."""
        dropout = start.dropout if self.dropout is None else self.dropout
        return replace(start, **asdict(self.computation), dropout=dropout)

    def loop(self, pairs: int, held: int, parts: int) -> LoopConfig:
        """For so many pairs to train on and to choose by, on a mesh that cuts a batch in so many parts: what cannot
        fill a batch's end is left empty."""
        parts *= self.accumulate
        rows = -(-min(self.batch_size, pairs) // parts) * parts
        per_epoch = -(-pairs // rows)
        return LoopConfig(
            steps=self.epochs * per_epoch,
            batch_size=rows,
            accumulate=self.accumulate,
            log_every=min(10, per_epoch),
            eval_every=self.eval_epochs * per_epoch,
            save_every=self.eval_epochs * per_epoch,
            eval_batches=-(-held // rows),
            seed=self.seed,
        )

    def program(self, model: mt5.MT5Config, shape: tuple[int, int], steps: int) -> Program:
        """The training of `model` on rows of shape (S, T)."""
        which = {"smoothing": self.label_smoothing, "z_loss": self.z_loss}
        return t5_program(model, shape, self.optimizer, steps=steps, seed=self.seed, **which)


class Tuned(NamedTuple):
    """What a fine-tuning has come to, as Trained is of a pretraining."""

    best: dict[str, float]  # the validation scores, in percent, of the best epoch so far, and its step
    finished: bool  # else it was told to stop: it has saved, and the same command goes on

    def complete(self) -> dict[str, float]:
        """The scores of a tuning that others go on with. Raises Stopped where it was told to stop."""
        if not self.finished:
            raise Stopped
        return self.best


def tune(
    recipe: FinetuneRecipe,
    loaded: Start,
    training: Sequence[tuple[str, str]],
    valid: Sequence[tuple[str, str]],
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> Tuned:
    """Trains on the pairs in `folder`, keeping the best epoch in `best/`. Begins with random weights where `loaded` has
    none. Raises DataError for a folder of another run, and ValueError for a mesh that cannot cut the model."""
    tokenizer, model = loaded.tokenizer, recipe.model(loaded.config)
    encoding, lost = counting(tokenizer)
    framed = (MAKERS["pairs"].examples(pairs, encoding, recipe) for pairs in (training, valid))
    ids, held = ([*chain.from_iterable(examples)] for examples in framed)
    loop = recipe.loop(len(ids), len(held), parts_of("batch", mesh))
    rows, shape = loop.batch_size, _row_shape([*ids, *held])
    program = recipe.program(model, shape, loop.steps)
    program.check(mesh, loop.microbatch)
    tell(
        f"{len(ids):,} pairs to train on, {len(held):,} to choose by; rows of {shape[0]} + {shape[1]}, {rows} an update"
    )
    lost().report("pairs", targets=True)
    if 2 * lost().cut_targets > len(ids) + len(held):
        tell(
            "warning: most references are cut, so that what is learned has no end: give a larger --max-target; is "
            "the reference the source?"
        )
    batch = partial(batch_of_pairs, tokenizer=tokenizer, shape=shape, rows=rows)
    best = _Best(folder, model, tokenizer)
    writing = Writing(max_source=recipe.max_source, max_target=recipe.max_target, batch_size=rows)
    marks = marks_of(tokenizer, writing, sentinels(tokenizer))

    def review(arrays: mt5.MT5, step: int) -> dict[str, float]:
        if step == 0:  # a new run: what an earlier one in the same place left counts no more
            best.found = {}
            return {}
        sources, decoder = [list(source) for source, _ in held], MT5Decoder(model)
        written = list(generate(arrays, decoder, tokenizer, sources, writing, marks=marks))
        found = {name: 100 * float(x.mean()) for name, x in scores([r for _, r in valid], written).items()}
        best.offer(arrays, step, found, list(zip(valid, written, strict=True)))
        return found

    data = Data(
        train=lambda first, share: (batch(pairs, share) for pairs in _epochs(ids, rows, recipe.seed, first)),
        heldout=lambda share: (batch(held[i : i + rows], share) for i in range(0, len(held), rows)),
        identity={
            "model": loaded.fingerprint,
            "tokenizer": tokenizer.fingerprint,
            "arithmetic": [model.gelu, model.scaled_output, model.cross_bias],
            "pairs to train on": _digest(ids),
            "pairs to choose by": _digest(held),
        },
    )
    if jax.process_index() == 0:
        keep_tokenizer(tokenizer, folder / "tokenizer")
    about = {"model": asdict(model), "tokenizer": tokenizer.fingerprint}
    run = Training(program=program, data=data, about=about, start=loaded.model, review=review)
    if not train(run, loop, mesh, folder).finished:
        return Tuned(best.found, finished=False)
    if not best.found or not (folder / "best").is_dir():
        raise DataError(f"{folder}: finished, but the best model is gone from it; give another --folder")
    found = best.found
    tell(
        f"{folder / 'best'}: step {found['step']:.0f}; "
        + ", ".join(f"{k} {found[k]:.2f}" for k in found if k != "step")
    )
    return Tuned(found, finished=True)


def _row_shape(pairs: Sequence[Example]) -> tuple[int, int]:
    """(S, T): the longest source and reference, in eights."""
    source, target = (-(-max(len(pair[side]) for pair in pairs) // 8) * 8 for side in (0, 1))
    return source, target


def _digest(pairs: list[Example]) -> str:
    digest = hashlib.sha256()
    for side in chain.from_iterable(pairs):
        digest.update(len(side).to_bytes(4, "little") + side.tobytes())
    return digest.hexdigest()[:8]


def _epochs(ids: list[Example], rows: int, seed: int, first: int) -> Iterator[list[Example]]:
    """The pairs of batch `first` and all later; every epoch is a new order, and its last batch may have fewer."""
    per_epoch = -(-len(ids) // rows)
    while True:
        epoch, number = divmod(first, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(ids))
        yield [ids[i] for i in order[number * rows : (number + 1) * rows]]
        first += 1


def batch_of_pairs(
    pairs: Sequence[Example], share: Share, tokenizer: Tokenizer, shape: tuple[int, int], rows: int
) -> HostBatch:
    """A process's share of a batch, one pair a row, empty rows at its end."""
    dtype = id_dtype(tokenizer.vocab_size)
    records = [encode_row([pair], dtype) for pair in pairs] + [b""] * (rows - len(pairs))
    row = dict(zip(PAIR, shape, strict=True))
    return decode_rows(share.of(records), dtype, row, tokenizer.pad_id, tokenizer.start_id)


class _Best:
    """The best model by BLEU so far, in best/ of the run's folder; best.json tells which, also to a resumed run."""

    def __init__(self, folder: Path, config: mt5.MT5Config, tokenizer: Tokenizer):
        self._folder, self._config, self._tokenizer = folder, config, tokenizer
        path = folder / "best.json"
        self.found: dict[str, float] = read_json(path, "delete it") if path.exists() else {}

    def offer(self, model: mt5.MT5, step: int, found: dict[str, float], written: list) -> None:
        """Keeps the model if it is better than the one before."""
        if self.found and found["bleu"] <= self.found["bleu"]:
            return
        model = to_host(model)
        self.found = {"step": step, **found}
        if jax.process_index() == 0:
            folder = self._folder / "best"
            never = sentinels(self._tokenizer)
            write_folder(
                folder, model, self._config, self._tokenizer, overwrite=True, cross_bias="keep", suppressed=never
            )
            rows = ({"source": s, "reference": r, "written": w} for (s, r), w in written)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / "validation.jsonl").write_text(lines, encoding="utf-8")
            write_json(self._folder / "best.json", self.found)  # last: it says that all is there
