"""Which ways of matching anonymised texts are good? Ways x folds x seeds, on readable labelled pairs that are turned
into numbers, so that the plain text itself is the ceiling."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.experiments.matching_report import report
from retrieval.experiments.matching_ways import DRAWN, KEPT, OVERLAP, PLAIN, RANDOM, WAYS, Way
from retrieval.matching.alignment.table import read_key, right
from retrieval.matching.alphabet import count_numbers, make_alphabet
from retrieval.matching.commands.align import AlignConfig, aligned
from retrieval.matching.commands.anonymise import AnonymiseConfig, anonymise
from retrieval.matching.matcher import Matcher, load_matcher
from retrieval.matching.pairs import Pair, Reader, Wanted, anonymised_texts, read_pairs, unordered
from retrieval.matching.predict import probabilities, scorer, written
from retrieval.matching.score import auc
from retrieval.matching.start import beginning_to_match, reading_numbers
from retrieval.matching.train import Fold, MatchingRecipe, train_matcher
from retrieval.texts import all_texts
from retrieval.vectors.source import load_alone
from rope.encoder.roformer import init
from training.experiment.cells import digest_of_files, experiment, run_cells
from training.experiment.report import shown_settings
from training.files.atomic import read_json
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.metrics import read_metrics
from training.optimizer import OptimizerConfig
from training.ranges import check_lists, check_ranges
from training.telling import silence, tell

MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class MatchingAblationConfig:
    """What makes a matcher of anonymised texts good? The same command goes on with what is missing."""

    model: str
    """An encoder of plain text that was pretrained: a run of scripts.pretrain_encoder."""
    pairs: str
    """Readable pairs, text TAB text TAB 0 or 1, which are anonymised, and matched in folds."""
    texts: tuple[str, ...]
    """Readable texts of the same kind, which are anonymised with them, and have no label."""
    plain: tuple[str, ...]
    """Plain texts, of a kind that may be had, of which alignments are made."""
    taught: str = ""
    """Labelled pairs of plain text, for the ways whose encoder has learned to match before."""
    ways: tuple[str, ...] = tuple(WAYS)
    """Of those there are."""
    folder: str = "runs/matching-ablation"
    """Where everything goes; report.html is the result."""
    folds: int = 5
    """Parts of the pairs, each held out in turn."""
    seeds: int = 3
    """Runs of a way, at most; those that few hang on have one."""
    epochs: float = 4
    """Passes of a training over its pairs."""
    pretraining: float = 2
    """Passes over all anonymised texts, for the ways that are pretrained."""
    teaching: float = 1
    """Passes over the plain pairs, for the ways that are taught."""
    batch_size: int = 64
    """Pairs of an update."""
    learning_rate: float = 5e-4
    """Of all trainings."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""
    field: str = "text"  # last, as it hides what makes the one before
    """The field or column with a plain text."""

    def __post_init__(self):
        check_lists(self, ways=WAYS, texts=None, plain=None)
        check_ranges(self, folds=2, seeds=1, batch_size=2, learning_rate=0, epochs=0, pretraining=0, teaching=0)
        for name in self.ways:
            for other in {*WAYS[name].needs} - {*self.ways}:
                raise ValueError(f"ways has {name!r} without {other!r}, which it is made of: add that")
            if WAYS[name].average > self.epochs:
                more = f"give --epochs {WAYS[name].average} or more, or other --ways"
                raise ValueError(
                    f"epochs is {self.epochs:g}: {name!r} is the mean of {WAYS[name].average} passes; {more}"
                )
            if WAYS[name].members and self.seeds < 2:
                raise ValueError(f"seeds is {self.seeds}: {name!r} is the mean of several; give more, or other --ways")
            if WAYS[name].taught and not self.taught:
                raise ValueError(f"ways has {name!r}, whose encoder is taught: give --taught, or other --ways")


class Cell(NamedTuple):
    way: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.way}, fold {self.fold}, {self.seed}"


def matching_ablation(config: MatchingAblationConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises DataError and ValueError."""
    ablation = Ablation(config)
    ablation.check()
    with experiment(ablation.folder, ablation.settings()):
        cells = {cell.name: cell for cell in _cells(config)}
        made = run_cells(ablation.folder, cells, ablation.run, fits=ablation.fits)
        tell(report(ablation.folder, made, WAYS, ablation.labels(), shown_settings(config), ablation.notes()))
        made.complete()


def _cells(config: MatchingAblationConfig) -> Iterator[Cell]:
    """All ways with their first seed, then the further seeds; what others are made of comes before them, as in WAYS."""
    names = [name for name in WAYS if name in config.ways]
    pooled = [name for name in names if WAYS[name].members]
    for seed in range(config.seeds):
        for name in names:
            if name not in pooled and seed < WAYS[name].seeds:
                yield from (Cell(name, fold, seed) for fold in range(config.folds))
    for name in pooled:
        yield from (Cell(name, fold, 0) for fold in range(config.folds))


class Texts(NamedTuple):
    """As ids, of the plain encoder or of the alphabet."""

    pairs: list[Pair]  # labelled
    alone: list[Pair]  # without label


class Aligned(NamedTuple):
    """What numbers may be."""

    alphabet: PegasusTokenizer
    shares: np.ndarray  # float32 [n, m]
    right: float | None  # share of the text


class Ablation:
    """How cells are made, and what they have in common; each of that is made once."""

    def __init__(self, config: MatchingAblationConfig):
        self.config, self.folder, self.mesh = config, disk_path(config.folder, "--folder"), make_mesh(config.mesh)
        self.source = load_alone(config.model)
        self.read, self.align = cache(self._read), cache(self._align)

    def check(self) -> None:
        """What cannot be read or told of is said before anything is made. Raises DataError."""
        next(all_texts(self.config.plain, self.config.field))
        if one := [n for n, found in enumerate(self.labels()) if {*found.tolist()} != {0, 1}]:
            raise DataError(
                f"{self.config.pairs}: fold {one[0]} has not both labels; shuffle the rows, or give other --folds"
            )
        taught = map(unordered, self.plain_pairs() if self.config.taught else ())
        if both := len({*taught} & {*map(unordered, self.read(True).pairs)}):
            raise DataError(f"{self.config.taught}: {both:,} pairs of it are in {self.config.pairs}, too; remove them")

    def labels(self) -> list[np.ndarray]:
        """Of the pairs of each fold."""
        labels = np.array([pair.label for pair in self.read(True).pairs])
        return [labels[n :: self.config.folds] for n in range(self.config.folds)]

    def plain_pairs(self) -> list[Pair]:
        """Those that an encoder is taught by."""
        return read_pairs([self.config.taught], Reader(self.source.tokenizer), Wanted(False, labels=True))

    def settings(self) -> dict[str, Any]:
        """What the cells are made with; further ways and seeds may come."""
        config = self.config
        files = {"pairs": [config.pairs], "texts": config.texts, "plain": config.plain}
        files |= {"taught": [config.taught]} if config.taught else {}
        kept = ("folds", "epochs", "pretraining", "teaching", "batch_size", "learning_rate", "field")
        about = {name: getattr(config, name) for name in kept} | {"encoder": self.source.fingerprint}
        return about | {name: digest_of_files(paths) for name, paths in files.items()}

    def _read(self, plain: bool) -> Texts:
        reader = Reader(self.source.tokenizer if plain else self.align("").alphabet)
        pairs, *texts = (self.config.pairs, *self.config.texts) if plain else self.anonymise()
        labelled = read_pairs([pairs], reader, Wanted(not plain, labels=True))
        return Texts(labelled, read_pairs(texts, reader, Wanted(not plain, labels=False, single=True)))

    def anonymise(self) -> list[str]:
        """Files in numbers: the pairs, and the texts."""
        given, folder = (self.config.pairs, *self.config.texts), self.folder / "anonymised"
        if not (folder / "key.tsv").is_file():  # the last that is written
            with silence():
                anonymise(AnonymiseConfig(data=given, folder=str(folder)))
        return [str(folder / f"{Path(path).name.split('.')[0]}.tsv") for path in given]

    def _align(self, method: str) -> Aligned:
        """By a method; "" by none."""
        texts = [*anonymised_texts(self.anonymise())]
        counts = count_numbers(texts)
        alphabet = make_alphabet(counts)
        if not method:
            return Aligned(alphabet, np.zeros((1, 1), np.float32), None)
        path = str(self.folder / "anonymised" / "key.tsv")
        config = AlignConfig(
            model=self.config.model,
            data=tuple(self.anonymise()),
            folder=str(self.folder),
            plain=self.config.plain,
            field=self.config.field,
            method=method,
            key=path,
        )
        found = aligned(config, self.source, texts, alphabet, read_key(path))
        weights = np.array([counts[number] for number in found.numbers], np.float64)
        return Aligned(alphabet, found.shares, right(found, weights, read_key(path)).text)

    def begin(self, way: Way) -> TextEncoder:
        """The encoder that a way begins with, before its own pretraining."""
        source = self.teach() if way.taught else beginning_to_match(self.source)
        if way.start == PLAIN:
            return source
        drawn = way.start in (RANDOM, DRAWN)
        alphabet, shares, _ = self.align("" if drawn else way.start)
        found = reading_numbers(source, alphabet, shares, drawn=drawn)
        if way.start == RANDOM:
            model = jax.device_get(jax.jit(partial(init, found.config))(jax.random.key(0)))
            found = beginning_to_match(found._replace(model=model))
        return found

    def teach(self) -> TextEncoder:
        """The encoder that has learned to match plain pairs."""
        recipe, run = self.recipe(0, self.config.teaching), self.folder / "taught"
        pairs = self.plain_pairs()
        with silence():
            train_matcher(recipe, beginning_to_match(self.source), pairs, [], None, self.mesh, run).complete()
        return load_text_encoder(run)

    def pretrain(self, way: Way, cell: Cell) -> TextEncoder:
        """The encoder that a way begins with, after hidden tokens of all texts were guessed, the held-out ones' too."""
        texts, run = self.read(way.start == PLAIN), self.folder / "pretrained" / f"{cell.way} {cell.seed}"
        nameless = [pair._replace(label=float("nan")) for pair in texts.pairs]
        recipe = self.recipe(cell.seed, self.config.pretraining, **dict(way.changes) | {"masks": "spans"})
        with silence():
            train_matcher(recipe, self.begin(way), [], nameless + texts.alone, None, self.mesh, run).complete()
        return load_text_encoder(run)

    def recipe(self, seed: int, epochs: float, **changes: Any) -> MatchingRecipe:
        rate, size = self.config.learning_rate, self.config.batch_size
        optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0, warmup=50, clip=0, epsilon=1e-7)
        given: dict[str, Any] = {"average": KEPT, "masks": None, "optimizer": optimizer} | changes
        return MatchingRecipe(epochs=epochs, eval_epochs=min(1, epochs), batch_size=size, seed=seed, **given)

    def run(self, cell: Cell) -> dict[str, Any]:
        """A cell's figures: scores of the pairs of its fold, in order, and the AUC by update."""
        way, begin, fold = WAYS[cell.way], time.perf_counter(), Fold(cell.fold, self.config.folds)
        held = [pair for n, pair in enumerate(self.read(way.start == PLAIN).pairs) if fold.holds(n)]
        about = cell._asdict() | {"curve": [], "members": self._members(cell)}
        if way.start not in (RANDOM, DRAWN, PLAIN):
            about |= {"aligned": self.align(way.start).right}
        if cell.way == OVERLAP:
            scores = overlaps(held)
        elif way.trains:
            run = self._train(way, cell, fold, held)
            rows = read_metrics(run / "metrics.jsonl")
            about["curve"] = [[row["step"], row["eval_auc"]] for row in rows if "eval_auc" in row]
            scores = self._scored(load_matcher(run), held)
        elif way.of:
            if about["members"] == MISSING:
                raise DataError(f"made of the cell {cell._replace(way=way.of).name!r}, which is missing")
            run = self.folder / "runs" / cell._replace(way=way.of).name
            scores = self._scored(load_matcher(run, way.average), held, way.both_orders)
        elif way.members:
            scores = self._pooled(cell)
        else:
            reading = self.recipe(cell.seed, self.config.epochs, **way.changes).reading
            scores = self._scored(Matcher(self.begin(way), reading), held)
        kept = [float(written(x)) for x in scores.tolist()]
        area = auc(np.array(kept), np.array([pair.label for pair in held]))
        return about | {"auc": area, "seconds": time.perf_counter() - begin, "scores": kept}

    def _scored(self, matcher: Matcher, pairs: list[Pair], both_orders: bool = False) -> np.ndarray:
        with jax.set_mesh(self.mesh):
            return probabilities(scorer(matcher, both_orders)(pairs))

    def _train(self, way: Way, cell: Cell, fold: Fold, held: list[Pair]) -> Path:
        name = f"{cell.name}, {self._members(cell)}" if way.pupil else cell.name
        run, (labelled, texts) = self.folder / "runs" / name, self.read(way.start == PLAIN)
        source = self.pretrain(way, cell) if way.pretrained else self.begin(way)
        more = list[Pair]()
        if way.unlabelled:
            order = np.random.default_rng([cell.seed, 2]).permutation(len(texts))
            more = [texts[n] for n in order[: len(labelled)]]
        if way.pupil:
            more = [pair._replace(label=p) for pair, p in zip(held, self._pooled(cell).tolist(), strict=True)]
        recipe = self.recipe(cell.seed, self.config.epochs, **way.changes)
        with silence():
            train_matcher(recipe, source, labelled, more, fold, self.mesh, run).complete()
        return run

    def _of(self, cell: Cell) -> list[Path]:
        """The cells that a cell is made of: of the same seed that of `of`, of all seeds those of `members`."""
        way = WAYS[cell.way]
        seeds = range(min(WAYS[way.members].seeds, self.config.seeds)) if way.members else ()
        names = [cell._replace(way=way.members, seed=seed).name for seed in seeds]
        names += [cell._replace(way=way.of).name] if way.of else []
        return [self.folder / "cells" / f"{name}.json" for name in names]

    def _pooled(self, cell: Cell) -> np.ndarray:
        """The mean probability of a way's seeds for the pairs of the cell's fold."""
        return np.mean([read_json(path)["scores"] for path in self._of(cell)], 0)

    def _members(self, cell: Cell) -> str:
        """Which they are; one that is missing, or made anew, makes another."""
        found = self._of(cell)
        return digest_of_files(found) if all(path.is_file() for path in found) else MISSING

    def fits(self, row: dict[str, Any]) -> bool:
        """Is a cell that is there made of what is there?"""
        return row.get("members") == self._members(Cell(row["way"], row["fold"], row["seed"]))

    def notes(self) -> list[str]:
        """What of the pairs may make figures better than they would be elsewhere."""
        pairs = self.read(True).pairs
        folds: dict[frozenset[bytes], set[int]] = {}
        for n, pair in enumerate(pairs):
            folds.setdefault(unordered(pair), set()).add(n % self.config.folds)
        twice = sum(len(folds[unordered(pair)]) > 1 for pair in pairs)
        return [
            f"{twice:,} of {len(pairs):,} pairs are in more than one fold.",
            "The texts of held-out pairs are seen, without their labels, by alignments, and where a way is pretrained "
            "or guesses hidden tokens.",
        ]


def overlaps(pairs: list[Pair]) -> np.ndarray:
    """Of each pair, of all different ids of both texts the share that both have (Jaccard)."""
    sets = (({*pair.a.tolist()}, {*pair.b.tolist()}) for pair in pairs)
    return np.array([len(a & b) / len(a | b) for a, b in sets])
