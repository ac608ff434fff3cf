"""Which ways of matching anonymised texts are good? Ways x folds x seeds, on readable labelled pairs that are turned
into numbers, so that the plain text itself is the ceiling."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.experiments.matching_report import report
from retrieval.experiments.matching_ways import DRAWN, KEPT, OVERLAP, PLAIN, RANDOM, WAYS, Way
from retrieval.matching.alphabet import count_numbers, make_alphabet
from retrieval.matching.commands.align import AlignConfig, align
from retrieval.matching.commands.anonymise import AnonymiseConfig, anonymise
from retrieval.matching.pairs import Pair, Reader, Wanted, anonymised_texts, read_pairs
from retrieval.matching.predict import Matcher, load_matcher, probabilities, scorer
from retrieval.matching.score import auc
from retrieval.matching.start import beginning_to_match, reading_numbers
from retrieval.matching.train import Fold, MatchingRecipe, train_matcher
from retrieval.vectors.source import load_alone
from rope.encoder.roformer import init
from training.experiment.cells import experiment, run_cells
from training.experiment.report import shown_settings
from training.files.atomic import read_json
from training.mesh import MeshConfig, make_mesh
from training.metrics import read_metrics
from training.optimizer import OptimizerConfig
from training.ranges import check_lists, check_ranges
from training.telling import silence, tell


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

    def __post_init__(self):
        check_lists(self, ways=WAYS, texts=None, plain=None)
        check_ranges(self, folds=2, seeds=1, batch_size=2, learning_rate=0, epochs=0, pretraining=0, teaching=0)
        for name in self.ways:
            for other in {*WAYS[name].needs} - {*self.ways}:
                raise ValueError(f"ways has {name!r} without {other!r}, which it is made of: add that")
            if WAYS[name].average > self.epochs:
                raise ValueError(f"epochs is {self.epochs:g}: {name!r} is the mean of {WAYS[name].average} passes")
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
    house = House(config)
    with experiment(house.folder, house.settings):
        cells = {cell.name: cell for cell in _cells(config)}
        made = run_cells(house.folder, cells, house.cell)
        labels = np.array([pair.label for pair in house.pairs(PLAIN)])
        folds = [labels[n :: config.folds] for n in range(config.folds)]
        tell(report(house.folder, made, WAYS, folds, shown_settings(config)))
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


class House:
    """What the cells have in common: the texts in numbers, and the encoders that are begun with, each made once."""

    def __init__(self, config: MatchingAblationConfig):
        self.config, self.folder, self.mesh = config, Path(config.folder), make_mesh(config.mesh)
        self.source = load_alone(config.model)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the cells are made with; further ways and seeds may come."""
        config = self.config
        files = {"pairs": [config.pairs], "texts": config.texts, "plain": config.plain}
        files |= {"taught": [config.taught]} if config.taught else {}
        kept = ("folds", "epochs", "pretraining", "teaching", "batch_size", "learning_rate")
        return {
            **{name: getattr(config, name) for name in kept},
            "encoder": self.source.fingerprint,
            **{name: _digest(paths) for name, paths in files.items()},
        }

    @cached_property
    def anonymised(self) -> list[str]:
        """Files in numbers: the pairs, and the texts."""
        given, folder = (self.config.pairs, *self.config.texts), self.folder / "anonymised"
        if not (folder / "key.tsv").is_file():  # the last that is written
            with silence():
                anonymise(AnonymiseConfig(data=given, folder=str(folder)))
        return [str(folder / f"{Path(path).name.split('.')[0]}.tsv") for path in given]

    def recipe(self, seed: int, epochs: float, **changes: Any) -> MatchingRecipe:
        optimizer = OptimizerConfig(
            learning_rate=self.config.learning_rate, weight_decay=0, warmup=50, clip=0, epsilon=1e-7
        )
        given: dict[str, Any] = {"average": KEPT, "shared": True, "masks": None, "optimizer": optimizer} | changes
        size = self.config.batch_size
        return MatchingRecipe(epochs=epochs, eval_epochs=min(1, epochs), batch_size=size, seed=seed, **given)

    def begun(self, way: Way) -> TextEncoder:
        """The encoder that a way begins with, before its own pretraining."""
        found = self._aligned(way)
        return found if way.taught else beginning_to_match(found)

    def _aligned(self, way: Way) -> TextEncoder:
        source = self.taught if way.taught else self.source
        if way.start == PLAIN:
            return source
        if way.start in (RANDOM, DRAWN):
            alphabet = make_alphabet(count_numbers(anonymised_texts(self.anonymised)))
            found = reading_numbers(source, alphabet, np.zeros((1, 1), np.float32), drawn=True)
            if way.start == DRAWN:
                return found
            return found._replace(model=jax.device_get(jax.jit(partial(init, found.config))(jax.random.key(0))))
        folder = self.folder / "aligned" / f"{way.start}{', taught' * way.taught}"
        if not folder.is_dir():
            with silence():
                align(self._alignment(way, folder))
        return load_alone(str(folder))

    def _alignment(self, way: Way, folder: Path) -> AlignConfig:
        return AlignConfig(
            model=str(self.folder / "taught") if way.taught else self.config.model,
            data=tuple(self.anonymised),
            folder=str(folder),
            plain=self.config.plain,
            method=way.start,
            key=str(self.folder / "anonymised" / "key.tsv"),
        )

    @cached_property
    def taught(self) -> TextEncoder:
        """The encoder that has learned to match plain pairs."""
        recipe, run = self.recipe(0, self.config.teaching), self.folder / "taught"
        pairs = read_pairs([self.config.taught], Reader(self.source.tokenizer), Wanted(False, labels=True))
        with silence():
            train_matcher(recipe, beginning_to_match(self.source), pairs, [], None, self.mesh, run).complete()
        return load_text_encoder(run)

    def pretrained(self, way: Way, seed: int) -> TextEncoder:
        """The encoder that a way begins with, after hidden tokens of all its texts were guessed."""
        source = self.begun(way)
        run = self.folder / "pretrained" / f"{way.start}{', taught' * way.taught} {seed}"
        texts = [pair._replace(label=float("nan")) for pair in self.pairs(way.start)] + self.texts(way.start)
        recipe = self.recipe(seed, self.config.pretraining, masks="spans")
        with silence():
            train_matcher(recipe, source, [], texts, None, self.mesh, run).complete()
        return load_text_encoder(run)

    def pairs(self, start: str) -> list[Pair]:
        """The labelled pairs as ids, of the plain encoder or of the alphabet."""
        return self._read(start)[0]

    def texts(self, start: str) -> list[Pair]:
        return self._read(start)[1]

    def _read(self, start: str) -> tuple[list[Pair], list[Pair]]:
        return self._plain if start == PLAIN else self._numbers

    @cached_property
    def _plain(self) -> tuple[list[Pair], list[Pair]]:
        reader = Reader(self.source.tokenizer)
        labelled = read_pairs([self.config.pairs], reader, Wanted(False, labels=True))
        return labelled, read_pairs(self.config.texts, reader, Wanted(False, labels=False, single=True))

    @cached_property
    def _numbers(self) -> tuple[list[Pair], list[Pair]]:
        alphabet = make_alphabet(count_numbers(anonymised_texts(self.anonymised)))
        reader, (pairs, *texts) = Reader(alphabet), self.anonymised
        labelled = read_pairs([pairs], reader, Wanted(True, labels=True))
        return labelled, read_pairs(texts, reader, Wanted(True, labels=False, single=True))

    def cell(self, cell: Cell) -> dict[str, Any]:
        """A cell's figures: the probabilities of the pairs of its fold, in order, and the AUC by step."""
        way, begin, fold = WAYS[cell.way], time.perf_counter(), Fold(cell.fold, self.config.folds)
        held = [pair for n, pair in enumerate(self.pairs(way.start)) if fold.holds(n)]
        curve: list[list[float]] = []
        if cell.way == OVERLAP:
            scores = overlaps(held)
        elif way.trains:
            scores, curve = self._trained(way, cell, fold, held)
        elif not way.labels:
            reading = self.recipe(cell.seed, self.config.epochs, **way.changes).reading
            with jax.set_mesh(self.mesh):
                scores = probabilities(scorer(Matcher(self.begun(way), reading))(held))
        elif way.of:
            run = self.folder / "runs" / cell._replace(way=way.of).name
            with jax.set_mesh(self.mesh):
                scores = probabilities(scorer(load_matcher(run, way.average), way.both_orders)(held))
        else:
            scores = self._members(way, cell)
        about = cell._asdict() | {"auc": auc(scores, np.array([pair.label for pair in held])), "curve": curve}
        return about | {"seconds": time.perf_counter() - begin, "scores": [round(x, 6) for x in scores.tolist()]}

    def _trained(self, way: Way, cell: Cell, fold: Fold, held: list[Pair]) -> tuple[np.ndarray, list[list[float]]]:
        run, labelled = self.folder / "runs" / cell.name, self.pairs(way.start)
        source = self.pretrained(way, cell.seed) if way.pretrained else self.begun(way)
        changes, more = dict(way.changes), list[Pair]()
        if way.unlabelled:
            texts = self.texts(way.start)
            count = min(len(texts), len(labelled))
            chosen = np.random.default_rng([cell.seed, 2]).permutation(len(texts))[:count]
            more = [texts[n] for n in chosen]
        if way.pupil:
            soft = self._members(way, cell)
            changes["heldout_text"] = False
            more = [pair._replace(label=p) for pair, p in zip(held, soft.tolist(), strict=True)]
        recipe = self.recipe(cell.seed, self.config.epochs, **changes)
        with silence():
            train_matcher(recipe, source, labelled, more, fold, self.mesh, run).complete()
        with jax.set_mesh(self.mesh):
            scores = probabilities(scorer(load_matcher(run))(held))
        rows = read_metrics(run / "metrics.jsonl")
        return scores, [[row["step"], row["eval_auc"]] for row in rows if "eval_auc" in row]

    def _members(self, way: Way, cell: Cell) -> np.ndarray:
        """The mean probability of a way's seeds for the pairs of the cell's fold."""
        seeds = range(min(WAYS[way.members].seeds, self.config.seeds))
        names = [cell._replace(way=way.members, seed=seed).name for seed in seeds]
        return np.mean([read_json(self.folder / "cells" / f"{name}.json")["scores"] for name in names], 0)


def overlaps(pairs: list[Pair]) -> np.ndarray:
    """Of each pair, of all different ids of both texts the share that both have (Jaccard)."""
    sets = (({*pair.a.tolist()}, {*pair.b.tolist()}) for pair in pairs)
    return np.array([len(a & b) / len(a | b) for a, b in sets])


def _digest(paths: Sequence[str]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(Path(path).read_bytes())
    return found.hexdigest()[:12]
