"""An encoder tuned for sentence vectors: by text alone (SimCSE), by pairs with hard negatives,
by scored pairs (CoSENT), or by labelled ones."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from pegasus_zh.text.losses import counting
from pegasus_zh.text.tokenizer_files import keep_tokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.similarity import SimilarityTask, correlation, read_task
from retrieval.tuning.batches import Batches, Form, longest
from retrieval.tuning.contrastive import Loss
from retrieval.tuning.examples import Examples, examples_of
from retrieval.tuning.labels import Groups, members
from retrieval.tuning.program import contrastive_program
from retrieval.tuning.softmax import ENCODER, Classifier, begin, softmax_program
from retrieval.vectors.encoding import Encoding, encoder_for
from retrieval.vectors.pooling import Pooling, check_poolings
from retrieval.vectors.source import load_alone
from rope.encoder.roformer import RoFormer, RoFormerConfig
from rope.layers.computation import Computation
from training.files.buckets import path_of
from training.files.errors import DataError
from training.files.weights import fingerprint
from training.flags import FLAT, parse_flags
from training.launch import LaunchConfig, hold, joined
from training.loop import LoopConfig, Trained, Training, train
from training.mesh import make_mesh
from training.optimizer import OptimizerConfig
from training.program import Data, Program
from training.ranges import check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class TuningRecipe:
    """What trains: the loss, its examples and their updates. The defaults are the published Chinese recipe."""

    loss: Loss = "simcse"
    """simcse: each sentence twice, with other dropout; pairs: the second sentence among all; cosent:
    the order of the scores; softmax: the labels of pairs."""
    pooling: Pooling = "cls"
    """cls (P1), pooler (P2: SimBERT, RoFormer-Sim), mean (P3), first-last (P4), last-two or pooler-tanh."""
    examples: int = 10_000
    """How many sentences or pairs are drawn; 0: all."""
    max_length: int = 64
    """Ids of a sentence, [CLS] and [SEP] included."""
    epochs: float = 1.0
    """Passes over the examples."""
    batch_size: int = 64
    """Examples of an update, over all devices and microbatches; every one is compared with all, but of softmax."""
    accumulate: int = 1
    """Microbatches that are computed one after the other to save memory (gradient caching: the same gradient)."""
    dropout: float = 0.3
    """Of hidden states; that of attention weights is the model's own."""
    scale: float = 20.0
    """Of the cosines: 1 / temperature."""
    eval_every: int = 50
    """Updates between evaluations on --valid, and between checkpoints."""
    seed: int = 0
    """Of the examples drawn, their order, and dropout."""
    computation: Annotated[Computation, FLAT] = dataclasses.field(default_factory=Computation)
    """How the model is computed."""
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
        if not (self.epochs and self.scale):
            raise ValueError(f"epochs {self.epochs:g}, scale {self.scale:g}: both must be above 0")
        if self.loss == "simcse" and self.dropout == 0:
            raise ValueError("dropout is 0: the two views of a sentence would be the same; give the 0.3 of the recipe")
        _ = self.loop(1).microbatch  # refused where it does not divide
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: an example needs others to be told from")

    @property
    def views(self) -> int:
        """Vectors of each sentence of an example."""
        return 2 if self.loss == "simcse" else 1

    def loop(self, examples: int) -> LoopConfig:
        """For so many sentences or pairs to draw from."""
        steps = max(round(self.epochs * (min(examples, self.examples or examples) // self.batch_size)), 1)
        return LoopConfig(
            steps=steps,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            log_every=min(10, steps),
            eval_every=self.eval_every,
            save_every=self.eval_every,
            seed=self.seed,
        )

    def model(self, start: RoFormerConfig) -> RoFormerConfig:
        """The encoder that the tuning begins with, as it is to be trained."""
        return replace(start, **dataclasses.asdict(self.computation), dropout=self.dropout)

    def program(self, model: RoFormerConfig, form: Form, steps: int, groups: Groups = ()) -> Program:
        """The tuning of `model` on batches of this form; groups: of labels, for softmax."""
        if self.loss == "softmax":
            return softmax_program(model, groups, self.pooling, form, self.optimizer, steps=steps, seed=self.seed)
        return contrastive_program(
            model, self.loss, self.pooling, form, self.optimizer, steps=steps, seed=self.seed, scale=self.scale
        )


@dataclass(frozen=True, kw_only=True)
class SimCSEConfig:
    """Tune an encoder for sentence vectors; the same command goes on. The defaults are the published Chinese recipe."""

    model: str
    """A work folder of scripts.pretrain_encoder, or a Hugging Face folder."""
    data: tuple[str, ...]
    """.txt, .tsv, .csv, .jsonl or .json files, also .gz, .zst. For simcse one text a line, --field, or all of a
    table's columns but numbers; for pairs columns of a sentence, its like [, hard negatives]; for cosent of a, b and
    a score, such as a label; for softmax of a, b and a label, each file 0 and 1, or names of its own."""
    labelled: bool = False
    """For pairs: the last column is a label, 1 of those that are alike, which are trained on, or 0 of others, which are
    counted and left out (--loss cosent learns from both)."""
    folder: str = "runs/simcse"
    """Where everything of the run goes; scripts.embed takes it as --model."""
    threshold: float | None = None
    """For softmax: of a file with scores other than 0 and 1, those above it become 1 and the others 0."""
    field: str = "text"
    """For simcse: the field or column with a text."""
    valid: str = ""
    """A file of a TAB b TAB score, whose Spearman correlation is told as training goes."""
    recipe: Annotated[TuningRecipe, FLAT] = dataclasses.field(default_factory=TuningRecipe)
    """What trains."""
    launch: Annotated[LaunchConfig, FLAT] = dataclasses.field(default_factory=LaunchConfig)
    """On what it runs."""

    def __post_init__(self):
        check_lists(self, data=None)
        if self.labelled and self.recipe.loss != "pairs":
            raise ValueError(f"labelled goes with --loss pairs, not {self.recipe.loss}: cosent takes labels as scores")
        if self.threshold is not None and self.recipe.loss != "softmax":
            raise ValueError(f"threshold goes with --loss softmax, not {self.recipe.loss}")


def simcse(config: SimCSEConfig) -> Trained:
    """Runs, or goes on with, the tuning in `config.folder`. Raises DataError and ValueError."""
    joined(config.launch)
    with hold(config.folder, config.launch):
        source = load_alone(config.model)
        valid = read_task("valid", [config.valid]) if config.valid else None
        examples, mesh = read_examples(config), make_mesh(config.launch.mesh)
        trained = tune(config.recipe, source, examples, valid, mesh, path_of(config.folder, "--folder"))
        tell(f"{config.folder}: a --model for scripts.embed, scripts.search and scripts.evaluate_similarity")
        return trained


def parse(args: Sequence[str] | None = None, prog: str = "python -m scripts.simcse") -> SimCSEConfig:
    """The command line's config."""
    return parse_flags(SimCSEConfig, prog=prog, args=args)


def plan_of(config: SimCSEConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan: every sentence as long as may be."""
    recipe, source = config.recipe, load_alone(config.model)
    examples = read_examples(config)
    loop = recipe.loop(len(examples.sentences))
    form = longest(
        recipe.max_length, loop.microbatch, len(examples.sentences[0]) * recipe.views, examples.scores is not None
    )
    return recipe.program(recipe.model(source.config), form, loop.steps, examples.groups), loop


def read_examples(config: SimCSEConfig) -> Examples:
    """The examples of the files. Raises DataError, with file, line and remedy."""
    return examples_of(config.data, config.recipe.loss, config.field, config.labelled, config.threshold)


def tune(
    recipe: TuningRecipe,
    source: TextEncoder,
    examples: Examples,
    valid: SimilarityTask | None,
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> Trained:
    """Trains in `folder`, which is then a model for load_text_encoder. Raises DataError and ValueError."""
    check_poolings([recipe.pooling], source.config, "the encoder")
    tokenizer, model = source.tokenizer, recipe.model(source.config)
    count = len(examples.sentences)
    chosen = np.random.default_rng(recipe.seed).permutation(count)[: recipe.examples or None]
    if len(chosen) < recipe.batch_size:
        raise DataError(f"{examples.where}: {len(chosen)} examples, fewer than one batch of {recipe.batch_size}")
    encoding, lost = counting(tokenizer)
    ids = [
        [encoding.frame_source(encoding.encode(text), recipe.max_length) for text in examples.sentences[i]]
        for i in chosen
    ]
    scores = None if examples.scores is None else examples.scores[chosen]
    loop = recipe.loop(count)
    groups = () if scores is None else members(examples.groups, scores)
    batches = Batches(ids, scores, loop, recipe.max_length, recipe.views, tokenizer.pad_id, mesh, groups)
    program = recipe.program(model, batches.form, loop.steps, examples.groups)
    program.check(mesh, loop.microbatch)
    left = len(ids) % loop.batch_size
    rest = f"; {left} of them, which fill none, are left out of each pass, others each time" if left else ""
    tell(f"{len(ids):,} examples, {loop.steps} updates of {loop.batch_size}{rest}")
    lost().report("sentences")
    encode = encoder_for(model, tokenizer, [recipe.pooling], Encoding(max_length=recipe.max_length))

    def review(task: SimilarityTask, arrays: RoFormer | Classifier, step: int) -> dict[str, float]:
        arrays = arrays.encoder if isinstance(arrays, Classifier) else arrays
        return correlation(partial(encode, arrays), task)

    data = Data(
        train=batches,
        identity={
            "model": fingerprint(source.model),
            "loss": [recipe.loss, recipe.pooling, recipe.scale, recipe.dropout],
            "examples": [len(ids), _digest(ids, scores)],
        },
    )
    about: dict[str, Any] = {
        "encoder": dataclasses.asdict(source.config),
        "tokenizer": tokenizer.fingerprint,
        "pooling": recipe.pooling,
    }
    start: RoFormer | Classifier = source.model
    if examples.groups:
        start = begin(source.model, model, examples.groups, recipe.seed)
        about |= {"part": ENCODER, "labels": examples.groups}
    if jax.process_index() == 0:
        keep_tokenizer(tokenizer, folder / "tokenizer")
    told = partial(review, valid) if valid else None
    run = Training(program=program, data=data, about=about, start=start, review=told)
    return train(run, loop, mesh, folder)


def _digest(ids: Sequence, scores: np.ndarray | None) -> str:
    return hashlib.sha256(repr(ids).encode() + (b"" if scores is None else scores.tobytes())).hexdigest()[:8]
