"""Files of (source, reference) pairs: what is fine-tuned on, and what is written for."""

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pegasus_zh.text.documents import JSON_SUFFIXES, SKIP, TABLE_SUFFIXES, TEXT_SUFFIXES, BadRecord, Files, Record
from training.files.errors import DataError

PAIR_FILES = Files((*TABLE_SUFFIXES, *JSON_SUFFIXES), "pairs come as .tsv or .jsonl (both may be .gz)", datasets=False)


@dataclass(frozen=True)
class Pair:
    """What a model reads, and what a person wrote for it, if that is known."""

    source: str
    reference: str | None


def read_pairs(path: str, field: str = "source", reference_field: str = "reference") -> Iterator[Pair]:
    """The pairs of a .jsonl, .tsv or .txt file (also .gz), or of standard input (-), one a line.

    .jsonl: an object with `field` and perhaps `reference_field`; .tsv: reference TAB source, as T5-PEGASUS's scripts
    have it, or a source alone; .txt and standard input: a source. Blank lines at the end of the first two are no pairs.
    Raises DataError, with file, line and remedy.
    """
    if path != "-" and not path.endswith((*PAIR_FILES.suffixes, *TEXT_SUFFIXES)):
        raise DataError(f"{path}: unknown kind of file; inputs come as .jsonl, .tsv or .txt (all may be .gz)")
    lines = read_lines(path)
    for place, line in _without_blank_end(lines) if path.endswith(PAIR_FILES.suffixes) else lines:
        if path.endswith(JSON_SUFFIXES):
            yield _of_json(line, place, field, reference_field)
        elif path.endswith(TABLE_SUFFIXES):
            yield _of_table(line, place)
        else:
            yield Pair(line, None)


def parse_pair(record: Record, pair_fields: tuple[str, str]) -> tuple[str, str]:
    """(source, reference) of one record of such a .jsonl or .tsv file. Raises BadRecord, with file, line and remedy,
    where one of the two is missing."""
    place = f"{record.path}, line {record.line}"
    try:
        line = (record.data or b"").decode().rstrip("\r\n")
        table = record.path.endswith(TABLE_SUFFIXES)
        pair = _of_table(line, place) if table else _of_json(line, place, *pair_fields, option="--pair-fields")
    except UnicodeDecodeError as error:
        raise BadRecord("not UTF-8", f"{place}: not UTF-8 ({error.reason}); convert the file, or {SKIP}") from error
    except DataError as error:
        raise BadRecord("not a pair", f"{error}, or {SKIP}") from error
    if not (pair.source.strip() and pair.reference and pair.reference.strip()):
        raise BadRecord("half a pair", f"{place}: no {'reference' if pair.source.strip() else 'source'}; {SKIP}")
    return pair.source, pair.reference


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """(place, text) of each line of a file, also .gz, or of standard input (-): "texts.txt, line 3".

    Lines end with LF or CR LF, and a mark of the byte order is no text. Raises DataError.
    """
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                place = f"{path}, line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{place}: not UTF-8 ({error.reason}); convert it, e.g. with iconv -f gb18030 -t utf-8"
                    ) from error
                yield place, text.rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _without_blank_end(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    blank: list[tuple[str, str]] = []
    for place, line in lines:
        blank.append((place, line))
        if line.strip():
            yield from blank
            blank.clear()


def _opened(path: str) -> AbstractContextManager[Iterable[bytes]]:
    if path == "-":
        return nullcontext(sys.stdin.buffer)
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _of_table(line: str, place: str) -> Pair:
    *before, source = line.split("\t")
    if len(before) > 1:
        raise DataError(f"{place}: {len(before)} tabs; a line is reference TAB source")
    return Pair(source, before[0] if before else None)


def _of_json(line: str, place: str, field: str, reference_field: str, option: str = "--field") -> Pair:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: broken JSON ({error}); write one object a line") from error
    if not isinstance(fields, dict):
        raise DataError(f"{place}: not a JSON object; write one a line")
    if not isinstance(fields.get(field), str):
        raise DataError(f"{place}: no text in field {field!r}; give {option} one of: {', '.join(fields)}")
    reference = fields.get(reference_field)
    pair = Pair(fields[field], reference if isinstance(reference, str) else None)
    try:
        f"{pair.source}{pair.reference}".encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: half of a surrogate pair; write the file again") from error
    return pair
