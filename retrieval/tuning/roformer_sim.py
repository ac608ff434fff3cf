"""SimBERT and RoFormer-Sim: an encoder that finds questions that are alike, and writes them.

Stage 1 learns of pairs; stage 2, with a teacher, takes over its cosines and keeps on writing.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from pegasus_zh.text.losses import counting
from pegasus_zh.text.tokenizer_files import keep_tokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.similarity import SimilarityTask, correlation, read_task
from retrieval.tuning.groups import read_groups
from retrieval.tuning.joint_program import Objective, joint_program
from retrieval.tuning.question_batches import QuestionBatches, QuestionForm
from retrieval.tuning.questions import Questions, Stream, tokenize
from retrieval.vectors.arrays import check_finite
from retrieval.vectors.encoding import Encoding, all_vectors, encoder, encoder_for
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.source import SentenceEncoder, load_alone, load_sentence_encoder
from rope.encoder.roformer import RoFormer, RoFormerConfig, init
from rope.layers.computation import Computation
from training.files.buckets import path_of
from training.files.errors import DataError
from training.files.weights import fingerprint
from training.flags import FLAT, one_of, parse_preset
from training.launch import LaunchConfig, hold, joined
from training.loop import LoopConfig, Trained, Training, train
from training.mesh import make_mesh
from training.metrics import progress_bar
from training.optimizer import OptimizerConfig
from training.program import Data, Program
from training.ranges import check_lists, check_ranges
from training.telling import tell

POOLING: Pooling = "pooler"  # the dense layer over [CLS], without tanh


@dataclass(frozen=True, kw_only=True)
class JointRecipe:
    """What trains: the losses, examples and their updates."""

    preset: Annotated[str, one_of(("roformer-sim", "simbert"))] = "roformer-sim"
    """Whose settings the defaults are."""
    max_length: int = 128
    """Ids of a pair, [CLS] and both [SEP] included. A text is cut at a mark before six tenths as many characters."""
    corrupted: float = 0.5
    """Share of sources in which 15 % of the words are hidden, as BART; 0: none."""
    dropout: float = 0.2
    """Of hidden states; that of attention weights is the model's own."""
    objective: Annotated[Objective, FLAT] = field(default_factory=Objective)
    """What is minimised."""
    computation: Annotated[Computation, FLAT] = field(default_factory=Computation)
    """How the model is computed."""
    loop: tyro.conf.OmitArgPrefixes[LoopConfig] = field(
        default_factory=lambda: LoopConfig(steps=100_000, batch_size=48)
    )
    """Steps, pairs of an update (each is learned in both directions, so rows are twice as many), checkpoints."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-5, weight_decay=0.01, warmup=1, clip=0)
    )
    """AdamW."""

    def __post_init__(self):
        check_ranges(self, max_length=(8, 1 << 15), corrupted=0, dropout=(0, 1))
        if self.corrupted > 1:
            raise ValueError(f"corrupted is {self.corrupted:g}: it is a share, at most 1")
        if self.loop.microbatch < 2 and self.loop.batch_size < 2:
            raise ValueError(f"batch_size is {self.loop.batch_size}: a pair needs others to be told from")

    def model(self, start: RoFormerConfig) -> RoFormerConfig:
        """The encoder that the training begins with, as it is to be trained: its pooler has no tanh."""
        return replace(start, **dataclasses.asdict(self.computation), dropout=self.dropout, pooler="linear")

    def program(self, model: RoFormerConfig, form: QuestionForm) -> Program:
        """The training of `model` on batches of this form."""
        loop = self.loop
        return joint_program(model, self.objective, form, self.optimizer, steps=loop.steps, seed=loop.seed)


def recipe_of(preset: str) -> JointRecipe:
    """The published settings: RoFormer-Sim's, or SimBERT's, which reads what is written and nothing hidden."""
    if preset == "simbert":
        return JointRecipe(
            preset=preset,
            max_length=64,
            corrupted=0.0,
            dropout=0.1,
            objective=Objective(scale=30.0),
            loop=LoopConfig(steps=1_170_000, batch_size=64),
            optimizer=OptimizerConfig(learning_rate=2e-6, weight_decay=0.01, warmup=1, clip=0),
        )
    return JointRecipe(preset=preset)


@dataclass(frozen=True, kw_only=True)
class RoFormerSimConfig:
    """Train an encoder that finds texts that are alike, and writes them; the same command goes on.

    Stage 1: --data of groups. Stage 2: the same from the run of stage 1 (--model) with a --teacher. The defaults are
    those of the preset: --preset NAME --help shows them.
    """

    model: str
    """What is begun with: a run of scripts.pretrain_encoder, or of this (stage 2), or a Hugging Face folder with a
    masked language model's head."""
    data: tuple[str, ...]
    """Files of texts that are alike: .jsonl of {"text": …, "synonyms": […]}, or tables whose columns are alike; also
    .gz, .zst."""
    labelled: bool = False
    """The tables end in a label: 1 of pairs that are alike, or 0 of others, which are left out."""
    order: tuple[int, ...] = ()
    """Files by number from 1, an example of each in turn, such as 1 2 1 3; by default all files are one."""
    teacher: str = ""
    """Stage 2: an encoder whose cosines are to be taken over, of any kind and width."""
    folder: str = "runs/roformer-sim"
    """Where everything of the run goes; scripts.similar_questions, scripts.embed and scripts.search take it."""
    eval_fraction: float = 0.01
    """Share of the groups that are held out."""
    valid: str = ""
    """A file of a TAB b TAB score, whose Spearman correlation is told as training goes."""
    recipe: Annotated[JointRecipe, FLAT] = field(default_factory=JointRecipe)
    """What trains."""
    launch: Annotated[LaunchConfig, FLAT] = field(default_factory=LaunchConfig)
    """On what it runs."""

    def __post_init__(self):
        check_ranges(self, eval_fraction=(0, 1))
        if self.data is tyro.MISSING:  # the defaults of a preset
            return
        check_lists(self, data=None)
        if self.order:
            check_lists(self, repeated=True, order=range(1, len(self.data) + 1))
            if missing := {*range(1, len(self.data) + 1)} - {*self.order}:
                raise ValueError(f"order is {self.order}: file {min(missing)} has no turn; leave it out of --data")


def parse(args: Sequence[str] | None = None, prog: str = "python -m scripts.roformer_sim") -> RoFormerSimConfig:
    """The command line's config: the flags given, and for the rest what goes with the --preset given."""
    made = lambda preset: RoFormerSimConfig(  # noqa: E731
        model=tyro.MISSING, data=tyro.MISSING, recipe=recipe_of(preset)
    )
    return parse_preset(RoFormerSimConfig, ("roformer-sim", "simbert"), made, "roformer-sim", args=args, prog=prog)


def roformer_sim(config: RoFormerSimConfig) -> Trained:
    """Runs, or goes on with, the training in `config.folder`. Raises DataError and ValueError."""
    joined(config.launch)
    with hold(config.folder, config.launch):
        source = load_alone(config.model)
        teacher = load_sentence_encoder(config.teacher) if config.teacher else None
        valid = read_task("valid", [config.valid]) if config.valid else None
        questions, mesh = read_questions(config, source), make_mesh(config.launch.mesh)
        folder = path_of(config.folder, "--folder")
        trained = teach(
            config.recipe, source, questions, mesh, folder, order=config.order, teacher=teacher,
            eval_fraction=config.eval_fraction, valid=valid,
        )  # fmt: skip
        tell(f"{config.folder}: a --model for scripts.similar_questions, scripts.embed and scripts.search")
        return trained


def plan_of(config: RoFormerSimConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan: every pair as long as may be."""
    recipe, source = config.recipe, load_alone(config.model)
    length = recipe.max_length
    width = load_sentence_encoder(config.teacher).width("pooler") if config.teacher else 0
    form = QuestionForm(2 * recipe.loop.microbatch, length, length // 2, width)
    return recipe.program(recipe.model(source.config), form), recipe.loop


def read_questions(config: RoFormerSimConfig, source: TextEncoder) -> Questions:
    """The groups of the files as ids, with what is lost told. Raises DataError, with file, line and remedy."""
    files = [read_groups(path, config.labelled) for path in config.data]
    questions = tokenize(files, source.tokenizer, config.recipe.max_length, config.recipe.corrupted > 0)
    for path, count in zip(config.data, questions.files, strict=True):
        if not count:
            raise DataError(f"{path}: no group of two texts that the vocabulary can write; give a file of groups")
    return questions


def teach(
    recipe: JointRecipe,
    source: TextEncoder,
    questions: Questions,
    mesh: jax.sharding.Mesh,
    folder: Path,
    *,
    order: tuple[int, ...] = (),
    teacher: SentenceEncoder | None = None,
    eval_fraction: float = 0.01,
    valid: SimilarityTask | None = None,
) -> Trained:
    """Trains in `folder`, which is then a model for load_text_encoder. Raises DataError and ValueError."""
    tokenizer, model, loop = source.tokenizer, recipe.model(source.config), recipe.loop
    if not model.head:
        raise DataError("the model has no masked language model's head to write with; give one that has")
    train_part, heldout_part = questions.split(eval_fraction, loop.seed)
    if sum(train_part.files) < loop.batch_size:
        raise DataError(
            f"{sum(train_part.files)} groups, fewer than one batch of {loop.batch_size}: give a smaller --batch-size"
        )
    vectors = taught(teacher, questions, mesh) if teacher else None
    made = partial(QuestionBatches, max_length=recipe.max_length, tokenizer=tokenizer, mesh=mesh, teacher=vectors)
    stream = partial(Stream, order=tuple(n - 1 for n in order), seed=loop.seed)
    batches = made(stream(train_part, corrupted=recipe.corrupted), loop, loop.steps)
    whole = replace(loop, batch_size=loop.microbatch, accumulate=1)
    some = min(sum(heldout_part.files) // loop.microbatch, loop.eval_batches)
    heldout = made(stream(heldout_part, order=(), corrupted=0.0), whole, some) if some else None
    program = recipe.program(model, batches.form)
    program.check(mesh, loop.microbatch)
    tell(
        f"{len(questions.texts):,} texts in {sum(train_part.files):,} groups, {sum(heldout_part.files):,} more held "
        f"out; {batches.form.rows} rows of {batches.form.length} for {loop.microbatch} pairs"
    )
    if eval_fraction and loop.eval_batches and heldout is None:
        tell(
            f"fewer groups are held out than a batch of {loop.microbatch} has, so none are evaluated: give a larger "
            "--eval-fraction and another --folder, or a smaller --batch-size"
        )
    encode = encoder_for(model, tokenizer, [POOLING], Encoding(max_length=recipe.max_length // 2))

    def review(task: SimilarityTask, arrays: RoFormer, step: int) -> dict[str, float]:
        return correlation(partial(encode, arrays), task)

    start = with_pooler(source.model, model, loop.seed)
    data = Data(
        train=batches,
        heldout=lambda share: (heldout.batch(step, share) for step in range(some)) if heldout else (),
        identity={
            "model": fingerprint(start),
            "losses": [dataclasses.asdict(recipe.objective), recipe.corrupted, recipe.dropout, recipe.max_length],
            "questions": [questions.digest, eval_fraction, list(order)],
            "teacher": teacher and teacher.fingerprint,
        },
    )
    about = {"encoder": dataclasses.asdict(model), "tokenizer": tokenizer.fingerprint, "pooling": POOLING}
    if jax.process_index() == 0:
        keep_tokenizer(tokenizer, folder / "tokenizer")
    run = Training(
        program=program, data=data, about=about, start=start, review=partial(review, valid) if valid else None
    )
    return train(run, loop, mesh, folder)


def taught(teacher: SentenceEncoder, questions: Questions, mesh: jax.sharding.Mesh) -> np.ndarray:
    """The teacher's vectors [texts, D], by its own tokenizer and pooling. Tells of texts that it does not know or cuts;
    raises DataError for weights that are no numbers."""
    tell(f"{teacher.where}: its vectors of {len(questions.texts):,} texts")
    pooling, (tokenizer, lost) = teacher.choose("auto"), counting(teacher.text.tokenizer)
    with jax.set_mesh(mesh), progress_bar(0, len(questions.texts), "text") as bar:
        encode = encoder(teacher.text._replace(tokenizer=tokenizer), [pooling], teacher.encoding(Encoding()))
        vectors = all_vectors(teacher.finish(encode, pooling), questions.texts, bar.update)
    lost().report_any(f"{teacher.where}, of the texts")
    check_finite(vectors, 0, f"{teacher.where}, its vectors")
    return vectors


def with_pooler(start: RoFormer, model: RoFormerConfig, seed: int) -> RoFormer:
    """With a new pooler where there is none."""
    if start.pooler is not None:
        return start
    made = jax.jit(partial(init, model))(jax.random.key(seed))
    return replace(start, pooler=jax.tree.map(np.asarray, made.pooler))
