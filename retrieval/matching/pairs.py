"""Pairs of anonymised or plain texts, read from files a row at a time, and as ids."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pegasus_zh.text.documents import SKIP, OnBadRecord
from pegasus_zh.text.lines import is_blank
from pegasus_zh.text.records import COLUMNS, BadRecord, Record, cells, text_of
from pegasus_zh.text.tokenizers import Tokenizer
from retrieval.matching.alphabet import RARE, is_alphabet, is_number
from retrieval.texts import is_score, read_records
from training.files.errors import DataError
from training.telling import tell

HEADING = ", or, if it is a heading, name its columns text1, text2 and label"


class Row(NamedTuple):
    """A row of a file."""

    place: str  # "a.tsv, line 3"
    a: str
    b: str  # "" of a text that stands alone
    label: float | None  # 0, 1, or a probability
    rest: tuple[str, ...] = ()  # a third column as it is written


class Wanted(NamedTuple):
    """What a file's rows are to be."""

    numbers: bool  # texts of numbers between blanks
    labels: bool  # a third column of 0 or 1
    soft: bool = False  # any number from 0 to 1 is a label
    single: bool = False  # one column, a text alone, will do


def read_rows(
    path: str, wanted: Wanted, on_bad_record: OnBadRecord = "stop", bad: Counter[str] | None = None
) -> Iterator[Row | None]:
    """The rows of a file, in order. Raises BadRecord, with file, line and remedy, for one that is not as wanted; or, if
    such are to be skipped, gives None for it and counts it in `bad` by reason; without `bad` nothing can be skipped."""
    names: list[str] = []  # of the first record's fields, in whose order those of all are taken
    for record in read_records(path):
        try:
            yield _row(record, wanted, names)
        except BadRecord as error:
            if bad is None:
                raise
            if on_bad_record == "stop":
                raise BadRecord(error.reason, f"{error}, or {SKIP}") from error
            bad[error.reason] += 1
            yield None


def _row(record: Record, wanted: Wanted, names: list[str]) -> Row:
    found = cells(record)
    if record.path == "-" and isinstance(found, list):  # has no name that would say what it is
        found = found[0].split("\t")
    if isinstance(found, dict):
        names[:] = names or found
        kept = [name for name in dict.fromkeys([*names, *found]) if name in found]
        kept = [name for name in kept if not COLUMNS["id"].fullmatch(name)]
        texts = [name for name in kept if not is_score(name)]
        texts = texts if len(texts) < len(kept) else kept[:2]  # by place, where none is named as a label
        columns = [_cell(found, name, record) for name in texts]
        rest = [_cell(found, name, record) for name in kept if name not in texts]
    else:
        columns, rest = found[:2], found[2:]
    if not (1 if wanted.single else 2) <= len(columns) <= 2 or not wanted.labels <= len(rest) <= 1:
        what = "text TAB text" + " TAB label" * wanted.labels
        count = len(columns) + len(rest)
        raise BadRecord("columns", f"{record.place}: {count} column(s), not {what}; mend the row")
    for number, text in enumerate(columns, 1):
        if is_blank(text):
            raise BadRecord("an empty text", f"{record.place}: column {number} is empty; remove the row")
        if wanted.numbers and (strange := [x for x in text.split() if not is_number(x)]):
            raise BadRecord(
                "no numbers",
                f"{record.place}: {strange[0]!r} in column {number} is no number from 0 on; texts are to be numbers "
                f"between blanks; mend the row{HEADING if record.place.endswith(', line 1') else ''}",
            )
    label = _label(rest[0], record, wanted) if wanted.labels else None
    return Row(record.place, columns[0], columns[1] if len(columns) > 1 else "", label, tuple(rest))


def _cell(fields: dict[str, Any], name: str, record: Record) -> str:
    """As it would be written in a table."""
    if isinstance(fields[name], int | float):
        return str(fields[name])
    return text_of(fields, name, record.place, "file")


def _label(text: str, record: Record, wanted: Wanted) -> float:
    try:
        label = float(text)
    except ValueError:
        label = float("nan")
    if not (0 <= label <= 1 if wanted.soft else label in (0, 1)):
        must = "a number from 0 to 1" if wanted.soft else "0 or 1"
        raise BadRecord("labels", f"{record.place}: the label is {text!r}, and must be {must}; mend it")
    return label


def anonymised_texts(paths: Sequence[str]) -> Iterator[str]:
    """Each text of files of pairs or of texts of numbers. Raises DataError."""
    for path in paths:
        for row in read_rows(path, Wanted(numbers=True, labels=False, single=True)):
            if row:
                yield from (x for x in (row.a, row.b) if x)


class Pair(NamedTuple):
    """Ids of a pair; a number that is not of the alphabet is -1 less its order among those of the pair."""

    a: np.ndarray  # int32
    b: np.ndarray
    label: float  # NaN: unknown
    row: int = 0  # its number in the files that it is of, from 1


MANY = 20  # rows of numbers alone, which plain text hardly begins with


def unordered(pair: Pair) -> frozenset[bytes]:
    """The same of two pairs that are the same in either order."""
    return frozenset((pair.a.tobytes(), pair.b.tobytes()))


class Reader:
    """Texts to ids, and how many of them the vocabulary does not have."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.numbers = is_alphabet(tokenizer)
        self._known = {x: i for i, x in enumerate(tokenizer.pieces()) if x} if self.numbers else {}
        self.ids = self.unknown = 0
        self._numeric: int | None = 0  # rows of numbers alone, as long as all are

    def pair(self, row: Row) -> Pair:
        """The ids of a row's texts. Raises DataError where plain text is read, and all that comes is numbers."""
        if not self.numbers and self._numeric is not None:
            numeric = all(is_number(x) for text in (row.a, row.b) for x in text.split())
            self._numeric = self._numeric + 1 if numeric else None
            if self._numeric == MANY:
                raise DataError(
                    f"{row.place}: the first {MANY} rows are numbers alone, and the encoder reads plain text; run "
                    "scripts.match_anonymised align, and give its folder as --model"
                )
        strange: dict[str, int] = {}
        a, b = (np.array(self._encoded(text, strange), np.int32) for text in (row.a, row.b))
        self.ids += len(a) + len(b)
        self.unknown += int(np.sum((a < 0) | (a == self._tokenizer.unk_id)))
        self.unknown += int(np.sum((b < 0) | (b == self._tokenizer.unk_id)))
        return Pair(a, b, float("nan") if row.label is None else row.label)

    def _encoded(self, text: str, strange: dict[str, int]) -> list[int]:
        if not self.numbers:
            return self._tokenizer.encode(text)
        return [self._known[x] if x in self._known else -1 - strange.setdefault(x, len(strange)) for x in text.split()]

    def tell(self, what: str) -> None:
        """How much of it is unknown."""
        share = self.unknown / max(self.ids, 1)
        tell(f"{what}: {self.ids:,} ids, {self.unknown:,} of them ({share:.1%}) not of the vocabulary")


def read_pairs(paths: Sequence[str], reader: Reader, wanted: Wanted, on_bad_record: OnBadRecord = "stop") -> list[Pair]:
    """All pairs of some files, whose rows are numbered on from file to file, those that are left out too. Tells how
    many these are, by reason. Raises DataError, as for a file without pairs."""
    pairs: list[Pair] = []
    numbers = itertools.count(1)
    for path in paths:
        bad: Counter[str] = Counter()
        before = len(pairs)
        rows = zip(read_rows(path, wanted, on_bad_record, bad), numbers, strict=False)
        pairs += [reader.pair(row)._replace(row=number) for row, number in rows if row]
        if len(pairs) == before:
            raise DataError(f"{path}: no row that can be used ({told(bad) or 'it is empty'})")
        if bad:
            tell(f"{path}: left out {told(bad)}")
    return pairs


def told(bad: Counter[str]) -> str:
    """Rows that were left out, in words."""
    return ", ".join(f"{count:,} rows ({reason})" for reason, count in sorted(bad.items()))


def named_rare(ids: np.ndarray, unknown: int, numbered: bool) -> np.ndarray:
    """The ids of a pair's texts, one after the other, with numbers that are not of the alphabet as one unknown id, or
    numbered by their order: the same number is the same again on the other side."""
    if not (ids < 0).any():
        return ids
    if not numbered:
        return np.where(ids < 0, unknown, ids)
    order: dict[int, int] = {}
    for x in ids[ids < 0].tolist():
        order.setdefault(x, RARE[len(order) % len(RARE)])
    return np.array([order.get(x, x) for x in ids.tolist()], np.int32)
