"""Texts from files, each with the place that an error names."""

from collections.abc import Iterator
from pathlib import Path

from pegasus_zh.text.pairs import read_lines, read_pairs
from training.files.errors import DataError


def read_texts(path: str, field: str = "text") -> Iterator[str]:
    """One text a line: of .txt, of a .jsonl's `field`, or of a .tsv the last of at most two columns; also .gz.

    Raises DataError, with file, line and remedy, for what pegasus_zh.text.pairs refuses and for a line without text.
    """
    if not _is_table(path):
        for number, pair in enumerate(read_pairs(path, field), 1):
            if not pair.source.strip():
                raise DataError(f"{path}, line {number}: no text; remove the line")
            yield pair.source
        return
    for place, columns in read_columns(path):
        if len(columns) > 2:
            raise DataError(f"{place}: {len(columns)} columns; keep the one with the texts, as by cut -f1")
        yield columns[-1]


def read_columns(path: str, field: str = "text") -> Iterator[tuple[str, tuple[str, ...]]]:
    """(place, columns) of each line: all of a .tsv, else the one text. Raises DataError where one is empty."""
    if not _is_table(path):
        for number, text in enumerate(read_texts(path, field), 1):
            yield f"{path}, line {number}", (text,)
        return
    for place, line in read_lines(path):
        columns = tuple(line.split("\t"))
        if not all(column.strip() for column in columns):
            raise DataError(
                f"{place}: column {[not c.strip() for c in columns].index(True) + 1} is empty; remove the line"
            )
        yield place, columns


def _is_table(path: str) -> bool:
    return Path(path.removesuffix(".gz")).suffix == ".tsv"
