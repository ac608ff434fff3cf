"""Which parts of RoFormer-Sim make its vectors and its questions good? Ways of training x seeds, on labelled pairs.

Texts are held out by their own checksum: a pair is tested on where both of its texts are, is trained on where neither
is, and left out where one is. What is trained on is rid of the further tests' texts too, and groups from elsewhere of
all that is tested on, so no text of the test was ever seen.
"""

import dataclasses
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from pegasus_zh.writing import Writing, write_texts
from retrieval.experiments.question_ablation_report import report
from retrieval.experiments.question_judge import SMALLEST, Judge, Pair, make_judge
from retrieval.experiments.question_ways import WAYS, Budget, Way, train
from retrieval.pairs.same import one_line
from retrieval.similar.ranking import distinct_n
from retrieval.similarity import SimilarityTask, cosines, named, read_task, task_of
from retrieval.texts import read_columns, scored
from retrieval.vectors.encoding import Encoding, all_vectors, encoder
from retrieval.vectors.source import load_alone
from retrieval.vectors.whitening import moments, whiten
from rope.decoding.search import Search
from rope.encoder.prefix_decoder import PrefixDecoder
from training.experiment.cells import digest_of_files, experiment, run_cells
from training.experiment.report import shown_settings
from training.experiment.statistics import estimate_correlations
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.ranges import check_lists, check_ranges
from training.telling import silence, tell


@dataclass(frozen=True, kw_only=True)
class QuestionAblationConfig:
    """Which parts of RoFormer-Sim help? Ways of training x seeds; the same command goes on with what is missing."""

    model: str
    """An encoder that was pretrained: a run of scripts.pretrain_encoder."""
    pairs: tuple[str, ...]
    """NAME=FILE or FILE: a TAB b TAB 1 (alike) or 0; trained on, but for what is held out: that is tested on, and tunes
    a judge who says whether a drawn question means the same."""
    tests: tuple[str, ...] = ()
    """NAME=FILE or FILE: further scored pairs, tested on alone."""
    groups: tuple[str, ...] = ()
    """NAME=FILE or FILE: pairs or groups from elsewhere, as of scripts.make_pairs; RoFormer-Sim is trained on each."""
    ways: tuple[str, ...] = tuple(WAYS)
    """Of those there are."""
    folder: str = "runs/question-ablation"
    """Where everything goes; report.html is the result."""
    seeds: int = 3
    """Runs of each way."""
    steps: int = 400
    """Of each training; a quarter of it where a run is taught further."""
    batch_size: int = 48
    """Pairs of an update."""
    learning_rate: float = 3e-4
    """Of all trainings; SimCSE has a tenth of it."""
    held_out: float = 0.3
    """Share of the texts that are held out."""
    tested: int = 2000
    """Pairs of each file that are tested on, at most."""
    questions: int = 100
    """Held-out texts for which questions are drawn."""
    draws: int = 20
    """Questions drawn of each."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        check_lists(self, pairs=None, ways=WAYS)
        check_ranges(self, seeds=1, steps=4, batch_size=2, learning_rate=0, held_out=(0.01, 1), tested=10)
        check_ranges(self, questions=1, draws=2)
        for name in self.ways:
            for other in filter(None, (WAYS[name].start, WAYS[name].teacher)):
                if other not in self.ways:
                    raise ValueError(f"ways has {name!r} without {other!r}, which it is made of: add that")


class Cell(NamedTuple):
    way: str
    groups: str  # a file of groups; "": the pairs
    seed: int

    @property
    def name(self) -> str:
        groups = f", {named(self.groups)[0]}" if self.groups else ""
        return f"{self.way}{groups} {self.seed}"


class Tested(NamedTuple):
    """What all cells are measured by."""

    tasks: list[SimilarityTask]
    questions: list[str]
    judge: Judge


def question_ablation(config: QuestionAblationConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises DataError and ValueError."""
    _check_names(config)
    folder, source = disk_path(config.folder, "--folder"), load_alone(config.model)
    with experiment(folder, _settings(config, source)):
        trained, tasks, held = split(config, folder / "pairs")
        questions = [text for task in tasks[: len(trained)] for text in task.texts]
        questions = np.random.default_rng(0).permutation(sorted({*questions}))[: config.questions].tolist()
        judge = _judge(config, source, held, folder)
        tested = Tested(tasks, questions, judge)
        cells = {cell.name: cell for cell in _cells(config)}
        fits = lambda row: {"way", "groups", "seed", "spearman"} <= row.keys()  # noqa: E731
        made = run_cells(folder, cells, lambda cell: _run(config, source, trained, tested, cell, folder), fits=fits)
        tell(report(folder, made, [*WAYS], judge.about, shown_settings(config)))
        made.complete()


def _check_names(config: QuestionAblationConfig) -> None:
    """Raises DataError where two files of a kind have one name, or one that no file can have."""
    for kind, given in (("pairs and tests", config.pairs + config.tests), ("groups", config.groups)):
        names = [named(one)[0] for one in given]
        if len({*names}) < len(names):
            raise DataError(f"{kind} {', '.join(names)}: they are told apart by name; write NAME=… for some")
        if wrong := [name for name in names if not re.fullmatch(r"[^./\\][^/\\]*", name)]:
            raise DataError(f"{kind}: {wrong[0]!r} is no name of a file; write NAME=… for it")


def _judge(config: QuestionAblationConfig, source: TextEncoder, held: Sequence[Pair], folder: Path) -> Judge:
    labels = {label for *_, label in held}
    if labels != {0, 1} or len(held) < SMALLEST:
        raise DataError(
            f"{', '.join(config.pairs)}: {len(held):,} pairs are held out, of labels {sorted(labels)}; a judge needs "
            f"{SMALLEST} of 0 and 1: give more pairs, or a larger --held-out"
        )
    return make_judge(
        held,
        source,
        make_mesh(config.mesh),
        folder / "runs" / "judge",
        steps=2 * config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )


def _settings(config: QuestionAblationConfig, source: TextEncoder) -> dict[str, Any]:
    """What a folder's cells are made with; further ways, seeds and groups may come."""
    later = ("folder", "ways", "seeds", "mesh", "groups", "model")
    kept = {name: value for name, value in dataclasses.asdict(config).items() if name not in later}
    files = {f"pairs {name}": path for name, path in map(named, config.pairs)}
    files |= {f"groups {name}": path for name, path in map(named, config.groups)}
    files |= {f"tests {path}": path for given in config.tests for path in named(given)[1].split(",")}
    return kept | {"encoder": source.fingerprint} | {name: digest_of_files([path]) for name, path in files.items()}


class Split(NamedTuple):
    trained: list[str]  # files of pairs
    tasks: list[SimilarityTask]  # what is held out of each, at most as much as is tested, and the further tests
    held: list[Pair]  # all that is held out


def split(config: QuestionAblationConfig, folder: Path) -> Split:
    """The pairs by whether their texts are held out, as files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    trained, held_out, tasks = list[str](), list[Pair](), list[SimilarityTask]()
    further = [task_of(given) for given in config.tests]
    seen = _texts(further)
    for given in config.pairs:
        name, path = named(given)
        parts: dict[str, list[Pair]] = {"train": [], "test": []}
        count = 0
        for row in read_columns(path):
            *texts, label = scored(row)
            a, b = (one_line(text) for text in texts)  # a line each, as they are written
            held = [_held_out(text, config.held_out) for text in (a, b)]
            count += 1
            if held[0] == held[1] and (held[0] or not {a, b} & seen):
                parts["test" if held[0] else "train"].append((a, b, label))
        held_out += parts["test"]
        order = np.random.default_rng(0).permutation(len(parts["test"]))[: config.tested]
        parts["test"] = [parts["test"][i] for i in sorted(order)]
        for part, rows in parts.items():
            text = "".join(f"{a}\t{b}\t{label:g}\n" for a, b, label in rows)
            (folder / f"{name}.{part}.tsv").write_text(text, encoding="utf-8")
        tell(f"{name}: {len(parts['train']):,} of {count:,} pairs trained on, {len(parts['test']):,} tested on")
        trained.append(str(folder / f"{name}.train.tsv"))
        tasks.append(read_task(name, [str(folder / f"{name}.test.tsv")]))
    return Split(trained, tasks + further, held_out)


def _texts(tasks: Sequence[SimilarityTask]) -> set[str]:
    return {one_line(text) for task in tasks for text in task.texts}


def _held_out(text: str, share: float) -> bool:
    return zlib.crc32(text.strip().encode()) < share * 2**32


def _cells(config: QuestionAblationConfig) -> Iterator[Cell]:
    for name in config.ways:
        seeds = config.seeds if WAYS[name].trains else 1  # else nothing is drawn at random
        yield from (Cell(name, "", seed) for seed in range(seeds))
    for groups, seed in product(config.groups, range(config.seeds)):
        yield Cell("roformer-sim", groups, seed)


def _run(
    config: QuestionAblationConfig,
    source: TextEncoder,
    trained: Sequence[str],
    tested: Tested,
    cell: Cell,
    folder: Path,
) -> dict[str, Any]:
    """A cell's figures; it is trained in a folder of its own, of which others of the same seed begin."""
    way, mesh, runs = WAYS[cell.way], make_mesh(config.mesh), folder / "runs"
    files = [named(cell.groups)[1]] if cell.groups else trained
    other = lambda name: load_text_encoder(runs / f"{name} {cell.seed}")  # noqa: E731
    budget = Budget(config.steps, config.batch_size, config.learning_rate)
    unseen = _texts(tested.tasks)
    made = train(way, source, files, not cell.groups, unseen, other, budget, cell.seed, mesh, runs / cell.name)
    about: dict[str, Any] = {"way": cell.way, "groups": named(cell.groups)[0] if cell.groups else ""}
    with jax.set_mesh(mesh):
        about |= {"seed": cell.seed, "spearman": _correlations(made, way, tested.tasks)}
        if way.writes:
            about |= {"drawn": _drawn(config, made, tested, cell.seed)}
    return about


def _correlations(made: TextEncoder, way: Way, tasks: Sequence[SimilarityTask]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    encode = encoder(made, [way.pooling], Encoding())
    for task in tasks:
        vectors = all_vectors(encode, task.texts)
        if way.whitened:
            with silence():
                vectors = whiten(moments([vectors]), None)(vectors)
        scores = [(split.scores, cosines(vectors, split)) for split in task.splits]
        found[task.name] = estimate_correlations(scores)[-1]._asdict()
    return found


def _drawn(config: QuestionAblationConfig, made: TextEncoder, tested: Tested, seed: int) -> dict[str, Any]:
    """What is drawn of the held-out questions: shares of copies and other meanings, distinct-2, and the first ten's."""
    search = Search(temperature=1.0, top_p=0.95, answers=config.draws)
    writing = Writing(max_source=64, max_target=64, batch_size=8, seed=seed, search=search)
    decoder = PrefixDecoder(made.config)
    drawn = list(write_texts(made.model, decoder, made.tokenizer, writing, tested.questions))
    pairs = [(text, found) for text, several in zip(tested.questions, drawn, strict=True) for found in several]
    copies = np.array([_bare(text) == _bare(found) or not found for text, found in pairs])
    figures: dict[str, Any] = {
        "copies": float(copies.mean()),
        "distinct_2": distinct_n([found for _, found in pairs], 2),
        "unique": float(np.mean([len({*several}) / len(several) for several in drawn])),
        "shown": [[text, several] for text, several in zip(tested.questions[:10], drawn[:10], strict=True)],
    }
    alike = tested.judge.alike([text for text, _ in pairs], [found or "空" for _, found in pairs])
    return figures | {"other": float((~alike & ~copies).mean()), "good": float((alike & ~copies).mean())}


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))
