"""What sentence vectors are tuned on, out of files: texts alone, pairs that are alike, scored pairs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pegasus_zh.text.records import TABLE_SUFFIXES
from retrieval.similarity import read_task
from retrieval.texts import Row, is_number, is_score, read_columns, read_texts, scored
from retrieval.tuning.contrastive import Loss
from training.files.errors import DataError
from training.telling import tell

_NLI = frozenset({"entailment", "neutral", "contradiction", "-"})  # labels of SNLI, and of what was made after it


class Examples(NamedTuple):
    """What is trained on: of each example S sentences, and of scored pairs their scores."""

    where: str  # for messages: files, or a task's name
    sentences: list[tuple[str, ...]]
    scores: np.ndarray | None = None  # float32 [n]


def examples_of(data: Sequence[str], loss: Loss, field: str = "text", labelled: bool = False) -> Examples:
    """The examples of the files. Raises DataError, with file, line and remedy."""
    where = ", ".join(data)
    if loss == "cosent":
        task = read_task("examples", data)
        pairs = [pair for split in task.splits for pair in zip(split.first, split.second, strict=True)]
        scores = np.concatenate([split.scores for split in task.splits])
        ranks = np.unique(scores, return_inverse=True)[1]  # float32 keeps their order, which is all that counts
        return Examples(where, [(task.texts[a], task.texts[b]) for a, b in pairs], ranks.astype(np.float32))
    if loss == "simcse":
        sentences = dict.fromkeys(text for path in data for text in _sentences(path, field))
        return Examples(where, [(text,) for text in sentences])
    rows = [row for path in data for row in read_pairs(path, labelled)]
    if not rows:
        raise DataError(f"{where}: no pair in it")
    counts = {len(row.columns) for row in rows}
    if len(counts) != 1 or counts == {1}:
        first = len(rows[0].columns)
        row = next(row for row in rows if len(row.columns) in {1, *counts} - {first} or len(row.columns) == 1)
        before = "" if len(row.columns) == 1 else f", and {first} on the first line"
        raise DataError(
            f"{row.place}: {len(row.columns)} column(s){before}; every line is sentence TAB its like, with as many "
            "hard negatives"
        )
    return Examples(where, [row.columns for row in rows])


def _sentences(path: str, field: str) -> Iterator[str]:
    """Of JSON and named columns the field, where it is there; of other tables every column but numbers."""
    if not path.endswith(TABLE_SUFFIXES):
        yield from read_texts(path, field)
        return
    for row in read_columns(path):
        if field in row.names:
            yield row.columns[row.names.index(field)]
        else:
            yield from (text for text in row.columns if len(row.columns) == 1 or not is_number(text))


def read_pairs(path: str, labelled: bool) -> list[Row]:
    """The rows of a file of pairs; of labelled ones those that are alike, without their labels."""
    rows = list(read_columns(path))
    if labelled:
        pairs = [(row.place, *scored(row)) for row in rows]
        if strange := [(place, label) for place, _, _, label in pairs if label not in (0, 1)]:
            raise DataError(
                f"{strange[0][0]}: the label {strange[0][1]:g} is neither 0 nor 1; --loss cosent is for scores"
            )
        alike = [Row(place, (a, b), ()) for place, a, b, label in pairs if label]
        tell(f"{path}: {len(alike):,} pairs labelled 1; {len(pairs) - len(alike):,} labelled 0 are left out")
        return alike
    for column in range(len(rows[0].columns) if rows else 0):
        named = column < len(rows[0].names) and is_score(rows[0].names[column])
        values = {row.columns[column].strip().lower() for row in rows if column < len(row.columns)}
        if values <= _NLI or (named and not any(map(is_number, values))):
            raise DataError(
                f"{rows[0].place}: {rows[0].columns[column]!r} is a label and no text: keep the pairs that are alike, "
                "such as those of entailment, without that column; a contradiction may stand as the third"
            )
    # A first line that is no number may be a heading, though of names that nobody knows.
    others = rows[1:]
    for column in range(len(rows[0].columns) if rows else 0):
        if all(column < len(row.columns) and is_number(row.columns[column]) for row in others or rows):
            row = rows[0] if is_number(rows[0].columns[column]) or not others else others[0]
            other = "every other line" if row is rows[0] else "every other line but the first"
            ends = "ends in a number" if column == len(row.columns) - 1 else f"has a number in column {column + 1}"
            raise DataError(
                f"{row.place}: {row.columns[column]!r}, and {other} {ends}: of labels 0 and 1 --labelled takes the "
                "pairs that are alike; --loss cosent learns from labels and scores; else remove the column"
            )
    return rows
