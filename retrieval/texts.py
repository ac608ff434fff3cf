"""Texts, and columns of texts, of all kinds of files (pegasus_zh.text.records)."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pegasus_zh.text.lines import is_blank, is_blank_line
from pegasus_zh.text.pairs import PAIR_FILES
from pegasus_zh.text.records import TEXT_SUFFIXES, Record, cells, read_rows, text_of
from training.files.errors import DataError

TOLD = "texts come as .txt, .tsv, .csv, .jsonl or .json (all may be .gz or .zst)"
_ID = re.compile(r"#?(id|idx|index|no|guid|uid|qid\d?|序号)", re.IGNORECASE)
_SCORE = re.compile(
    r"labels?|scores?|similarity([_ -]?score)?|sim|gold([_ -]?label)?|is_duplicate|标签|分数|相似度", re.IGNORECASE
)


class Row(NamedTuple):
    """The columns of a line, and their names where the file has them."""

    place: str  # "a.tsv, line 3"
    columns: tuple[str, ...]
    names: tuple[str, ...]


def read_texts(path: str, field: str = "text") -> Iterator[str]:
    """One text a record: a line of .txt; of .jsonl, .json, .csv, and of a .tsv whose first line has names, what is in
    `field`; of another table the last of at most two columns. Blank lines at the end are none.

    Raises DataError, with file, line and remedy, for what read_rows refuses, and for a record without text.
    """
    for row in _rows(path, (field,)):
        found = cells(row)
        if isinstance(found, dict):
            text = text_of(found, field, row.place)
        elif len(found) > 2:
            raise DataError(f"{row.place}: {len(found)} columns; keep the one with the texts, as by cut -f1")
        else:
            columns = found if len(found) > 1 else found[0].split("\t")
            if len(columns) > 1 and is_number(columns[-1]) and not is_number(columns[0]):
                raise DataError(
                    f"{row.place}: ends in {columns[-1].strip()!r}, a label and no text; keep the texts alone, as by "
                    "cut -f1, or name the columns in the first line"
                )
            text = found[-1]
        if is_blank(text):
            raise DataError(f"{row.place}: no text; remove the line")
        yield text


def read_columns(path: str) -> Iterator[Row]:
    """All columns of each record, those of JSON in the order of the first object's fields; numbers as they are written.

    Raises DataError, with file, line and remedy, where one is empty or is neither a text nor a number.
    """
    names: tuple[str, ...] = ()
    for row in _rows(path):
        found = cells(row)
        if isinstance(found, dict):
            names = names or tuple(found)
            if {*found} != {*names}:
                raise DataError(f"{row.place}: fields {', '.join(found)}, not {', '.join(names)} as before; mend it")
            found = [_cell(found[name], name, row.place) for name in names]
        if empty := [number for number, column in enumerate(found, 1) if is_blank(column)]:
            raise DataError(f"{row.place}: column {empty[0]} is empty; remove the line")
        yield Row(row.place, tuple(found), names)


def _cell(value: object, name: str, place: str) -> str:
    if isinstance(value, (int, float)):
        return str(float(value))
    return text_of({name: value}, name, place)


def _rows(path: str, wanted: Sequence[str] = ()) -> Iterator[Record]:
    if path != "-" and not path.endswith((*TEXT_SUFFIXES, *PAIR_FILES.suffixes)):
        raise DataError(f"{path}: unknown kind of file; {TOLD}")
    blank: list[Record] = []
    for row in read_rows(path, wanted):
        blank.append(row)
        if not is_blank_line(row.data or b""):
            yield from blank
            blank.clear()


def labelled(row: Row) -> tuple[str, str, str]:
    """(text, text, label as it is written) of a row: two columns and then a label; of named ones it may be anywhere, if
    it is called score, label or similarity, and there may be an id. Raises DataError."""
    places = [n for n, name in enumerate(row.names) if not _ID.fullmatch(name)] or [*range(len(row.columns))]
    if len(places) != 3:
        named = f" ({', '.join(row.names)})" if row.names else ""
        raise DataError(f"{row.place}: {len(places)} column(s){named}; a line is text TAB text TAB score")
    by_name = [n for n in places if row.names and is_score(row.names[n])]
    last = by_name[0] if len(by_name) == 1 else places[-1]
    first, second = (row.columns[n] for n in places if n != last)
    return first, second, row.columns[last]


def scored(row: Row) -> tuple[str, str, float]:
    """The same with a score for a label. Raises DataError."""
    first, second, label = labelled(row)
    score = float(label) if is_number(label) else float("nan")
    if score != score or abs(score) == float("inf"):
        raise DataError(f"{row.place}: the score {label!r} is not a number; mend or remove the line")
    return first, second, score


def is_score(name: str) -> bool:
    """Is a column of this name one of labels or scores?"""
    return _SCORE.fullmatch(name) is not None


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
