"""Pairs with labels out of several files, whose labels need not be the same: each set of labels is a group.

The labels of paraphrases are 0 and 1, those of inference names (entailment, neutral, contradiction); graded scores
become 0 and 1 by a threshold. A model that learns from all has a column for every label of every group.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retrieval.texts import is_number, labelled, read_columns
from training.files.errors import DataError
from training.telling import tell

Groups = tuple[tuple[str, ...], ...]  # the labels of each group; one after the other they are the softmax's columns
_UNDECIDED = "-"  # of pairs of SNLI on which people did not agree
_MOST = 100  # labels of a file; more are texts, or numbers of lines


class Labelled(NamedTuple):
    """Pairs and the columns of their labels."""

    sentences: list[tuple[str, str]]
    columns: list[int]  # of the labels of all groups, one group after the other
    groups: Groups


def members(groups: Groups, columns: np.ndarray) -> list[np.ndarray]:
    """Which pairs are each group's, by the columns of their labels."""
    ends = np.cumsum([len(group) for group in groups])
    return [
        np.flatnonzero((columns >= end - len(group)) & (columns < end)) for group, end in zip(groups, ends, strict=True)
    ]


class _File(NamedTuple):
    path: str
    places: list[str]
    pairs: list[tuple[str, str]]
    labels: list[str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.labels)))

    def place_of(self, label: str) -> str:
        return self.places[self.labels.index(label)]


def read_labelled(data: Sequence[str], threshold: float | None = None) -> Labelled:
    """The pairs of all files: text, text and label, the labels of a file either numbers or names.

    Numbers are 0 and 1, or scores, of which those above the threshold become 1 and the others 0. Files with the same
    labels share a group; that of 0 and 1 is the first, the others come in their order. Pairs labelled "-" are left out.
    Raises DataError, with file, line and remedy, for a file that mixes numbers with names, for scores without a
    threshold, for one label alone, and for a label of one group among those of another.
    """
    files = [_read(path, threshold) for path in data]
    groups = tuple(sorted({file.names for file in files}, key=lambda names: (names != ("0", "1"), names)))
    for file in files:
        for other in files:
            shared, strange = {*file.names} & {*other.names}, [x for x in file.names if x not in other.names]
            if shared and strange:
                raise DataError(
                    f"{file.place_of(strange[0])}: the label {strange[0]!r} is not among {', '.join(other.names)} of "
                    f"{other.path}; files that share a label have the same ones: mend it"
                )
    column = {label: number for number, label in enumerate(label for group in groups for label in group)}
    for group in groups:
        counts = [f"{file.path} ({len(file.pairs):,})" for file in files if file.names == group]
        tell(f"labels {', '.join(group)}: {', '.join(counts)}")
    return Labelled(
        [pair for file in files for pair in file.pairs],
        [column[label] for file in files for label in file.labels],
        groups,
    )


def _read(path: str, threshold: float | None) -> _File:
    rows = [(row.place, *labelled(row)) for row in read_columns(path)]
    kept = [row for row in rows if row[3].strip() != _UNDECIDED]
    if len(kept) < len(rows):
        tell(f'{path}: {len(rows) - len(kept):,} pairs labelled "{_UNDECIDED}" are left out')
    if not kept:
        raise DataError(f"{path}: no labelled pair in it")
    places, labels = [row[0] for row in kept], [row[3].strip() for row in kept]
    numbers = [is_number(label) for label in labels]
    if len({*numbers}) > 1:
        one = numbers.index(not numbers[-1])  # the odd one out may be a heading
        raise DataError(
            f"{places[one]}: the label is {labels[one]!r}, and {labels[-1]!r} on the last line; a file's labels are "
            "all numbers or all names: mend or remove the line"
        )
    file = _File(
        path,
        places,
        [row[1:3] for row in kept],
        _of_numbers(places, labels, threshold) if numbers[0] else [label.lower() for label in labels],
    )
    if len(file.names) == 1:
        above = "" if threshold is None or not numbers[0] else f" at the threshold {threshold:g}"
        raise DataError(f"{path}: all {len(kept):,} labels are {file.names[0]!r}{above}; two are needed to learn from")
    if len(file.names) > _MOST:
        raise DataError(
            f"{places[0]}: {labels[0]!r} is one of {len(file.names):,} labels, so it may be a text; "
            f"a line is text TAB text TAB label, of at most {_MOST} labels"
        )
    return file


def _of_numbers(places: list[str], labels: list[str], threshold: float | None) -> list[str]:
    values = [float(label) for label in labels]
    if strange := [(p, x) for p, x, v in zip(places, labels, values, strict=True) if not math.isfinite(v)]:
        raise DataError(f"{strange[0][0]}: the label is {strange[0][1]!r}; mend or remove the line")
    if {*values} <= {0, 1}:
        return [str(int(value)) for value in values]
    if threshold is None:
        place, label = next((p, x) for p, x, v in zip(places, labels, values, strict=True) if v not in (0, 1))
        raise DataError(
            f"{place}: the label {label} is neither 0 nor 1; give --threshold, above which scores become 1, or names "
            "for labels, such as entailment"
        )
    return [str(int(value > threshold)) for value in values]
