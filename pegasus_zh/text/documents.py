"""Raw documents as one stream: mixed, cut into chunks, parsed, bad ones counted.

Reading has two steps, so that a sequential pass stays cheap while worker processes parse: `read_records`
(pegasus_zh/text/sources.py) finds where each document lies, `parse_record` makes its text.
"""

import functools
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Literal, TypeVar

from pegasus_zh.text.lines import ends_in
from pegasus_zh.text.records import JSON_SUFFIXES, BadRecord, Record, decoded, json_object, text_of
from pegasus_zh.text.sources import Source, find_sources, read_records
from training.ranges import check_ranges

CORPUS = Path(__file__).parents[1] / "corpus"  # that comes with the project: train.jsonl and heldout.jsonl
SKIP = "use --on-bad-record skip to go on without such"
OnBadRecord = Literal["stop", "skip"]
Text = TypeVar("Text")  # a document, or a pair
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class DocumentsConfig:
    """Which documents are read."""

    data: tuple[str, ...] = ()
    """Documents: files, quoted globs and tfds:NAME:FIELD; .txt, .jsonl, .json (also .gz, .zst) and .parquet."""
    field: str = "text"
    """The JSON field or Parquet column with a document's text."""
    eval_fraction: float = 0.0
    """Documents held out for evaluation, by a hash of their text; of 1/fraction or more it is one at least."""
    workers: int = 0
    """Processes that prepare; 0: one a core, 1: none beside this one."""
    on_bad_record: OnBadRecord = "stop"
    """skip: leave bad documents out and count them by reason."""

    def __post_init__(self):
        check_ranges(self, eval_fraction=(0, 1), workers=(0, 1024))


def mixed_records(
    sources: Sequence[Source], field: str = "text", wanted: Sequence[str] = (), *, together: int = 16
) -> Iterator[Record]:
    """The records of all sources in the order of `mixed`. wanted: as read_rows has it, of tables."""
    read = [functools.partial(read_records, source, field, wanted) for source in sources]
    return (record for _, record in mixed([source.size for source in sources], read, bytes_of, together=together))


def mixed(
    sizes: Sequence[int],
    streams: Sequence[Callable[[], Iterator[Item]]],
    count: Callable[[Item], int],
    *,
    together: int = 16,
) -> Iterator[tuple[int, Item]]:
    """(the stream's number, what it gives): each stream spread evenly by its size, so that any run of it all is the
    same mixture.

    sizes: of the streams; count: of what one gives. At most `together` streams are open at once: every k-th of the
    list, then every k-th from the second, and so on.
    """
    groups = -(-len(sizes) // together)
    for group in range(groups):
        turns = [(0.0, n, streams[n]()) for n in range(group, len(sizes), groups)]
        while turns:  # a heap: whichever stream has given the smallest part of itself is next
            part, n, stream = turns[0]
            if item := next(stream, None):
                yield n, item
                part += count(item) / sizes[n]
                heapq.heapreplace(turns, (part, n, stream))
            else:
                heapq.heappop(turns)


def bytes_of(record: Record) -> int:
    """Of what is in it."""
    return len(record.data or b"")


def record_chunks(records: Iterable[Record], size: float) -> Iterator[list[Record]]:
    """Successive lists of records, as `numbering` has them."""
    number = numbering(size)
    return (list(chunk) for _, chunk in groupby(records, lambda record: number(bytes_of(record))))


def numbering(size: float) -> Callable[[int], int]:
    """Says of one record after another, by its bytes, in which chunk it is: each is closed when it has `size` bytes."""
    number = held = 0

    def number_of(count: int) -> int:
        nonlocal number, held
        found, held = number, held + count
        if held >= size:
            number, held = number + 1, 0
        return found

    return number_of


def parse_record(record: Record, field: str = "text") -> str:
    """The text of a record. Raises BadRecord, with file, line and remedy, where there is none."""
    if record.data is None:
        raise BadRecord(
            "field not a string", f"{record.path}, row {record.line}: {field!r} holds no string; give another field"
        )
    if ends_in(record.path, JSON_SUFFIXES):
        return text_of(json_object(record), field, record.place)
    return decoded(record)


def parse_records(
    records: Iterable[Record], parse: Callable[[Record], Text], on_bad_record: OnBadRecord, skipped: Counter[str]
) -> Iterator[Text]:
    """What `parse` finds in the records, in order; with "skip", bad ones are left out and counted by reason in
    `skipped`. Raises BadRecord, which offers that, otherwise."""
    for record in records:
        try:
            yield parse(record)
        except BadRecord as error:
            if on_bad_record == "stop":
                raise BadRecord(error.reason, f"{error}, or {SKIP}") from error
            skipped[error.reason] += 1


def read_documents(
    data: Sequence[str],
    *,
    field: str = "text",
    on_bad_record: OnBadRecord = "stop",
    skipped: Counter[str] | None = None,
    mixed: bool = False,
) -> Iterator[str]:
    """The texts of all documents of `data` (see find_sources), in order,
    or with `mixed` those of all files side by side.

    `skipped` counts the bad ones left out.
    """
    sources = find_sources(data)
    in_order = chain.from_iterable(read_records(source, field) for source in sources)
    records = mixed_records(sources, field) if mixed else in_order
    parse = functools.partial(parse_record, field=field)
    yield from parse_records(records, parse, on_bad_record, Counter() if skipped is None else skipped)
