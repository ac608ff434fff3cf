"""The first pass of a preparation without copies: which records are copies of earlier ones, on all cores."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.workers import in_processes
from pegasus_zh.text.copies import digest, exact_copies, near_copies, signature
from pegasus_zh.text.documents import DocumentsConfig, parse_records, record_chunks
from pegasus_zh.text.records import Record
from training.files.errors import DataError
from training.ranges import check_ranges

Duplicates = Literal["keep", "exact", "near"]
_CHUNK = 2e6  # bytes of records that a worker reads at once


@dataclass(frozen=True, kw_only=True)
class CopiesConfig(DocumentsConfig):
    """Which documents, and whether copies among them are left out."""

    duplicates: Duplicates = "keep"
    """Copies of earlier documents: exact leaves out those of the same characters, near also those much alike."""
    duplicate_threshold: float = 0.8
    """Of near ones: the share of n-grams, of all in either text, from which on it is a copy."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, duplicate_threshold=(0.3, 1))
        if self.duplicates == "near" and not find_spec("datasketch"):
            raise DataError("duplicates is 'near': it needs the extra near: pip install 'pegasus-zh[near]'")

    def of_copies(self) -> dict:
        """Of these settings, what decides which documents are left out."""
        near = self.duplicates == "near"
        return {"duplicates": self.duplicates, "duplicate_threshold": self.duplicate_threshold if near else None}


@dataclass(frozen=True)
class Marks:
    """Of records, what tells copies apart; None for a bad one, which the second pass tells of."""

    examples: ExamplesConfig
    config: CopiesConfig

    def __call__(self, _: int, records: Sequence[Record]) -> list:
        mark, parse = (
            signature if self.config.duplicates == "near" else digest,
            self.examples.maker.reads.of(self.config),
        )
        marks = []
        for record in records:
            text = next(parse_records([record], parse, "skip", Counter()), None)
            joined = "\0".join(text) if isinstance(text, tuple) else text  # which comparing leaves where it is
            marks.append(None if joined is None else mark(joined))
        return marks


def copies_among(
    records: Iterator[Record], examples: ExamplesConfig, config: CopiesConfig, workers: int
) -> frozenset[int]:
    """The numbers, in order from 0, of the records whose texts are copies of earlier ones.

    Held in memory are 16 bytes of each for exact copies, 10 to 20 kB for near ones.
    """
    if config.duplicates == "keep":
        return frozenset()
    make, chunks = Marks(examples, config), enumerate(record_chunks(records, _CHUNK))
    made = in_processes(make, chunks, workers) if workers > 1 else ((i, make(i, chunk)) for i, chunk in chunks)
    by_chunk = dict(made)
    return copies_by((mark for index in sorted(by_chunk) for mark in by_chunk[index]), config)


def copies_by(marks: Iterable, config: CopiesConfig) -> frozenset[int]:
    """The same by what Marks gave of them, in order."""
    exact = config.duplicates == "exact"
    return frozenset(exact_copies(marks) if exact else near_copies(marks, config.duplicate_threshold))
