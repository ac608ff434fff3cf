"""What examples are made of: how a text, be it a document or a pair, is found in a record."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pegasus_zh.text.documents import DOCUMENT_FILES, Files, Record, parse_record
from pegasus_zh.text.pairs import PAIR_FILES, parse_pair


@dataclass(frozen=True)
class Reader:
    """One way to read records."""

    files: Files
    parse: Callable[..., Any]  # (record, **settings) -> a text; raises BadRecord
    settings: tuple[str, ...]  # what else `parse` takes, by name: fields of a config

    def of(self, config: Any) -> Callable[[Record], Any]:
        """`parse`, by the settings that are fields of `config`."""
        return partial(self.parse, **{name: getattr(config, name) for name in self.settings})


DOCUMENTS = Reader(DOCUMENT_FILES, parse_record, ("field",))  # a text is a str
PAIRS = Reader(PAIR_FILES, parse_pair, ("pair_fields",))  # (source, reference)
