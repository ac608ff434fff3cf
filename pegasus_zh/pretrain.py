"""T5-PEGASUS from raw text: vocabulary -> prepared rows -> training -> what the model writes."""

import dataclasses
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import tyro
from jax.experimental import multihost_utils

from pegasus_zh.generation import Writing, generate
from pegasus_zh.rows.dataset import eval_batches, train_batches
from pegasus_zh.rows.makers import PAIR, PAIRS_OF_DOCUMENTS
from pegasus_zh.rows.packed_rows import PackedRows, PreparedRows, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.load import load
from pegasus_zh.t5.objective import count_tokens, loss
from pegasus_zh.text.documents import CORPUS
from pegasus_zh.text.tokenizers import Tokenizer, keep_tokenizer, load_tokenizer
from pegasus_zh.text.vocabulary import VocabularyKind, make_tokenizer
from training.command import preset_of
from training.files.atomic import write_bytes
from training.files.errors import DataError
from training.files.locks import locked
from training.loop import LoopConfig, Task, microbatch, train
from training.mesh import MeshConfig, data_share, join_processes, make_mesh
from training.metrics import silent
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import check_divisible
from training.ranges import check_ranges
from training.step import TrainState, init_state, make_train_step


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain T5-PEGASUS (or mT5 on pseudo-summaries) from raw Chinese text.

    Without --data it trains on the corpus that comes with the project. The same command resumes a run.
    """

    preset: Literal[tuple(mt5.PRESETS)] = "tiny"
    """Shape of the model, and the recipe that goes with it."""
    start: str = ""
    """Go on from this model with its tokenizer, instead of random weights of a preset: a folder of scripts.transplant or of
    transformers, a bert4keras checkpoint, or another run."""
    folder: str = "runs/tiny"
    """Where everything of the run goes; runs/PRESET by default."""
    eval_data: tuple[str, ...] = ()
    """Held-out documents; by default --eval-fraction of --data (of the built-in corpus: its own held-out part)."""
    prepared: str = ""
    """A set that scripts.prepare made, instead of --data."""
    tokenizer: str = ""
    """A folder with vocab.txt or spiece.model, or such a file; by default a vocabulary is made from --data."""
    tokenizer_kind: VocabularyKind = "pegasus"
    """Which vocabulary is made: words and wordpieces (T5-PEGASUS), the same without words, or SentencePiece (mT5)."""
    vocabulary: int = 50_000
    """Entries of the vocabulary that is made, at most."""
    dropout: float | None = None
    """Instead of the preset's."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; bfloat16 on TPUs and recent GPUs. Parameters stay float32."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes to save memory."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over the vocabulary."""
    z_loss: float = 0.0
    """Weight of log(Z)^2 in the loss, 1e-4 where logits drift in bfloat16."""
    samples: int = 5
    """Held-out pseudo-summaries written and shown at the end."""
    distributed: bool = False
    """One process of several: joins them through jax.distributed (a TPU pod finds the others by itself)."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""
    prepare: tyro.conf.OmitArgPrefixes[PrepareConfig] = field(default_factory=lambda: PrepareConfig(eval_fraction=0.01))
    """From raw text to packed rows."""
    loop: tyro.conf.OmitArgPrefixes[LoopConfig] = field(default_factory=LoopConfig)
    """Steps, batches, evaluation and checkpoints."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(default_factory=OptimizerConfig)
    """AdamW or Adafactor, and the learning rate."""

    def __post_init__(self):
        check_ranges(self, vocabulary=1, dropout=(0, 1), label_smoothing=(0, 1), z_loss=0, samples=0)
        if self.prepare.selector not in PAIRS_OF_DOCUMENTS:
            raise DataError(
                f"selector is {self.prepare.selector!r}, which makes no pairs: give one of {', '.join(PAIRS_OF_DOCUMENTS)}"
            )

    def model(self, vocabulary: int, start: mt5.MT5Config | None = None) -> mt5.MT5Config:
        """The preset's model for a tokenizer of so many entries, or that to start from, with this config's changes."""
        model = start or mt5.with_vocabulary(mt5.PRESETS[self.preset], vocabulary)
        return replace(
            model,
            dtype=self.dtype,
            remat=self.remat,
            dropout=model.dropout if self.dropout is None else self.dropout,
        )


def recipe(preset: str) -> PretrainConfig:
    """The defaults that go with a preset: T5-PEGASUS's own, but for `tiny`, which fits a laptop and minutes."""
    config = PretrainConfig(preset=preset, folder=f"runs/{preset}")
    if preset != "tiny":
        return config
    return replace(
        config,
        vocabulary=4000,
        # Short rows: with long ones few documents fill few, and their attention costs a laptop a third more.
        prepare=replace(config.prepare, row_source=512, row_target=160),
        loop=LoopConfig(steps=200, batch_size=8, eval_every=50, save_every=50),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=20),
    )


def parse(args: list[str] | None = None) -> PretrainConfig:
    """The command line's config: the flags given, and for the rest the recipe of the --preset given."""
    args = sys.argv[1:] if args is None else args
    default = recipe(preset_of(args, mt5.PRESETS, "tiny"))
    config = tyro.cli(PretrainConfig, prog="python -m scripts.pretrain", args=args, default=default)
    if "--data" in args and not any(config.prepare.data):
        raise DataError("--data is empty: name files or patterns, or leave it out for the built-in corpus")
    return config


def tokenizer_of(config: PretrainConfig, folder: Path, say: Callable = print) -> Tokenizer:
    """The tokenizer that is given, or the one in `folder`, which is first made from the documents if it is not there."""
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    given = config.prepare
    which = {"field": given.field, "on_bad_record": given.on_bad_record}
    return make_tokenizer(config.tokenizer_kind, config.vocabulary, given.data, folder, say=say, **which)


def pretrain(config: PretrainConfig, say: Callable = print) -> TrainState:
    """Runs, or resumes, the whole of it in `config.folder` and returns the last state. Errors as prepare and train raise."""
    if config.distributed:
        join_processes()
    with locked(Path(config.folder)) if jax.process_index() == 0 else nullcontext():
        return _pretrain(config, say if jax.process_index() == 0 else silent)


def _pretrain(config: PretrainConfig, say: Callable) -> TrainState:
    folder, eval_data, loop = Path(config.folder), config.eval_data, config.loop
    if config.start and config.tokenizer:
        raise DataError("--start has its own tokenizer: leave out --tokenizer")
    if config.prepared and (config.prepare.data or config.tokenizer):
        raise DataError("--prepared names a set with its tokenizer: leave out --data and --tokenizer")
    if not config.prepare.data and not config.prepared:
        if eval_data:
            raise DataError("--eval-data goes with --data or --prepared: the built-in corpus has its own held-out part")
        built_in = replace(config.prepare, data=(str(CORPUS / "train.jsonl"),))
        config, eval_data = replace(config, prepare=built_in), (str(CORPUS / "heldout.jsonl"),)
    mesh = make_mesh(config.mesh)
    rows = microbatch(loop.batch_size, loop.accumulate)
    start = load(config.start, say=say) if config.start else None
    if start:
        say(start.source)
    sizes = mt5.sizes(config.model(config.vocabulary, start and start.config))
    if config.tokenizer or config.prepared:
        del sizes["vocabulary"]  # not known yet
    check_divisible(mesh, {"batch_size / accumulate": ("batch", rows)} | sizes)

    data, heldout = _prepared(config, start and start.tokenizer, eval_data, folder, say)
    tokenizer = start.tokenizer if start else load_tokenizer(data.folder / "tokenizer")
    model = config.model(tokenizer.vocab_size, start and start.config)
    check_divisible(mesh, mt5.sizes(model))
    say(
        f"{config.start or config.preset}: {mt5.parameters(model) / 1e6:.1f}M parameters, rows of {data.manifest.shape}"
    )
    tx = make_optimizer(config.optimizer, loop.steps)
    objective = partial(loss, config=model, smoothing=config.label_smoothing, z_loss=config.z_loss)
    index, count = data_share(mesh)
    mine = {"process_index": index, "process_count": count}
    task = Task(
        init=partial(init_state, partial(mt5.init, model), tx, loop.seed),
        step=make_train_step(objective, tx),
        evaluate=lambda model, batch: objective(model, batch, None),
        train_batches=lambda first: train_batches(
            data.train, batch_size=loop.batch_size, seed=loop.seed, start_step=first, **mine
        ),
        eval_batches=lambda: eval_batches(heldout, batch_size=rows, **mine) if heldout else (),
        count=count_tokens,
        flops_per_row=mt5.flops_per_row(model, *data.manifest.row.values()),
        config={"model": dataclasses.asdict(model), "tokenizer": tokenizer.fingerprint, "preset": config.preset},
        fixed={"data": data.manifest.fingerprint, "start": start and start.fingerprint},
        weights=start and start.model,
    )
    if not heldout:
        say("no document is held out, so nothing is evaluated: give --eval-data, or a larger --eval-fraction")
    state = train(task, loop, mesh, folder, say)
    if config.samples and heldout and int(state.step) >= loop.steps:
        with jax.set_mesh(mesh):
            show_samples(state.model, model, tokenizer, heldout, config.samples, folder / "samples.txt", say)
    return state


def _prepared(
    config: PretrainConfig, tokenizer: Tokenizer | None, eval_data: tuple[str, ...], folder: Path, say: Callable
) -> tuple[PreparedRows, PackedRows | None]:
    """The prepared rows, and the held-out ones if there are any; made by the first process if need be."""
    place = Path(config.prepared) if config.prepared else folder / "data"
    data = heldout = None
    if jax.process_index() == 0:  # the others find what the first has prepared on the storage they share
        if config.prepared:
            data = open_rows(place, tokenizer and tokenizer.fingerprint)
        else:
            tokenizer = tokenizer or tokenizer_of(config, folder / "tokenizer", say)
            data = prepare(replace(config.prepare, eval_fraction=0) if eval_data else config.prepare, tokenizer, place)
        if {*data.manifest.row} != {*PAIR}:
            raise DataError(f"{place} has rows of {', '.join(data.manifest.row)}: give a set of sources and targets")
        if eval_data:  # in rows of the same shape, so that the evaluation compiles once
            shape = {f"row_{side}": positions for side, positions in data.manifest.row.items()}
            wanted = replace(config.prepare, data=eval_data, eval_fraction=0, **shape)
            heldout = prepare(wanted, load_tokenizer(place / "tokenizer"), folder / "heldout").train
        if not (folder / "tokenizer" / "made.json").exists():
            keep_tokenizer(load_tokenizer(place / "tokenizer"), folder / "tokenizer")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("prepared")
    data = data or open_rows(place, tokenizer and tokenizer.fingerprint)
    if eval_data:
        return data, heldout or open_rows(folder / "heldout").train
    return data, data.heldout


def show_samples(
    model: mt5.MT5,
    config: mt5.MT5Config,
    tokenizer: Tokenizer,
    heldout: PackedRows,
    count: int,
    path: Path,
    say: Callable,
) -> None:
    """Shows what the model writes for the first held-out sources beside their pseudo-summaries; kept in `path`."""
    batch = heldout.batch(range(min(count, len(heldout))))

    def first(name: str, row: int) -> list[int]:
        return batch[name][row][batch[f"{name}_segments"][row] == 1].tolist()

    number = range(len(batch["source"]))
    sources = [first("source", row) for row in number]
    writing = Writing(max_source=max(map(len, sources)), max_target=128, batch_size=len(sources))
    written = generate(model, config, tokenizer, sources, writing)
    text = ""
    for row, output in zip(number, written, strict=False):
        text += f"source     {tokenizer.decode(sources[row])[:120]}…\n"
        text += f"reference  {tokenizer.decode(first('target', row))}\nwritten    {output}\n\n"
    say("\n" + text.rstrip())
    if jax.process_index() == 0:
        write_bytes(path, text.encode())
