"""What sentence vectors are tuned on, out of files: texts alone, pairs that are alike, scored or labelled pairs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pegasus_zh.text.lines import ends_in
from pegasus_zh.text.records import TABLE_SUFFIXES
from retrieval.similarity import read_task
from retrieval.texts import Row, is_label, is_number, is_score, read_columns, read_texts, scored
from retrieval.tuning.columns import check_varied, read_pairs
from retrieval.tuning.contrastive import Loss
from retrieval.tuning.labels import Groups, read_labelled
from training.files.errors import DataError
from training.telling import tell

_FEW = 20  # lines that a text of a column has at least where it holds labels


class Examples(NamedTuple):
    """What is trained on: of each example S sentences, and of scored pairs their scores, or of labelled ones the
    columns of their labels."""

    where: str  # for messages: files, or a task's name
    sentences: list[tuple[str, ...]]
    scores: np.ndarray | None = None  # float32 [n]
    groups: Groups = ()  # of labels


def examples_of(
    data: Sequence[str], loss: Loss, field: str = "text", labelled: bool = False, threshold: float | None = None
) -> Examples:
    """The examples of the files. Raises DataError, with file, line and remedy."""
    where = ", ".join(data)
    if loss == "softmax":
        found = read_labelled(data, threshold)
        return Examples(where, [*found.sentences], np.array(found.columns, np.float32), found.groups)
    if loss == "cosent":
        task = read_task("examples", data)
        pairs = [pair for split in task.splits for pair in zip(split.first, split.second, strict=True)]
        scores = np.concatenate([split.scores for split in task.splits])
        ranks = np.unique(scores, return_inverse=True)[1]  # float32 keeps their order, which is all that counts
        return Examples(where, [(task.texts[a], task.texts[b]) for a, b in pairs], ranks.astype(np.float32))
    if loss == "simcse":
        sentences = dict.fromkeys(text for path in data for text in _sentences(path, field))
        return Examples(where, [(text,) for text in sentences])
    rows = [row for path in data for row in read_alike(path, labelled)]
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
    """Of JSON and named columns the field, where it is there; of other tables every column but numbers and labels."""
    if not ends_in(path, TABLE_SUFFIXES):
        yield from read_texts(path, field)
        return
    for row in read_columns(path):
        if field in row.names:
            yield row.columns[row.names.index(field)]
        else:
            yield from (text for text in row.columns if len(row.columns) == 1 or not is_label(text))


def read_alike(path: str, labelled: bool) -> list[Row]:
    """The rows of a file of pairs; of labelled ones those that are alike, without their labels."""
    if labelled:
        pairs = [(row.place, *scored(row)) for row in read_columns(path)]
        if strange := [(place, label) for place, _, _, label in pairs if label not in (0, 1)]:
            raise DataError(
                f"{strange[0][0]}: the label {strange[0][1]:g} is neither 0 nor 1; --loss cosent is for scores"
            )
        alike = [Row(place, (a, b), ()) for place, a, b, label in pairs if label]
        tell(f"{path}: {len(alike):,} pairs labelled 1; {len(pairs) - len(alike):,} labelled 0 are left out")
        return alike
    rows, told = read_pairs(path)
    width = min((len(row.columns) for row in rows), default=0)
    for column in range(width):
        _check_texts(rows, column)
    check_varied(rows)
    if told:
        tell(told)
    return rows


def _check_texts(rows: Sequence[Row], column: int) -> None:
    """Raises DataError for a column of labels: by its name, where most of it are such words or numbers, though a first
    line is a heading of names that nobody knows, or where few texts come again and again behind the second column."""
    texts = [row.columns[column].strip() for row in rows]
    first = next((n for n, text in enumerate(texts) if is_label(text)), 0)
    named = column < len(rows[0].names) and is_score(rows[0].names[column])
    many = 2 * sum(map(is_label, texts)) >= len(texts)
    few = column > 1 and _FEW * len({*texts}) <= len(texts)
    if not (named or many or few):
        return
    if is_number(texts[first]):
        remedy = (
            "of labels 0 and 1 --labelled takes the pairs that are alike; --loss cosent learns from labels and scores; "
            "else remove the column"
        )
    else:
        remedy = (
            "keep the pairs that are alike, such as those of entailment, without that column; a contradiction may "
            "stand as the third"
        )
    raise DataError(
        f"{rows[first].place}: {texts[first]!r} in column {column + 1}, as on other lines, is a label and no text: "
        f"{remedy}"
    )
