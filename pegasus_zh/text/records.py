"""Records of files, whoever reads them: found first, cheaply, and parsed after, perhaps in another process.

| file            | a record                                                                                   |
|-----------------|--------------------------------------------------------------------------------------------|
| `.jsonl`        | the JSON object on one line                                                                |
| `.json`         | the same, or an object of the one array that the file is                                   |
| `.tsv`          | the columns of one line, between tabs                                                      |
| `.csv`          | those of one row as RFC 4180 has it: texts in quotation marks may hold commas and lines    |
| `.txt`, `-`     | a line; `-` is standard input                                                              |

All but `-` may be compressed (`.gz`, `.zst`), and are UTF-8 with lines that end in LF or CR LF. Columns have names
where the first line of a table is a heading: such as sentence1, label or 标题 in every column, or the names that are
asked for. What is no record is refused with file, line and remedy.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from pegasus_zh.text.lines import COMPRESSED, encoding_of, ends_in, is_blank, is_blank_line, opened
from training.files.errors import DataError
from training.telling import tell_once

MAX_TEXT_BLOCK = 1 << 24  # bytes of a record; longer ones mean that the file separates none

_TEXT = r"""(?: text|sentence|sent|query|question|q|s|title|headline|str|string|input|output|document|doc|passage
    | premise|hypothesis|anchor|positive|negative|pos|neg|source|src|target|tgt|reference|ref|summary|abstract
    | content|article|body|answer|written|prediction|review|comment|cat|category|class|sentiment|keyword )s?"""
_NUMBER = r"(?:[ _-]?(?:\d+|[a-c]))?"  # of several such columns
# What is in a column, by its name; a line is a heading where every column has such a name.
COLUMNS = {
    kind: re.compile(pattern, re.VERBOSE | re.IGNORECASE)
    for kind, pattern in {
        "id": rf"\#?(?: id|idx|index|no|guid|uid | qids?{_NUMBER} | 序号|编号)",
        "score": rf"""(?:label|score|similarity|sim|gold|is_duplicate)s? (?:[ _-]?(?:score|label))? {_NUMBER}
            | {_TEXT} [ _-]?(?:score|label) | 标签|分数|相似度""",
        "text": rf"""{_TEXT} {_NUMBER}
            | 标题|题目|摘要|正文|内容|文本\d?|原文|句子\d?|问题\d?|答案|评论|情感|类别|分类|关键词""",
    }.items()
}


def endings(*kinds: str) -> tuple[str, ...]:
    """Of files of these kinds, compressed or not."""
    return tuple(kind + packed for kind in kinds for packed in COMPRESSED)


TEXT_SUFFIXES, JSON_SUFFIXES, TABLE_SUFFIXES = endings(".txt"), endings(".jsonl", ".json"), endings(".tsv", ".csv")
_WITHIN = re.compile(rb'[^"]*(?:""[^"]*)*')  # a text in quotation marks, where a mark is two
CSV_SUFFIXES, _MAYBE_ARRAY = endings(".csv"), endings(".json")


class BadRecord(DataError):
    """A record that cannot be used; `reason` is the kind of fault, for counting."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)  # both, so that it can be sent between processes
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


class Record(NamedTuple):
    """One record, unparsed: where it lies, and its bytes (the JSON, the row, or the text; None for a null)."""

    path: str
    line: int  # of its first line, row or example, from 1
    data: bytes | None
    names: tuple[str, ...] = ()  # of a table's columns

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.line}"


def read_rows(path: str, wanted: Sequence[str] = ()) -> Iterator[Record]:
    """The records of a file in order, unparsed. Blank lines are records without text; but those at the end are none,
    except of .txt and standard input.

    wanted: names of columns by which a table's first line is known to be a heading, beside the usual ones. Raises
    DataError where the file cannot be read on.
    """
    with opened(path) as lines:
        rows: Iterator[Record] = (Record(path, number, line) for number, line in enumerate(lines, 1))
        if ends_in(path, _MAYBE_ARRAY):
            rows = _objects(path, rows)
        elif ends_in(path, TABLE_SUFFIXES):
            rows = _named(_quoted(rows) if ends_in(path, CSV_SUFFIXES) else rows, wanted)
        keep, blank = path == "-" or ends_in(path, TEXT_SUFFIXES), list[Record]()
        for row in rows:
            if not keep and is_blank_line(row.data or b""):
                blank.append(row)
                continue
            if blank:
                yield from blank
                blank.clear()
            yield row


def _objects(path: str, lines: Iterator[Record]) -> Iterator[Record]:
    """The objects of an array that begins on the first line that is not blank, or the one object that the file is; else
    the lines."""
    before: list[Record] = []
    for line in lines:
        before.append(line)
        if not is_blank_line(line.data or b""):
            break
    begins = (before[-1].data or b"").lstrip() if before else b""
    if begins.startswith(b"{") and not _is_json(begins):
        lines = iter(rest := [*lines])
        whole = b"".join(line.data or b"" for line in (before[-1], *rest))
        if _is_json(whole):
            yield before[-1]._replace(data=whole)
            return
    if not begins.startswith(b"["):
        yield from chain(before, lines)
        return
    everything = Record(path, 1, b"".join(line.data or b"" for line in chain(before, lines)))
    text, decode, end, number = decoded(everything), json.JSONDecoder().raw_decode, 0, 1
    gap = re.compile(r"[ \t\r\n]*([\[,\]]?)[ \t\r\n]*")
    while found := gap.match(text, end):
        number += text.count("\n", end, found.end())
        begin, mark = found.end(), found[1] if found[1] != "[" or not end else ""
        if mark == "]" and is_blank(text[begin:]):
            return
        if mark in ("]", ""):
            raise DataError(f"{path}, line {number}: broken JSON (neither , nor the end of the array); repair it")
        try:
            end = decode(text, begin)[1]
        except (ValueError, RecursionError) as error:
            if mark == "[" and text[begin : begin + 1] == "]" and is_blank(text[begin + 1 :]):
                return
            raise DataError(f"{path}, line {number}: broken JSON ({error}); repair it") from None
        yield Record(path, number, text[begin:end].encode("utf-8", "surrogatepass"))
        number += text.count("\n", begin, end)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _quoted(lines: Iterator[Record]) -> Iterator[Record]:
    """The lines of a .csv, those that a text in quotation marks holds together as one."""
    held: list[bytes] = []
    size = first = 0
    for line in lines:
        data = line.data or b""
        first = first if held else line.line
        is_open = _stays_open(data, bool(held)) if b'"' in data else bool(held)
        held.append(data)
        size += len(data)
        if not is_open:
            yield Record(line.path, first, b"".join(held))
            held, size = [], 0
        elif size > MAX_TEXT_BLOCK:
            break
    if held:
        raise DataError(f"{line.path}, line {first}: a quotation mark that nothing closes; double it, or remove it")


def _stays_open(line: bytes, is_open: bool) -> bool:
    """Does a text in quotation marks go on behind this line of a .csv, where one did before it or not? A mark opens one
    at the beginning of a column alone: in 5.5" it is a character."""
    at = 0 if is_open or line.startswith(b'"') else line.find(b',"') + 1
    if not is_open and line[at : at + 1] != b'"':
        return False
    at += not is_open
    while (end := _WITHIN.match(line, at).end()) < len(line):  # type: ignore[union-attr]  # it matches nothing, too
        at = line.find(b',"', end + 1) + 2
        if at == 1:
            return False
    return True


def _named(rows: Iterator[Record], wanted: Sequence[str]) -> Iterator[Record]:
    """The rows below the heading, the first that is not blank, with its names; all of them where there is none."""
    blank: list[Record] = []
    for first in rows:
        if not is_blank_line(first.data or b""):
            break
        blank.append(first)
    else:
        yield from blank
        return
    names = tuple(cell.strip() for cell in _cells(first))
    if len(names) == 1 and ends_in(first.path, CSV_SUFFIXES):
        for mark, how in ((";", "write it with commas"), ("\t", "name it .tsv")):
            between = [name.strip('" ') for name in names[0].split(mark)]
            if len(between) > 1 and all(name in wanted or _is_known(name) for name in between):
                raise DataError(f"{first.place}: names with {mark!r} between them, and a .csv has commas; {how}")
    if len(names) > 1:
        heading = {*wanted} <= {*names} if wanted else False
        heading = heading or all(_is_known(name) for name in names)
    else:
        heading = bool(names) and names[0] in wanted
    if not heading:
        yield from (*blank, first)
    elif len({*names}) < len(names):
        raise DataError(f"{first.place}: two columns have the same name; rename one")
    for row in rows:
        yield row._replace(names=names) if heading else row


def _is_known(name: str) -> bool:
    return any(column.fullmatch(name) for column in COLUMNS.values())


def decoded(record: Record) -> str:
    """The text of a record's bytes. Raises BadRecord."""
    data = record.data or b""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = record.line + data.count(b"\n", 0, error.start)
        encoding = encoding_of(data)
        how = f", as by iconv -f {encoding} -t utf-8" if encoding else ""
        raise BadRecord(
            "not UTF-8",
            f"{record.path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file{how}",
        ) from error
    if b"\0" in data and len(data) > 8 and 0.3 < data.count(0) / len(data) < 0.6:
        raise BadRecord("not UTF-8", f"{record.place}: every other byte is 0, as in UTF-16; convert the file")
    if b"\0" in data:
        tell_once(f"{record.path}: U+0000 in texts, which is read as it stands; remove it, as by tr -d '\\000'")
    return text


def cells(record: Record) -> list[str] | dict[str, Any]:
    """What a record holds: an object's fields, a row's by the names of the columns, else the columns or the line.
    Raises BadRecord for what is none of these, or has another number of columns than names."""
    if ends_in(record.path, JSON_SUFFIXES):
        return json_object(record)
    if not ends_in(record.path, TABLE_SUFFIXES):
        return [decoded(record).rstrip("\r\n")]
    if is_blank_line(record.data or b""):
        raise _blank(record)
    found, names = _cells(record), record.names
    if not names:
        return found
    if len(found) != len(names):
        raise BadRecord(
            "another number of columns",
            f"{record.place}: {len(found)} column(s), and the first line names {len(names)}: {', '.join(names)}; "
            "mend or remove it",
        )
    return dict(zip(names, found, strict=True))


def _blank(record: Record) -> BadRecord:
    return BadRecord("blank line", f"{record.place} is blank: remove it")


def _cells(record: Record) -> list[str]:
    text = decoded(record).rstrip("\r\n")
    if not ends_in(record.path, CSV_SUFFIXES):
        return text.split("\t")
    csv.field_size_limit(MAX_TEXT_BLOCK)
    try:
        rows = [*csv.reader([text] if "\n" not in text else io.StringIO(text, newline=""), strict=True)]
    except csv.Error as error:
        raise BadRecord("broken CSV", f"{record.place}: broken CSV ({error}); repair it") from error
    if len(rows) > 1:
        raise BadRecord("broken CSV", f"{record.place}: broken CSV ({len(rows)} rows in one); repair it")
    return rows[0] if rows else [""]


def json_object(record: Record) -> dict[str, Any]:
    """The fields of a JSON object. Raises BadRecord."""
    text = decoded(record)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        if is_blank(text):
            raise _blank(record) from None
        problem = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        hint = "; a JSON array goes in a .json, or one object a line" if text.lstrip().startswith("[") else ""
        raise BadRecord("broken JSON", f"{record.place}: broken JSON ({problem}){hint}; repair it") from error
    if isinstance(fields, list):
        raise BadRecord(
            "not a JSON object", f"{record.place}: not a JSON object, but a JSON array; write one object a line"
        )
    if not isinstance(fields, dict):
        raise BadRecord("not a JSON object", f"{record.place}: not a JSON object; write one a line")
    return fields


def around_array(fields: Mapping[str, Any]) -> str:
    """What to do with an object that holds the records in an array, such as {"data": [{…}, …]}; of others nothing."""
    found = [name for name, value in fields.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return f"the records are in an array within {found[0]!r}: keep that alone, as by jq .{found[0]}" if found else ""


def text_of(fields: dict[str, Any], name: str, place: str, flag: str = "--field") -> str:
    """The text in a field. Raises BadRecord where there is none, naming the flag that takes another."""
    if name not in fields:
        names = ", ".join(list(fields)[:20])
        remedy = around_array(fields) or f"give {flag} one of: {names}"
        raise BadRecord("missing field", f"{place}: no field {name!r}; {remedy}")
    text = fields[name]
    if not isinstance(text, str):
        kind = type(text).__name__
        raise BadRecord(
            "field not a string", f"{place}: field {name!r} is {kind}, not a string; mend it, or give another {flag}"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(
            "not Unicode", f"{place}: half of a surrogate pair in {name!r}; write the file again"
        ) from error
    return text
