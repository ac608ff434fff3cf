"""Does pretraining on pseudo-summaries help where few examples are at hand?

One small model is pretrained for each objective and seed under one budget
(updates, rows, row shape, vocabulary, recipe), fine-tuned on 10, 100, ... examples of each task, and scored on the
task's test part. A cell is one (task, number of examples, objective, seed): its seed decides the initial weights, the
order of the pretraining, the examples drawn and the fine-tuning, so that repeats are independent; the test part and
what chooses the epoch are the same for all.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypedDict

import jax
import numpy as np

from pegasus_zh.evaluation import scores
from pegasus_zh.experiments.few_shot_report import report
from pegasus_zh.finetune import read_whole_pairs
from pegasus_zh.generation import placed, writer
from pegasus_zh.pretrain import PretrainRecipe, defaults, pretrain_on
from pegasus_zh.rows.makers import ExamplesConfig, pairs_of_documents
from pegasus_zh.rows.packed_rows import PreparedRows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.prepared_set import check_formats
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.load import Start, load
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.tuning import FinetuneRecipe, tune
from pegasus_zh.writing import Writing
from rope.layers.computation import Computation
from training.experiment.cells import experiment, run_cells
from training.experiment.report import shown_settings
from training.files.atomic import read_json, write_json
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.flags import one_of
from training.mesh import MeshConfig, make_mesh
from training.partition import Dtype
from training.ranges import check_ranges
from training.telling import silence, tell

NONE = "none"  # the objective of a model that is not pretrained


class Lengths(TypedDict):
    """Fields that the configs of preparation, fine-tuning and writing share."""

    max_source: int
    max_target: int


class RowLengths(Lengths):
    row_source: int
    row_target: int


PAIRS = RowLengths(max_source=128, max_target=48, row_source=256, row_target=96)  # of the pretraining
LENGTHS = Lengths(max_source=128, max_target=32)  # of the tasks
BATCH = 32  # examples of an update
SEEN = 40  # characters of a source by which it is looked for in the documents

Pairs = list[tuple[str, str]]


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
    """Selectors of scripts.prepare, span-corruption, or none; the first is compared with each of the others."""
    examples: tuple[int, ...] = (10, 100, 1000, 0)
    """Numbers of training examples; 0: all there are."""
    seeds: int = 3
    """Independent repeats."""
    preset: Annotated[str, one_of(mt5.PRESETS)] = "tiny"
    """Shape of the model, and the pretraining's recipe."""
    pretrain_steps: int = 400
    """Updates of each pretraining."""
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
        names = ("seeds", "pretrain_steps", "updates", "test_examples", "valid_examples")
        check_ranges(self, **dict.fromkeys(names, 1), learning_rate=0)
        for name in ("documents", "tasks", "objectives", "examples"):
            if not (given := getattr(self, name)) or len({*given}) < len(given):
                raise ValueError(f"{name} is {given}: give one or more, each once")
        if min(self.examples) < 0:
            raise ValueError(f"examples is {self.examples}: numbers from 0")
        known = [*pairs_of_documents(), NONE]
        if wrong := [name for name in self.objectives if name not in known]:
            raise DataError(f"objectives has {wrong[0]!r}: it must be one of {', '.join(known)}")


@dataclass(frozen=True)
class FewShotTask:
    """A task's pairs, each source in one part alone."""

    name: str
    test: Pairs
    valid: Pairs
    training: Pairs


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
    tasks = [read_task(path, config) for path in config.tasks]
    if len({task.name for task in tasks}) < len(tasks):
        raise DataError(f"{', '.join(config.tasks)}: tasks are told apart by the file's name; rename one")
    examples = {
        objective: ExamplesConfig(selector=objective, **PAIRS) for objective in config.objectives if objective != NONE
    }
    with experiment(folder, settings_of(config, tasks)):
        check_formats([folder / "data" / objective for objective in examples])
        documents = PrepareConfig(data=config.documents, eval_fraction=0)
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
        start = lru_cache(1)(partial(begin, config, basis.recipe, rows, tokenizer))

        def make(cell: Cell) -> dict[str, Any]:
            return run_cell(config, start(cell.objective, cell.seed), cell, folder)

        made, baseline = run_cells(folder, cells, make), {task.name: copied(task) for task in tasks}
        tell(report(folder, made, config.objectives, baseline, notes, shown_settings(config)))
        made.complete()


def read_task(path: str, config: FewShotConfig) -> FewShotTask:
    """The pairs of a file in three parts, by a hash of the source: no seed and no order of the file changes them.
    Raises DataError for a file that cannot be read, and for too few pairs."""
    pairs = dict(read_whole_pairs(path))  # by source: one that comes twice is in one part
    ranked = sorted(pairs.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    held = config.test_examples + config.valid_examples
    if len(ranked) <= held:
        raise DataError(
            f"{path}: {len(ranked)} pairs of different sources, and {held} of them are to test and to choose by; "
            "give more pairs, or fewer --test-examples and --valid-examples"
        )
    name = Path(path).name.split(".")[0]
    return FewShotTask(name, ranked[: config.test_examples], ranked[config.test_examples : held], ranked[held:])


def settings_of(config: FewShotConfig, tasks: Sequence[FewShotTask]) -> dict[str, Any]:
    """What a folder's cells are made with; further tasks may come."""
    fields = ("preset", "pretrain_steps", "updates", "learning_rate", "test_examples", "valid_examples", "dtype")
    # Of what a task is, whatever its class is called: the folders of earlier versions, which called it Task, go on.
    texts = {f"task {task.name}": "Task" + repr(task).removeprefix(type(task).__name__) for task in tasks}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    return {name: getattr(config, name) for name in fields} | digests


def share_seen(documents: Sequence[str], tasks: Sequence[FewShotTask], path: Path) -> dict[str, float]:
    """The share of each task's test sources that stand in the documents, by their first characters; kept in `path`."""
    found = read_json(path, "delete it") if path.exists() else {}
    new = {task.name: [_dense(source)[:SEEN] for source, _ in task.test] for task in tasks if task.name not in found}
    if wanted := {begin for begins in new.values() for begin in begins}:
        seen = set()
        for text in map(_dense, read_documents(documents)):
            seen |= {begin for begin in wanted if begin in text}
        found |= {name: float(np.mean([begin in seen for begin in begins])) for name, begins in new.items()}
        write_json(path, found)
    return found


def _dense(text: str) -> str:
    return "".join(text.split())


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
    tokenizer: Tokenizer,
    objective: str,
    seed: int,
) -> Start:
    """The pretrained model, or for none the weights that this seed's pretrainings begin with."""
    recipe = replace(
        basis,
        computation=Computation(dtype=config.dtype),
        loop=replace(basis.loop, steps=config.pretrain_steps, save_every=1000, seed=seed),
    )
    if objective == NONE:
        return Start(None, recipe.model(tokenizer.vocab_size), tokenizer, NONE)
    run, data = disk_path(config.folder, "--folder") / "pretrained" / f"{objective}-{seed}", rows[objective]
    with silence():
        pretrain_on(recipe, data, data.heldout, make_mesh(config.mesh), run)[0].complete()
        return load(run)


def run_cell(config: FewShotConfig, start: Start, cell: Cell, folder: Path) -> dict[str, Any]:
    """Fine-tunes on the seed's examples and writes for the test sources greedily: texts and scores."""
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
        write = writer(placed(best, config.dtype), Writing(batch_size=BATCH, **LENGTHS))
        written = [text for (text,) in write(source for source, _ in task.test)]
    figures = scores([reference for _, reference in task.test], written)
    about = {"task": task.name, "examples": cell.examples, "objective": cell.objective, "seed": cell.seed}
    lists = {name: x.tolist() for name, x in figures.items()}
    shutil.rmtree(tuning)
    return {**about, "best": found, "scores": lists, "written": written}


def copied(task: FewShotTask) -> float:
    """The Rouge-L of copying: each test source's first characters,
    as many as the median reference of the training has."""
    length = int(np.median([len(reference) for _, reference in task.training]))
    found = scores([reference for _, reference in task.test], [source[:length] for source, _ in task.test])
    return float(found["rouge-l"].mean())
