"""Of which documents something was made, to be known again by their content, wherever and whenever they were copied."""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache

from pegasus_zh.text.sources import Source
from training.files.buckets import on_disk, path_of
from training.files.errors import DataError

SHOWN = 3  # names in a message


def stamps(sources: Sequence[Source]) -> list[list]:
    """[name, size, time, sha256] of each, as JSON has it: what is made of a text costs many times its hash."""
    return [[_name(source), source.size, source.modified, _content(source)] for source in sources]


def changes(stamped: Sequence[Sequence], sources: Sequence[Source]) -> str:
    """In what the sources are not those that were stamped, in words; nothing where they are the same.

    A file is read only where its name or time is another, as of one that was copied or touched: to hash a corpus at
    every start would take minutes. Without a hash, in stamps of earlier versions and of tfds:, name and time decide.
    """
    if len(stamped) == len(sources) and all(map(_is, sources, stamped)):
        return ""
    before, now = [stamp[0] for stamp in stamped], [_name(source) for source in sources]
    if before != now:
        return f"{_listed(before)}, not {_listed(now)}"
    changed = [name for name, source, stamp in zip(now, sources, stamped, strict=True) if not _is(source, stamp)]
    return f"{_listed(changed)} with another content"


def _is(source: Source, stamp: Sequence) -> bool:
    name, size, modified, *content = stamp
    if (name, size, modified) == (_name(source), source.size, source.modified):
        return True
    return size == source.size and any(content) and content == [_content(source)]


def _name(source: Source) -> str:
    return source.path if source.path.startswith("tfds:") else os.path.basename(source.path)


@lru_cache(1 << 16)  # a vocabulary and then rows are made of the same files
def _content(source: Source) -> str | None:
    if source.path.startswith("tfds:"):
        return None
    try:
        with open(on_disk(path_of(source.path, "--data")), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{source.path}: {error.strerror or error}") from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
