"""What examples are made of: how a text, be it a document or a pair, is found in a record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pegasus_zh.text.documents import parse_record
from pegasus_zh.text.pairs import PAIR_FILES, parse_pair
from pegasus_zh.text.records import Record
from pegasus_zh.text.sources import DOCUMENT_FILES, Files


@dataclass(frozen=True)
class Reader:
    """One way to read records."""

    files: Files
    parse: Callable[..., Any]  # (record, **settings) -> a text; raises BadRecord
    settings: tuple[str, ...]  # what else `parse` takes, by name: fields of a config
    names: Callable[[Any], Sequence[str]]  # of the columns that it wants, by a config
    found: str  # where a text begins and ends, for who gave files without any that can be used

    def of(self, config: Any) -> Callable[[Record], Any]:
        """`parse`, by the settings that are fields of `config`."""
        return partial(self.parse, **{name: getattr(config, name) for name in self.settings})


DOCUMENTS = Reader(  # a text is a str
    DOCUMENT_FILES,
    parse_record,
    ("field",),
    lambda config: (config.field,),
    "a document of a .txt ends at a blank line; that of .jsonl or .parquet is the text in --field",
)
PAIRS = Reader(  # (source, reference)
    PAIR_FILES,
    parse_pair,
    ("pair_fields",),
    lambda config: config.pair_fields,
    "a pair of a .tsv is reference TAB source; that of .jsonl, .json and .csv is the two texts in --pair-fields",
)
