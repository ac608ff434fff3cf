"""Texts on their way in, pairs on their way out: which are kept, why others are not, and the file that they come to."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from retrieval.pairs.same import one_line, said, tokens
from training.files.atomic import atomic_write, check_out_file
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.telling import tell

Pair = tuple[str, str]
SAME = "pairs of the same text but for marks"


@dataclass
class Tally:
    """What was read, in words, and how many were left out of it by reason."""

    read: str = ""
    dropped: Counter[str] = field(default_factory=Counter)

    def without(self) -> str:
        """ "; left out: 1,234 texts of one token, 5 pairs there already", or nothing."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common() if count)
        return f"; left out: {reasons}" if reasons else ""


def distinct(texts: Sequence[str], tally: Tally) -> list[int]:
    """The places of texts of more than one token, each once whatever its case, white space and punctuation."""
    places: dict[str, int] = {}
    for place, text in enumerate(texts):
        if len(tokens(text)) < 2:
            tally.dropped["texts of one token"] += 1
        elif (key := said(text)) in places:
            tally.dropped["texts there already"] += 1
        else:
            places[key] = place
    return list(places.values())


def sound(pairs: Iterable[Pair], tally: Tally) -> Iterator[Pair]:
    """The pairs of two texts that differ, of more than one token each; each pair once, whichever text is first."""
    there: set[Pair] = set()
    for pair in pairs:
        first, second = sorted(map(said, pair))
        if min(len(tokens(text)) for text in pair) < 2:
            tally.dropped["pairs with a text of one token"] += 1
        elif first == second:
            tally.dropped[SAME] += 1
        elif (first, second) in there:
            tally.dropped["pairs there already"] += 1
        else:
            there.add((first, second))
            yield pair


def pairs_of(group: Sequence[str], most: int, draw: random.Random) -> list[Pair]:
    """All pairs of a group, or `most` of them drawn at random where there are more; 0: all."""
    n = len(group)
    if not most or n * (n - 1) // 2 <= most:
        return list(combinations(group, 2))
    chosen: set[tuple[int, int]] = set()
    while len(chosen) < most:
        first, second = sorted(draw.sample(range(n), 2))
        chosen.add((first, second))
    return [(group[first], group[second]) for first, second in sorted(chosen)]


def check_out(out: str, inputs: Iterable[str], formats: Sequence[str] = (".tsv", ".jsonl")) -> Path:
    """Where pairs are to be written. Raises DataError."""
    path = disk_path(out, "--out")
    if path.suffix not in formats:
        raise DataError(
            f"--out {out}: it is written as {' (pairs) or '.join(formats)}" + " (groups)" * len(formats[1:])
        )
    check_out_file(path, inputs)
    return path


def finish(
    out: Path,
    rows: Sequence[Sequence[str]],
    tally: Tally,
    what: str = "pairs",
    line: Callable[[Sequence[str]], str] | None = None,
) -> int:
    """Writes the rows whole or not at all, and tells what became of what was read. Returns how many.

    line: of a row; by default a .tsv has its columns, a .jsonl {text, synonyms}. Raises DataError where there are none.
    """
    if not rows:
        raise DataError(f"{tally.read}: no {what}{tally.without()}")
    line = line or (_group if out.suffix == ".jsonl" else _columns)
    with atomic_write(out) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line(row) + "\n" for row in rows)
    tell(f"{tally.read}; {out}: {len(rows):,} {what}{tally.without()}")
    return len(rows)


def _columns(row: Sequence[str]) -> str:
    return "\t".join(map(one_line, row))


def _group(texts: Sequence[str]) -> str:
    first, *others = map(one_line, texts)
    return json.dumps({"text": first, "synonyms": others}, ensure_ascii=False)


def example(row: Sequence[str]) -> str:
    """A line of what scripts.finetune reads: source and reference."""
    return json.dumps(dict(zip(("source", "reference"), row, strict=True)), ensure_ascii=False)
