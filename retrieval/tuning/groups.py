"""Groups of texts that say the same, of files: {"text": …, "synonyms": […]} a line, or columns that are alike."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from pegasus_zh.text.lines import is_blank
from pegasus_zh.text.records import Record, cells, json_object, text_of
from retrieval.texts import read_records
from retrieval.tuning.columns import is_negative
from retrieval.tuning.examples import read_alike
from training.files.errors import DataError
from training.telling import tell


class Group(NamedTuple):
    place: str  # "a.jsonl, line 3"
    texts: tuple[str, ...]


def read_groups(path: str, labelled: bool = False) -> Iterator[Group]:
    """The groups of a file, a text of each once; groups of one text are counted and left out.

    labelled: rows end in a label, 1 of texts that are alike; others are left out. Raises DataError with file, line and
    remedy.
    """
    alone = 0
    for group in all_groups(path, labelled):
        texts = tuple(dict.fromkeys(text.strip() for text in group.texts))
        if len(texts) > 1:
            yield Group(group.place, texts)
        else:
            alone += 1
    if alone:
        tell(f"{path}: {alone:,} of the groups with one text alone, which says nothing of others, left out")


def all_groups(path: str, labelled: bool = False) -> Iterator[Group]:
    """Those of a file as they are, of one text too. Raises DataError."""
    rows = read_records(path)
    first = next(rows, None)
    if first is None:
        return
    fields = cells(first)
    if isinstance(fields, dict) and "synonyms" in fields:
        yield from map(_with_synonyms, itertools.chain([first], rows))
    else:
        yield from _of_columns(path, labelled)


def _with_synonyms(record: Record) -> Group:
    fields, place = json_object(record), record.place
    others = fields.get("synonyms")
    if not isinstance(others, list):
        raise DataError(f"{place}: 'synonyms' is {others!r:.40}, not a list of texts; mend it")
    named = {f"text {n} of 'synonyms'" if n else "'text'": text for n, text in enumerate((fields.get("text"), *others))}
    for name, text in named.items():
        if not isinstance(text, str):
            raise DataError(f"{place}: {name} is {text!r:.40}, not a string; mend it")
        if is_blank(text):
            raise DataError(f"{place}: {name} is empty; remove it")
    texts = tuple(text_of(named, name, place) for name in named)
    return Group(place, texts)


def _of_columns(path: str, labelled: bool) -> Iterator[Group]:
    rows = read_alike(path, labelled)
    left = [name for name in (rows[0].names if rows else ()) if is_negative(name)]
    if left:
        tell(f"{path}: {', '.join(left)} left out: of groups all texts are alike")
    for row in rows:
        names = row.names or ("",) * len(row.columns)
        texts = (text for name, text in zip(names, row.columns, strict=True) if not is_negative(name))
        yield Group(row.place, tuple(texts))
