"""Does pretraining on pseudo-summaries help where few examples are at hand?

One small model is pretrained for each objective and seed under one budget (updates, rows, row shape, vocabulary,
recipe), fine-tuned on 10, 100, ... examples of each task, and scored on the task's test part. On the way is measured
whether it looks at its source at all (source_use.py). A cell is one (task, number of examples, objective, seed): its
seed decides the initial weights, the order of the pretraining, the examples drawn and the fine-tuning, so that repeats
are independent; the test part and what chooses the epoch are the same for all.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, TypedDict

import jax
import numpy as np

from pegasus_zh.evaluation import scores
from pegasus_zh.experiments.few_shot_report import NONE, report
from pegasus_zh.experiments.few_shot_tasks import FewShotTask, read_task, share_seen, without_model
from pegasus_zh.experiments.source_use import batches_of, gains, part_from_source, probe, probes_of, source_gain
from pegasus_zh.generation import placed, writer
from pegasus_zh.pretrain import PretrainRecipe, defaults, pretrain_on
from pegasus_zh.rows.makers import ExamplesConfig, pairs_of_documents
from pegasus_zh.rows.packed_rows import PreparedRows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.prepared_set import check_formats
from pegasus_zh.rows.pseudo_summary import SELECTORS
from pegasus_zh.samples import pairs_of
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.load import Start, load
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.tuning import FinetuneRecipe, tune
from pegasus_zh.writing import Writing
from rope.layers.computation import Computation
from training.experiment.cells import experiment, run_cells
from training.experiment.report import shown_settings
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.flags import one_of
from training.mesh import MeshConfig, make_mesh
from training.metrics import read_metrics
from training.partition import Dtype
from training.ranges import check_ranges
from training.telling import silence, tell


class Lengths(TypedDict):
    """Fields that the configs of preparation, fine-tuning and writing share."""

    max_source: int
    max_target: int


class RowLengths(Lengths):
    row_source: int
    row_target: int


LENGTHS = Lengths(max_source=128, max_target=32)  # of the tasks, in ids
BATCH = 32  # examples of an update
PROBED = 96  # pairs of a source gain
POINTS = 20  # of a pretraining's curves, and its checkpoints


@dataclass(frozen=True, kw_only=True)
class FewShotConfig:
    """Compare pretraining objectives by what a model then learns from few examples; the same command goes on."""

    documents: tuple[str, ...]
    """Raw documents to pretrain on, as --data of scripts.pretrain."""
    tasks: tuple[str, ...]
    """A file of pairs for each task: .tsv (reference TAB source), or .csv, .jsonl or .json (source, reference), also
    .gz and .zst."""
    folder: str = "runs/few-shot"
    """Where everything goes; report.html is the result, and few_shot.md, .csv and .png."""
    objectives: tuple[str, ...] = ("lcs", "random", "span-corruption", NONE)
    """Selectors of scripts.prepare, span-corruption, or none; lcs+0.2 keeps a fifth of the sentences in the source too
    (its --kept). The first is compared with each of the others, and these with none."""
    examples: tuple[int, ...] = (10, 100, 1000, 0)
    """Numbers of training examples; 0: all there are."""
    seeds: int = 3
    """Independent repeats."""
    preset: Annotated[str, one_of(mt5.PRESETS)] = "tiny"
    """Shape of the model, and the pretraining's recipe."""
    pretrain_steps: int = 400
    """Updates of each pretraining."""
    batch_size: int | None = None
    """Rows of such an update, each of twice the ids of the longest pair, instead of the preset's."""
    max_source: int = 128
    """Ids of a pretraining's source, at most."""
    max_target: int = 80
    """Ids of its target, at most."""
    characters: float = 0.6
    """Of a text for each of these ids, so that few pairs are cut: what is cut has no end. T5-PEGASUS's 1.5 goes with
    50,000 words."""
    dropout: float | None = None
    """Of pretraining and fine-tuning, instead of the preset's; 0 where no text comes twice."""
    updates: int = 40
    """Updates of each fine-tuning, rounded up to whole epochs."""
    learning_rate: float = 1e-3
    """Of the fine-tuning; T5-PEGASUS's 2e-4 for its own size."""
    test_examples: int = 200
    """Pairs of a task that are scored."""
    valid_examples: int = 100
    """Pairs of a task that choose the epoch."""
    dtype: Dtype = "float32"
    """Of the computation."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        names = ("seeds", "pretrain_steps", "batch_size", "updates", "test_examples", "valid_examples")
        check_ranges(self, **dict.fromkeys(names, 1), learning_rate=0, characters=0.1, dropout=(0, 1))
        for name in ("documents", "tasks", "objectives", "examples"):
            if not (given := getattr(self, name)) or len({*given}) < len(given):
                raise ValueError(f"{name} is {given}: give one or more, each once")
        if min(self.examples) < 0:
            raise ValueError(f"examples is {self.examples}: numbers from 0")
        for objective in self.objectives:
            examples_of(objective, self.max_source, self.max_target, self.characters)


def examples_of(objective: str, max_source: int, max_target: int, characters: float) -> ExamplesConfig | None:
    """What an objective's rows are made by; None of none. Raises DataError for what is no objective."""
    if objective == NONE:
        return None
    name, plus, kept = objective.partition("+")
    known = pairs_of_documents()
    if name not in known:
        raise DataError(f"objectives has {objective!r}: it must be one of {', '.join([*known, NONE])}")
    try:
        share = float(kept) if plus else 0.0
    except ValueError:
        share = np.nan
    if plus and (name not in SELECTORS or not 0 < share <= 1):
        raise DataError(
            f"objectives has {objective!r}: what follows + is the share of a selector's sentences that are kept in the "
            "source, above 0 and at most 1, as in lcs+0.2"
        )
    lengths = RowLengths(
        max_source=max_source, max_target=max_target, row_source=2 * max_source, row_target=2 * max_target
    )
    return ExamplesConfig(selector=name, kept=share, characters=characters, **lengths)


@dataclass(frozen=True)
class Cell:
    """One fine-tuning."""

    task: FewShotTask
    examples: int
    objective: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task.name}-{self.examples}-{self.objective}-{self.seed}"


def few_shot(config: FewShotConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises DataError and ValueError as what it calls."""
    folder, basis = disk_path(config.folder, "--folder"), defaults(config.preset)
    tasks = [read_task(path, config.test_examples, config.valid_examples) for path in config.tasks]
    if len({task.name for task in tasks}) < len(tasks):
        raise DataError(f"{', '.join(config.tasks)}: tasks are told apart by the file's name; rename one")
    lengths = config.max_source, config.max_target, config.characters
    examples = {name: found for name in config.objectives if (found := examples_of(name, *lengths))}
    with experiment(folder, settings_of(config, tasks)):
        check_formats([folder / "data" / objective for objective in examples])
        documents = PrepareConfig(data=config.documents)
        tokenizer = basis.tokens.of(documents, folder / "tokenizer")
        rows = {
            objective: prepare(given, documents, tokenizer, folder / "data" / objective)
            for objective, given in examples.items()
        }
        seen = share_seen(config.documents, tasks, folder / "seen.json")
        notes = [
            f"{task.name}: {len(task.training):,} pairs to train on, {len(task.valid)} to choose by, "
            f"{len(task.test)} to test; {seen[task.name]:.0%} of the test sources stand in the documents"
            for task in tasks
        ]
        tell("\n".join(notes))
        cells = {cell.name: cell for cell in _cells(config, tasks)}
        # The cells of a pretraining follow each other, so that one model is in memory at a time.
        start = lru_cache(1)(partial(begin, config, basis.recipe, rows, tasks, tokenizer))

        def make(cell: Cell) -> dict[str, Any]:
            return run_cell(config, start(cell.objective, cell.seed), cell, folder)

        made = run_cells(folder, cells, make, fits=lambda row: "source_gain" in row)
        curves = {
            (objective, seed): read_metrics(run_folder(config, objective, seed) / "metrics.jsonl")
            for objective, seed in product(examples, range(config.seeds))
        }
        baselines = {task.name: without_model(task) for task in tasks}
        tell(report(folder, made, config.objectives, baselines, curves, notes, shown_settings(config)))
        made.complete()


def settings_of(config: FewShotConfig, tasks: Sequence[FewShotTask]) -> dict[str, Any]:
    """What a folder's cells are made with; further tasks may come."""
    fields = ["preset", "pretrain_steps", "batch_size", "max_source", "max_target", "characters", "dropout"]
    fields += ["updates", "learning_rate", "test_examples", "valid_examples", "dtype"]
    # Of what a task is, whatever its class is called: the folders of earlier versions, which called it Task, go on.
    texts = {f"task {task.name}": "Task" + repr(task).removeprefix(type(task).__name__) for task in tasks}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    return {name: getattr(config, name) for name in fields} | digests


def _cells(config: FewShotConfig, tasks: Sequence[FewShotTask]) -> Iterator[Cell]:
    for task, size in product(tasks, config.examples):
        if size > len(task.training):
            tell(f"{task.name}: no {size:,} examples to train on; left out")
    if min(config.examples, key=lambda n: n or -1) > max(len(task.training) for task in tasks):
        raise DataError(f"examples is {config.examples}: no task has so many to train on; give fewer, or 0 for all")
    for seed, objective, task in product(range(config.seeds), config.objectives, tasks):
        sizes = {size or len(task.training) for size in config.examples}
        yield from (Cell(task, n, objective, seed) for n in sorted(sizes) if n <= len(task.training))


def begin(
    config: FewShotConfig,
    basis: PretrainRecipe,
    rows: Mapping[str, PreparedRows],
    tasks: Sequence[FewShotTask],
    tokenizer: Tokenizer,
    objective: str,
    seed: int,
) -> Start:
    """The pretrained model, or for none the weights that this seed's pretrainings begin with."""
    every = -(-config.pretrain_steps // POINTS)
    loop = replace(
        basis.loop,
        steps=config.pretrain_steps,
        batch_size=config.batch_size or basis.loop.batch_size,
        eval_every=every,
        save_every=every,
        eval_batches=POINTS,
        seed=seed,
    )
    recipe = replace(basis, computation=Computation(dtype=config.dtype), dropout=config.dropout, loop=loop)
    if objective == NONE:
        return Start(None, recipe.model(tokenizer.vocab_size), tokenizer, NONE)
    run, data, mesh = run_folder(config, objective, seed), rows[objective], make_mesh(config.mesh)
    probes = probes_of({task.name: task.valid[:PROBED] for task in tasks}, tokenizer, mesh, **LENGTHS)
    if data.heldout:
        heldout = [(pair["source"], pair["target"]) for pair in islice(pairs_of(data.heldout), PROBED)]
        shape = config.max_source, config.max_target
        probes = {"pseudo-summary": batches_of(heldout, tokenizer, shape, mesh)} | probes
    with silence():
        pretrain_on(recipe, data, data.heldout, mesh, run, review=partial(gains, probes=probes))[0].complete()
        return load(run)


def run_folder(config: FewShotConfig, objective: str, seed: int) -> Path:
    """Of a pretraining."""
    return disk_path(config.folder, "--folder") / "pretrained" / f"{objective}-{seed}"


def run_cell(config: FewShotConfig, start: Start, cell: Cell, folder: Path) -> dict[str, Any]:
    """Fine-tunes on the seed's examples and writes for the test sources greedily: texts, scores, the use of sources."""
    task, tuning = cell.task, folder / "tuning" / cell.name
    drawn = np.random.default_rng(cell.seed).permutation(len(task.training))[: cell.examples]
    epochs = -(-config.updates // -(-cell.examples // BATCH))
    recipe = FinetuneRecipe(
        epochs=epochs,
        eval_epochs=-(-epochs // 3),
        batch_size=BATCH,
        seed=cell.seed,
        computation=Computation(dtype=config.dtype),
        **LENGTHS,
    )
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=config.learning_rate))
    mesh = make_mesh(config.mesh)
    with silence():
        found = tune(recipe, start, [task.training[i] for i in drawn], task.valid, mesh, tuning).complete()
        best = load(tuning / "best")
    with jax.set_mesh(mesh):
        best = placed(best, config.dtype)
        write = writer(best, Writing(batch_size=BATCH, **LENGTHS))
        written = [text for (text,) in write(source for source, _ in task.test)]
        gain = source_gain(best.model, best.config, probe(task.test, best.tokenizer, mesh, **LENGTHS))
    figures = scores([reference for _, reference in task.test], written)
    part = part_from_source(written, [source for source, _ in task.test])
    about = {"task": task.name, "examples": cell.examples, "objective": cell.objective, "seed": cell.seed}
    lists = {name: x.tolist() for name, x in figures.items()}
    shutil.rmtree(tuning)
    use = {"source_gain": gain, "part_from_source": part.tolist()}
    return {**about, "best": found, "scores": lists, **use, "written": written}
