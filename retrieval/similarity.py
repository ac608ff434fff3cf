"""Tasks of scored pairs, by which cosines are set beside what people say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.texts import read_columns, scored
from retrieval.vectors.arrays import unit
from retrieval.vectors.encoding import Encode, all_vectors
from training.experiment.statistics import spearman
from training.files.errors import DataError


@dataclass(frozen=True)
class Split:
    """A file of pairs."""

    name: str
    first: np.ndarray  # [n], places of the pairs' texts among the task's
    second: np.ndarray
    scores: np.ndarray  # float64 [n]


@dataclass(frozen=True)
class SimilarityTask:
    """Scored pairs in one file or more; each text is held, and encoded, once."""

    name: str
    texts: list[str]
    splits: list[Split]


def task_of(given: str) -> SimilarityTask:
    """The task of "FILE", or "NAME=FILE[,FILE...]"; its name is by default the first file's up to the first dot."""
    name, files = named(given)
    return read_task(name, files.split(","))


def named(given: str) -> tuple[str, str]:
    """(NAME, FILE) of "NAME=FILE", or of "FILE", whose name is its own up to the first dot."""
    name, equals, files = given.partition("=")
    return (name, files) if equals else (_stem(given.split(",")[0]), given)


def read_task(name: str, paths: Sequence[str]) -> SimilarityTask:
    """A task of files of text TAB text TAB score: .tsv, .csv, .jsonl or .json, also .gz and .zst.

    Raises DataError, with file, line and remedy, for an empty text, a score that is no number, another number of
    columns, a file whose scores are all the same, and two files of one name.
    """
    if len({_stem(path) for path in paths}) < len(paths):
        raise DataError(
            f"{', '.join(paths)}: splits are told apart by their files' names up to the first dot; rename one"
        )
    places: dict[str, int] = {}
    splits = [_read_split(path, places) for path in paths]
    return SimilarityTask(name, list(places), splits)


def _read_split(path: str, places: dict[str, int]) -> Split:
    first, second, scores = [], [], []
    for row in read_columns(path):
        a, b, score = scored(row)
        first.append(places.setdefault(a, len(places)))
        second.append(places.setdefault(b, len(places)))
        scores.append(score)
    if not scores:
        raise DataError(f"{path}: no pair in it")
    if min(scores) == max(scores):
        raise DataError(f"{path}: all {len(scores):,} scores are {scores[0]:g}; a correlation needs different ones")
    if first == second:
        raise DataError(f"{path}: both texts of every pair are the same, so all cosines are 1")
    return Split(_stem(path), np.array(first), np.array(second), np.array(scores))


def _stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def cosines(vectors: np.ndarray, split: Split) -> np.ndarray:
    """Of each pair, float32 [n]; vectors [texts, D]. A vector of zeros has the cosine 0."""
    found = unit(vectors)
    return np.einsum("nd,nd->n", found[split.first], found[split.second])


def correlation(encode: Encode, task: SimilarityTask) -> dict[str, float]:
    """Spearman's of the cosines on a task's first file, as a training tells it on the way."""
    split = task.splits[0]
    return {"spearman": spearman(split.scores, cosines(all_vectors(encode, task.texts), split))}
