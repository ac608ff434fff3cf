"""Raw documents as one stream: mixed, cut into chunks, parsed, bad ones counted.

Reading has two steps, so that a sequential pass stays cheap while worker processes parse: `read_records`
(pegasus_zh/text/sources.py) finds where each document lies, `parse_record` makes its text.
"""

import functools
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
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
    """The records of all sources, those of each spread evenly by its size, so that any run of them is the same mixture.

    At most `together` sources are open at once: every k-th of the list, then every k-th from the second, and so on.
    """
    groups = -(-len(sources) // together)
    for group in range(groups):
        turns = [
            (0.0, n, source, read_records(source, field, wanted)) for n, source in enumerate(sources[group::groups])
        ]
        while turns:  # a heap: whichever source has given the smallest part of itself is next
            part, n, source, records = turns[0]
            if record := next(records, None):
                yield record
                part += len(record.data or b"") / source.size
                heapq.heapreplace(turns, (part, n, source, records))
            else:
                heapq.heappop(turns)


def record_chunks(records: Iterable[Record], size: float) -> Iterator[list[Record]]:
    """Successive lists of records, each closed when it has `size` bytes."""
    chunk, held = [], 0
    for record in records:
        chunk.append(record)
        held += len(record.data or b"")
        if held >= size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


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
