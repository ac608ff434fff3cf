"""Files of (source, reference) pairs: what is fine-tuned on, and what is written for."""

import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pegasus_zh.errors import DataError


@dataclass(frozen=True)
class Pair:
    """What a model reads, and what a person wrote for it, if that is known."""

    source: str
    reference: str | None


def read_pairs(path: str, field: str = "source", reference_field: str = "reference") -> Iterator[Pair]:
    """The pairs of a .jsonl, .tsv or .txt file (also .gz), or of standard input (-), one a line.

    .jsonl: an object with `field` and perhaps `reference_field`; .tsv: reference TAB source, as T5-PEGASUS's scripts have
    it, or a source alone; .txt and standard input: a source. Raises DataError, with file, line and remedy.
    """
    if path == "-":
        yield from (Pair(line.rstrip("\n"), None) for line in sys.stdin)
        return
    kind = Path(path.removesuffix(".gz")).suffix
    if kind not in (".jsonl", ".tsv", ".txt"):
        raise DataError(f"{path}: unknown kind of file; inputs come as .jsonl, .tsv or .txt (all may be .gz)")
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                line = line.rstrip("\r\n")
                if kind == ".jsonl":
                    yield _of_json(line, f"{path}, line {number}", field, reference_field)
                elif kind == ".tsv":
                    *before, source = line.split("\t")
                    if len(before) > 1:
                        raise DataError(f"{path}, line {number}: {len(before)} tabs; a line is reference TAB source")
                    yield Pair(source, before[0] if before else None)
                else:
                    yield Pair(line, None)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason}); convert it, e.g. with iconv -f gb18030 -t utf-8"
        ) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _of_json(line: str, place: str, field: str, reference_field: str) -> Pair:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: broken JSON ({error}); write one object a line") from error
    if not isinstance(fields, dict) or not isinstance(fields.get(field), str):
        names = ", ".join(fields) if isinstance(fields, dict) else "no object"
        raise DataError(f"{place}: no text in field {field!r}; give --field one of: {names}")
    reference = fields.get(reference_field)
    return Pair(fields[field], reference if isinstance(reference, str) else None)
