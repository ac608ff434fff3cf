"""Tasks of scored pairs, by which cosines are set beside what people say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.texts import read_columns
from retrieval.vectors.arrays import unit
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
    name, equals, files = given.partition("=")
    paths = (files if equals else given).split(",")
    return read_task(name if equals else _stem(paths[0]), paths)


def read_task(name: str, paths: Sequence[str]) -> SimilarityTask:
    """A task of .tsv files (also .gz) of text TAB text TAB score.

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
    for place, columns in read_columns(path):
        if len(columns) != 3:
            raise DataError(f"{place}: {len(columns)} column(s); a line is text TAB text TAB score")
        try:
            score = float(columns[2])
        except ValueError:
            score = np.nan
        if not np.isfinite(score):
            raise DataError(f"{place}: the score {columns[2]!r} is not a number; mend or remove the line")
        first.append(places.setdefault(columns[0], len(places)))
        second.append(places.setdefault(columns[1], len(places)))
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
