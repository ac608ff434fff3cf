"""T5-PEGASUS from raw text: vocabulary -> prepared rows -> training -> what the model writes."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import tyro

from pegasus_zh.rows.dataset import eval_batches, train_batches
from pegasus_zh.rows.makers import PAIR, ExamplesConfig, making_pairs
from pegasus_zh.rows.packed_rows import PackedRows, PreparedRows, open_mixture, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.prepared_set import check_formats, read_manifest
from pegasus_zh.samples import finding, show_samples
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.load import Loaded, load
from pegasus_zh.t5.program import t5_program
from pegasus_zh.text.documents import CORPUS
from pegasus_zh.text.readers import DOCUMENTS
from pegasus_zh.text.tokenizer_files import keep_tokenizer, load_tokenizer
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.text.vocabulary import TokenizerConfig
from rope.layers.computation import Computation
from training.files.buckets import path_of
from training.files.errors import DataError
from training.flags import FLAT, flag, one_of, parse_preset
from training.launch import LaunchConfig, by_first, hold, joined
from training.loop import LoopConfig, Trained, Training, train
from training.mesh import make_mesh
from training.optimizer import OptimizerConfig
from training.partition import check_divisible
from training.program import Data, Program
from training.ranges import check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """What trains: the model, its loss and its updates."""

    preset: Annotated[str, one_of(mt5.PRESETS)] = "tiny"
    """Shape of the model, and the recipe that goes with it."""
    examples: tyro.conf.OmitArgPrefixes[ExamplesConfig] = field(default_factory=ExamplesConfig)
    """Pseudo-summaries or spans, and rows."""
    dropout: float | None = None
    """Instead of the preset's."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over the vocabulary."""
    z_loss: float = 0.0
    """Weight of log(Z)^2 in the loss, 1e-4 where logits drift in bfloat16."""
    computation: Annotated[Computation, FLAT] = field(default_factory=Computation)
    """How the model is computed."""
    loop: tyro.conf.OmitArgPrefixes[LoopConfig] = field(default_factory=LoopConfig)
    """Steps, batches, evaluation and checkpoints."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(default_factory=OptimizerConfig)
    """AdamW or Adafactor, and the learning rate."""

    def __post_init__(self):
        check_ranges(self, dropout=(0, 1), label_smoothing=(0, 1), z_loss=0)
        if (given := self.examples.selector) not in (known := making_pairs()):
            raise DataError(f"selector is {given!r}, which makes no pairs: give one of {', '.join(known)}")

    def model(self, vocabulary: int, start: mt5.MT5Config | None = None) -> mt5.MT5Config:
        """The preset's model for a tokenizer of so many entries, or that to start from, with this recipe's changes."""
        model = start or mt5.with_vocabulary(mt5.PRESETS[self.preset], vocabulary)
        dropout = model.dropout if self.dropout is None else self.dropout
        return replace(model, **dataclasses.asdict(self.computation), dropout=dropout)

    def program(self, model: mt5.MT5Config, shape: tuple[int, int]) -> Program:
        """The training of `model` on rows of shape (S, T)."""
        which = {"smoothing": self.label_smoothing, "z_loss": self.z_loss}
        return t5_program(model, shape, self.optimizer, steps=self.loop.steps, seed=self.loop.seed, **which)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain T5-PEGASUS (or mT5 on pseudo-summaries) from raw Chinese text.

    Without --data it trains on the corpus that comes with the project. The same command resumes a run.
    """

    recipe: Annotated[PretrainRecipe, FLAT] = field(default_factory=PretrainRecipe)
    """What trains."""
    start: str = ""
    """Go on from this model with its tokenizer, instead of random weights of a preset: a folder of scripts.transplant
    or of transformers, a bert4keras checkpoint, or another run."""
    folder: str = "runs/tiny"
    """Where everything of the run goes; runs/PRESET by default."""
    eval_data: tuple[str, ...] = ()
    """Held-out documents; by default --eval-fraction of --data (of the built-in corpus: its own held-out part)."""
    prepared: tuple[str, ...] = ()
    """A set that scripts.prepare made, instead of --data, or several of one tokenizer and row."""
    weights: tuple[int, ...] = ()
    """Of several sets: the share of each in what is trained on, as whole numbers; all the same unless given."""
    tokens: Annotated[TokenizerConfig, FLAT] = field(default_factory=TokenizerConfig)
    """What the documents are cut into."""
    samples: int = 5
    """Held-out pseudo-summaries written and shown at the end; 0: nor is told how many are found among eight."""
    prepare: tyro.conf.OmitArgPrefixes[PrepareConfig] = field(default_factory=PrepareConfig)
    """Which documents, and how they are prepared."""
    launch: Annotated[LaunchConfig, FLAT] = field(default_factory=LaunchConfig)
    """On what it runs."""

    def __post_init__(self):
        check_ranges(self, samples=0)
        if self.weights and not self.prepared:
            raise DataError("--weights are of the sets of --prepared: name them, or leave it out")


def defaults(preset: str) -> PretrainConfig:
    """What goes with a preset: T5-PEGASUS's own recipe, but for `tiny`, which fits a laptop and minutes."""
    config = PretrainConfig(recipe=PretrainRecipe(preset=preset), folder=f"runs/{preset}")
    if preset != "tiny":
        return config
    return replace(
        config,
        tokens=TokenizerConfig(vocabulary=4000),
        recipe=replace(
            config.recipe,
            # Short rows: with long ones few documents fill few, and their attention costs a laptop a third more.
            examples=ExamplesConfig(row_source=512, row_target=160),
            loop=LoopConfig(steps=200, batch_size=8, eval_every=50, save_every=50),
            optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=20),
        ),
    )


def parse(args: list[str] | None = None, prog: str = "python -m scripts.pretrain") -> PretrainConfig:
    """The command line's config: the flags given, and for the rest what goes with the --preset given."""
    args = sys.argv[1:] if args is None else args
    config = parse_preset(PretrainConfig, mt5.PRESETS, defaults, "tiny", args=args, prog=prog)
    if "--data" in args and not any(config.prepare.data):
        raise DataError("--data is empty: name files or patterns, or leave it out for the built-in corpus")
    return config


def plan_of(config: PretrainConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan: rows of 512 + 160 where documents choose them, and a vocabulary
    as large as may be where it is made of them."""
    start, row = load(config.start).config if config.start else None, config.recipe.examples.row
    shape, vocabulary = (row["source"] or 512, row["target"] or 160), config.tokens.vocabulary
    if config.prepared:
        manifest = read_manifest(config.prepared[0])  # not the rows, which may be in a bucket
        shape, vocabulary = (manifest.row["source"], manifest.row["target"]), manifest.tokenizer["vocab_size"]
    elif config.tokens.tokenizer:
        vocabulary = load_tokenizer(config.tokens.tokenizer).vocab_size
    return config.recipe.program(config.recipe.model(vocabulary, start), shape), config.recipe.loop


def pretrain(config: PretrainConfig) -> Trained:
    """Runs, or resumes, the whole of it in `config.folder`. Errors as prepare and train raise."""
    joined(config.launch)
    with hold(config.folder, config.launch):
        return _pretrain(config)


def _pretrain(config: PretrainConfig) -> Trained:
    folder = path_of(config.folder, "--folder")
    config, eval_data = _with_corpus(config)
    mesh = make_mesh(config.launch.mesh)
    start = load(config.start) if config.start else None
    if start:
        tell(start.source)
    _check(config, start, mesh)

    data, heldout = _prepared(config, start.tokenizer if start else None, eval_data, folder)
    trained, model, tokenizer = pretrain_on(
        config.recipe,
        data,
        heldout,
        mesh,
        folder,
        start=start,
        review=partial(finding, heldout=heldout) if config.samples and heldout else None,
    )
    if config.samples and heldout and trained.finished:
        with jax.set_mesh(mesh):
            show_samples(trained.state.model, model, tokenizer, heldout, config.samples, folder / "samples.txt")
    return trained


def pretrain_on(
    recipe: PretrainRecipe,
    data: PreparedRows,
    heldout: PackedRows | None,
    mesh: jax.sharding.Mesh,
    folder: Path,
    *,
    start: Loaded | None = None,
    review: Callable[[mt5.MT5Config], Callable[[mt5.MT5, int], dict[str, float]]] | None = None,
) -> tuple[Trained, mt5.MT5Config, Tokenizer]:
    """Trains on prepared rows in `folder`, which is then a model for pegasus_zh.t5.load. Errors as train raises.

    review: of the model's config makes what (model, step) further numbers of an evaluation are.
    """
    loop, tokenizer = recipe.loop, start.tokenizer if start else load_tokenizer(data.folder / "tokenizer")
    model = recipe.model(tokenizer.vocab_size, start.config if start else None)
    program = recipe.program(model, (data.manifest.row["source"], data.manifest.row["target"]))
    program.check(mesh, loop.microbatch)
    what = "as the start" if start else recipe.preset
    tell(f"{what}: {mt5.parameters(model) / 1e6:.1f}M parameters, rows of {data.manifest.shape}")
    if not heldout:
        tell(
            "no document is held out, so nothing is evaluated: give --eval-data, or a larger "
            "--eval-fraction (of scripts.prepare, where a set is given), and another --folder"
        )
    if jax.process_index() == 0 and not (folder / "tokenizer" / "made.json").exists():
        keep_tokenizer(tokenizer, folder / "tokenizer")
    rows = Data(
        train=lambda first, share: train_batches(
            data.train, batch_size=loop.batch_size, seed=loop.seed, start_step=first, share=share
        ),
        heldout=lambda share: eval_batches(heldout, batch_size=loop.microbatch, share=share) if heldout else (),
        identity={"data": data.fingerprint, "start": start and start.fingerprint},
    )
    about = {"model": dataclasses.asdict(model), "tokenizer": tokenizer.fingerprint, "preset": recipe.preset}
    told = review(model) if review else None
    training = Training(program=program, data=rows, about=about, start=start and start.model, review=told)
    return train(training, loop, mesh, folder), model, tokenizer


def _with_corpus(config: PretrainConfig) -> tuple[PretrainConfig, tuple[str, ...]]:
    """The config with the documents it means, and the held-out ones.
    Raises DataError for flags that contradict each other."""
    if config.start and config.tokens.tokenizer:
        raise DataError("--start has its own tokenizer: leave out --tokenizer")
    if config.prepared and (given := _of_preparation(config)):
        raise DataError(
            f"--prepared names a set that is made already, with its tokenizer: leave out {', '.join(given)}, "
            "or --prepared"
        )
    has_tokenizer = config.start or config.prepared or config.tokens.tokenizer
    if config.recipe.examples.maker.reads is not DOCUMENTS and not has_tokenizer:
        raise DataError("a vocabulary is made of documents, not of pairs: give --tokenizer, or --start, which has one")
    if config.prepare.data or config.prepared:
        return config, config.eval_data
    if config.eval_data:
        raise DataError("--eval-data goes with --data or --prepared: the built-in corpus has its own held-out part")
    built_in = replace(config.prepare, data=(str(CORPUS / "train.jsonl"),))
    return replace(config, prepare=built_in), (str(CORPUS / "heldout.jsonl"),)


def _of_preparation(config: PretrainConfig) -> list[str]:
    """The flags given of what a set that is there already was made with: --eval-data alone is still to be prepared."""
    usual = defaults(config.recipe.preset)
    made = [(config.tokens, usual.tokens), (config.prepare, usual.prepare)]
    made.append((config.recipe.examples, usual.recipe.examples))
    given = [name for part, other in made for name in vars(part) if getattr(part, name) != getattr(other, name)]
    heeded = {"workers"}
    if config.eval_data:
        heeded |= {*vars(config.recipe.examples), *vars(config.prepare)}
        heeded -= {"data", "eval_fraction", *(side.row for side in PAIR)}
    return [flag(name) for name in given if name not in heeded]


def _check(config: PretrainConfig, start: Loaded | None, mesh: jax.sharding.Mesh) -> None:
    """What can be known before anything is prepared. Raises ValueError for what the mesh cannot cut."""
    sizes = mt5.sizes(config.recipe.model(config.tokens.vocabulary, start.config if start else None))
    if config.tokens.tokenizer or config.prepared:
        del sizes["vocabulary"]  # not known yet
    check_divisible(mesh, {"batch_size / accumulate": ("batch", config.recipe.loop.microbatch)} | sizes)


def _prepared(
    config: PretrainConfig, tokenizer: Tokenizer | None, eval_data: tuple[str, ...], folder: Path
) -> tuple[PreparedRows, PackedRows | None]:
    """The prepared rows, and the held-out ones if there are any; made by the first process if need be."""
    places = [path_of(given, "--prepared") for given in config.prepared] or [folder / "data"]
    place = places[0]
    fingerprint = tokenizer.fingerprint if tokenizer else None

    def make() -> tuple[PreparedRows, PackedRows | None]:
        check_formats([*places, folder / "heldout"] if eval_data else places)  # before the documents take their time
        if config.prepared:
            data = open_mixture(places, config.weights, fingerprint)
        else:
            given = tokenizer or config.tokens.of(config.prepare, folder / "tokenizer")
            documents = replace(config.prepare, eval_fraction=0) if eval_data else config.prepare
            data = prepare(config.recipe.examples, documents, given, place)
        if {*data.manifest.row} != {side.name for side in PAIR}:
            raise DataError(f"{place} has rows of {', '.join(data.manifest.row)}: give a set of sources and targets")
        if not eval_data:
            return data, data.heldout
        examples = config.recipe.examples.of_row(data.manifest.row)  # so that the evaluation compiles once
        documents = replace(config.prepare, data=eval_data, eval_fraction=0)
        return data, prepare(examples, documents, load_tokenizer(place / "tokenizer"), folder / "heldout").train

    def reopen() -> tuple[PreparedRows, PackedRows | None]:
        data = open_mixture(places, config.weights, fingerprint)
        return data, open_rows(folder / "heldout").train if eval_data else data.heldout

    return by_first(make, reopen, what="prepared")
