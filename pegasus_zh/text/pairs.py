"""Pairs of texts out of records: (source, reference), as is fine-tuned on, written for, scored and prepared."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from pegasus_zh.text.lines import ends_in, first_line, is_blank
from pegasus_zh.text.records import (
    CSV_SUFFIXES,
    JSON_SUFFIXES,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    BadRecord,
    Record,
    around_array,
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
    path: str,
    field: str = NAMES[0],
    reference_field: str = NAMES[1],
    flags: Sequence[str] = FLAGS,
    both: bool = False,
) -> Iterator[tuple[str, Pair]]:
    """The same with the place of each: "a.tsv, line 3". both: references are needed too."""
    names = (field, reference_field)
    if path == "-" or ends_in(path, TEXT_SUFFIXES):
        yield from ((row.place, Pair(decoded(row).rstrip("\r\n"), None)) for row in read_rows(path))
        return
    if not ends_in(path, PAIR_FILES.suffixes):
        raise DataError(f"{path}: unknown kind of file; {PAIR_FILES.told}, inputs also as .txt")
    named, first = reference_field != NAMES[1], None
    for row in read_rows(path, names if both or named or field == NAMES[0] else (field,)):
        first = first or row
        pair = pair_of(row, names, flags, both or (named and row.names != ()))
        named = named and pair.reference is None
        yield row.place, pair
    if first and named and isinstance(found := cells(first), dict):
        raise DataError(f"{path}: no field {reference_field!r} on any line; give {flags[1]} one of: {_shown(found)}")


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


def pair_of(record: Record, names: Sequence[str] = NAMES, flags: Sequence[str] = FLAGS, both: bool = False) -> Pair:
    """The pair of one record. Raises BadRecord where it has no source, or no field of the reference where `both` are
    needed; `flags` are those that take other names."""
    found = cells(record)
    if isinstance(found, dict):
        if names[0] not in found or (both and names[1] not in found):
            raise BadRecord("missing field", _without(record, found, names, flags))
        source, reference = text_of(found, names[0], record.place, flags[0]), None
        if found.get(names[1]) is not None:
            reference = text_of(found, names[1], record.place, flags[1])
        return Pair(source, reference)
    if ends_in(record.path, CSV_SUFFIXES):
        raise BadRecord(
            "no names", f"{_without(record, found, names, flags)}; or let the first line be {names[1]},{names[0]}"
        )
    *before, source = found
    if len(before) > 1:
        raise BadRecord("not a pair", f"{record.place}: {len(before)} tabs; a line is {names[1]} TAB {names[0]}")
    return Pair(source, before[0] if before else None)


def _without(record: Record, found: dict[str, Any] | list[str], names: Sequence[str], flags: Sequence[str]) -> str:
    """Which of the names are none of a record's, and the flags that take others."""
    others = [name for name in found if name not in names]
    missing = [n for n, name in enumerate(names) if name not in found][: max(len(others), 1)]
    lost = " and no ".join(repr(names[n]) for n in missing)
    asked = " and ".join(dict.fromkeys(flags[n] for n in missing))
    where, what = (record.path, "column") if record.names else (record.place, "field")
    remedy = f"give {asked} one of: {_shown(others)}" if others else "mend or remove it"
    if isinstance(found, dict):
        remedy = around_array(found) or remedy
    return f"{where}: no {what} {lost}; {remedy}"


def _shown(names: Collection[str]) -> str:
    return ", ".join(name if len(name) <= 20 else f"{name[:20]}…" for name in list(names)[:20])


def whole(pair: Pair, place: str, flag: str = FLAGS[1]) -> tuple[str, str]:
    """(source, reference). Raises BadRecord where one of them is missing."""
    if is_blank(pair.source) or pair.reference is None or is_blank(pair.reference):
        missing = "source" if is_blank(pair.source) else "reference"
        raise BadRecord(
            "half a pair",
            f"{place}: a pair needs a source and a reference, and the {missing} is missing; mend or remove it (a line "
            f"of text is reference TAB source; of fields give another {flag})",
        )
    return pair.source, pair.reference


def parse_pair(record: Record, pair_fields: tuple[str, str]) -> tuple[str, str]:
    """(source, reference) of one record. Raises BadRecord, with file, line and remedy, where one is missing."""
    flags = ("--pair-fields",) * 2
    return whole(pair_of(record, pair_fields, flags, both=True), record.place, flags[1])
