"""Pairs of texts out of records: (source, reference), as is fine-tuned on, written for, scored and prepared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pegasus_zh.text.lines import first_line, is_blank
from pegasus_zh.text.records import (
    CSV_SUFFIXES,
    JSON_SUFFIXES,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    BadRecord,
    Record,
    cells,
    decoded,
    read_rows,
    text_of,
)
from pegasus_zh.text.sources import Files
from training.files.errors import DataError

PAIR_FILES = Files(
    (*TABLE_SUFFIXES, *JSON_SUFFIXES),
    "pairs come as .tsv or .jsonl, .csv or .json (all may be .gz or .zst)",
    datasets=False,
)
NAMES, FLAGS = ("source", "reference"), ("--field", "--reference-field")


@dataclass(frozen=True)
class Pair:
    """What a model reads, and what a person wrote for it, if that is known."""

    source: str
    reference: str | None


def read_pairs(path: str, field: str = NAMES[0], reference_field: str = NAMES[1]) -> Iterator[Pair]:
    """The pairs of a file (see pegasus_zh.text.records), or of standard input (-).

    By the names `field` and perhaps `reference_field` of .jsonl, .json, .csv, and of a .tsv whose first line has names;
    else a .tsv is reference TAB source, as T5-PEGASUS's scripts have it, or a source alone. A line of .txt and standard
    input is a source, a blank one too. Raises DataError, with file, line and remedy.
    """
    for _, pair in located_pairs(path, field, reference_field):
        yield pair


def located_pairs(
    path: str, field: str = NAMES[0], reference_field: str = NAMES[1], flags: Sequence[str] = FLAGS
) -> Iterator[tuple[str, Pair]]:
    """The same with the place of each: "a.tsv, line 3"."""
    names = (field, reference_field)
    if path == "-" or path.endswith(TEXT_SUFFIXES):
        yield from ((row.place, Pair(decoded(row).rstrip("\r\n"), None)) for row in read_rows(path))
        return
    if not path.endswith(PAIR_FILES.suffixes):
        raise DataError(f"{path}: unknown kind of file; {PAIR_FILES.told}, inputs also as .txt")
    for row in read_rows(path, names):
        yield row.place, pair_of(row, names, flags)


def arriving_lines(file: BinaryIO) -> Iterator[list[str]]:
    """The lines of standard input, each time all that have come. Raises DataError for what is not UTF-8."""
    rest, number = b"", 0
    while data := getattr(file, "read1", file.read)(1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from _texts(lines, number)
        number += len(lines)
    yield from _texts([rest] if rest else [], number)


def _texts(lines: list[bytes], number: int) -> Iterator[list[str]]:
    if lines and not number:
        lines[0] = first_line("-", lines[0] + b"\n")
    if lines:
        yield [decoded(Record("-", n, line)).rstrip("\r\n") for n, line in enumerate(lines, number + 1)]


def pair_of(record: Record, names: Sequence[str] = NAMES, flags: Sequence[str] = FLAGS) -> Pair:
    """The pair of one record. Raises BadRecord where it has no source; `flags` are those that take other names."""
    found = cells(record)
    if isinstance(found, dict):
        source, reference = text_of(found, names[0], record.place, flags[0]), None
        if found.get(names[1]) is not None:
            reference = text_of(found, names[1], record.place, flags[1])
        return Pair(source, reference)
    if record.path.endswith(CSV_SUFFIXES):
        raise BadRecord(
            "no names",
            f"{record.place}: its first line names no columns; let it be {names[1]},{names[0]}, or give {flags[0]} and "
            f"{flags[1]}",
        )
    *before, source = found
    if len(before) > 1:
        raise BadRecord("not a pair", f"{record.place}: {len(before)} tabs; a line is {names[1]} TAB {names[0]}")
    return Pair(source, before[0] if before else None)


def whole(pair: Pair, place: str, flag: str = FLAGS[1]) -> tuple[str, str]:
    """(source, reference). Raises BadRecord where one of them is missing."""
    if is_blank(pair.source) or pair.reference is None or is_blank(pair.reference):
        missing = "source" if is_blank(pair.source) else "reference"
        raise BadRecord(
            "half a pair",
            f"{place}: a pair needs a source and a reference, and the {missing} is missing; mend or remove it, or give "
            f"another {flag}",
        )
    return pair.source, pair.reference


def parse_pair(record: Record, pair_fields: tuple[str, str]) -> tuple[str, str]:
    """(source, reference) of one record. Raises BadRecord, with file, line and remedy, where one is missing."""
    flags = ("--pair-fields",) * 2
    return whole(pair_of(record, pair_fields, flags), record.place, flags[1])
