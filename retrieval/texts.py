"""Texts, and columns of texts, of all kinds of files (pegasus_zh.text.records)."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from pegasus_zh.text.lines import ends_in, is_blank, is_blank_line
from pegasus_zh.text.pairs import PAIR_FILES
from pegasus_zh.text.records import COLUMNS, TEXT_SUFFIXES, Record, around_array, cells, read_rows, text_of
from training.files.errors import DataError
from training.telling import tell_once

TOLD = "texts come as .txt, .tsv, .csv, .jsonl or .json (all may be .gz or .zst)"


_LABEL = re.compile(
    """-|n/?a|none|null|nan|true|false|t|f|yes|no|y|n|pos|neg|positive|negative|neutral|entailment|contradiction
    |(?:__)?label(?:__)?[ _-]?\\w{1,3}|(?:not?[ _-]?|un|dis|non[ _-]?)?(?:same|similar|equal|duplicate|match|relevant)s?
    |different|是|否|对|错|真|假|有|无|(?:不|非)?(?:相似|相同|一样|同义|匹配|相关|重复|等价)|不同|蕴含|矛盾|中立|正面|负面""",
    re.VERBOSE | re.IGNORECASE,
)


class Row(NamedTuple):
    """The columns of a line, and their names where the file has them."""

    place: str  # "a.tsv, line 3"
    columns: tuple[str, ...]
    names: tuple[str, ...]


def read_texts(path: str, field: str = "text", blank: bool = False) -> Iterator[str]:
    """One text a record: a line of .txt; of .jsonl, .json, .csv, and of a .tsv whose first line has names, what is in
    `field`; of another table the last of at most two columns. Blank lines at the end are none.

    blank: a blank line between others is an empty text, of files that have a text a line.
    Raises DataError, with file, line and remedy, for what read_rows refuses, and for a record without text.
    """
    for row in read_records(path, (field,)):
        if blank and is_blank_line(row.data or b""):
            yield ""
            continue
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
            if len(found) == 1 and len(columns) > 1 and is_number(columns[0]):
                tell_once(
                    f"{path}: a tab behind a number, and both belong to the text in a .txt; of the same file as .tsv "
                    "the last column is the text"
                )
        if is_blank(text):
            raise DataError(f"{row.place}: no text; remove the line")
        yield text


def all_texts(paths: Sequence[str], field: str = "text") -> Iterator[str]:
    """Those of all files, as read_texts has them. Raises DataError."""
    return chain.from_iterable(read_texts(path, field) for path in paths)


def read_columns(path: str, wanted: Sequence[str] = ()) -> Iterator[Row]:
    """All columns of each record but those named as ids, of JSON in the order of the first object's fields; numbers as
    they are written.

    wanted: names of columns by which a table's first line is known to be a heading, beside the usual ones.
    Raises DataError, with file, line and remedy, where one is empty or is neither a text nor a number.
    """
    names: tuple[str, ...] = ()
    for row in read_records(path, wanted):
        found = cells(row)
        if isinstance(found, dict):
            names = names or tuple(found)
            if {*found} != {*names}:
                raise DataError(f"{row.place}: fields {', '.join(found)}, not {', '.join(names)} as before; mend it")
            kept = tuple(name for name in names if not COLUMNS["id"].fullmatch(name)) or names
            found = [_cell(found[name], name, row.place) for name in kept]
        else:
            kept = ()
        if empty := [number for number, column in enumerate(found, 1) if is_blank(column)]:
            raise DataError(f"{row.place}: column {empty[0]} is empty; remove the line")
        yield Row(row.place, tuple(found), kept)


def _cell(value: object, name: str, place: str) -> str:
    if within := around_array({name: value}):
        raise DataError(f"{place}: {within}")
    if isinstance(value, (int, float)):
        return str(float(value))
    return text_of({name: value}, name, place)


def read_records(path: str, wanted: Sequence[str] = ()) -> Iterator[Record]:
    """A file's records, unparsed; blank lines at the end are none. Raises DataError for an unknown kind of file."""
    if path != "-" and not ends_in(path, (*TEXT_SUFFIXES, *PAIR_FILES.suffixes)):
        raise DataError(f"{path}: unknown kind of file; {TOLD}")
    blank: list[Record] = []
    for row in read_rows(path, wanted):
        blank.append(row)
        if not is_blank_line(row.data or b""):
            yield from blank
            blank.clear()


def scored(row: Row) -> tuple[str, str, float]:
    """(text, text, score) of a row, as `labelled` takes it apart. Raises DataError."""
    first, second, last = labelled(row, "score")
    score = float(last) if is_number(last) else float("nan")
    if score != score or abs(score) == float("inf"):
        raise DataError(
            f"{row.place}: the label or score {last!r} is not a number: labels are to be 0 and 1; write it so, or "
            "remove the line"
        )
    return first, second, score


def labelled(row: Row, what: str = "label") -> tuple[str, str, str]:
    """(text, text, label or score) of a row: two columns and then that; of named ones it may be anywhere, if it is
    called score, label or similarity. Raises DataError."""
    if len(row.columns) != 3:
        named = f" ({', '.join(row.names)})" if row.names else ""
        raise DataError(f"{row.place}: {len(row.columns)} column(s){named}; a line is text TAB text TAB {what}")
    by_name = [n for n, name in enumerate(row.names) if is_score(name)]
    last = by_name[0] if len(by_name) == 1 else 2
    first, second = (text for n, text in enumerate(row.columns) if n != last)
    return first, second, row.columns[last]


def is_score(name: str) -> bool:
    """Is a column of this name one of labels or scores?"""
    return COLUMNS["score"].fullmatch(name) is not None


def is_label(text: str) -> bool:
    """Is it a number, or a word that tables have for one, such as true, 相似, label1 or entailment?"""
    return is_number(text) or _LABEL.fullmatch(text.strip()) is not None


def is_number(text: str) -> bool:
    """As tables write them: 1_0 is one to Python alone."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
