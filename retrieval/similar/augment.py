"""A labelled set that grows: each pair again with the first text's similar questions in its place."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retrieval.pairs.same import said
from retrieval.texts import labelled, read_columns
from training.files.atomic import atomic_write
from training.telling import tell


class Labelled(NamedTuple):
    first: str
    second: str
    label: str  # as it is written


def read_labelled(path: str) -> Iterator[Labelled]:
    """The pairs of a file, and their labels. Raises DataError, with file, line and remedy."""
    for row in read_columns(path):
        yield Labelled(*labelled(row))


def write_augmented(pairs: Sequence[Labelled], drawn: Path, out: Path) -> None:
    """The pairs, and then those of their first texts' similar questions, which `drawn` has a line of each of; it is
    removed.

    A pair that is there already is not written again, nor a text beside itself, whatever the case, width, white space
    and punctuation: a vocabulary may write none of the capitals of a file. Tells how many rows came.
    """
    with drawn.open(encoding="utf-8", errors="surrogatepass") as file:
        similar = {row["text"]: [found["text"] for found in row["similar"]] for row in map(json.loads, file)}
    there = {(said(pair.first), said(pair.second)) for pair in pairs}
    new: list[Labelled] = []
    for pair in pairs:
        for text in similar[pair.first]:
            both = said(text), said(pair.second)
            if both[0] != both[1] and both not in there:
                there.add(both)
                new.append(pair._replace(first=text))
    with atomic_write(out) as temporary, temporary.open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.writelines(map(_line, [*pairs, *new]))
    drawn.unlink()
    without = sum(not found for found in similar.values())
    tell(
        f"{out}: {len(pairs):,} labelled pairs, and {len(new):,} more of them with similar questions of "
        f"{len(similar) - without:,} texts; {without:,} texts had none"
    )


def _line(pair: Labelled) -> str:
    """A line of .tsv: tabs and ends of lines within a text are blanks."""
    return "\t".join(" ".join(cell.split()) for cell in pair) + "\n"
