"""Pseudo-summaries a second, against the plain algorithm of T5-PEGASUS with pylcs; the selections must be identical.

In an environment with this project and its `parity` extra (which brings pylcs), from the root of the repository:

    python -m benchmarks.pseudo_summaries --data news.jsonl.gz wiki.jsonl.gz

Both sides split, group and select, each on one core. `plain` scores every candidate of every round with `pylcs.lcs`, as
the original does. benchmarks/harness.py says how it is timed.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from pegasus_zh.rows.pseudo_summary import pseudo_summary
from pegasus_zh.text.sentences import group_sentences, split_sentences
from training.flags import FLAT

Selections = list[list[tuple[list[int], list[int]]]]  # of each text's groups: which sentences are in and out


@dataclass(frozen=True, kw_only=True)
class Config:
    data: tuple[Path, ...]
    """.jsonl or .jsonl.gz with a "text" in each line."""
    documents: int = 125
    """Of each file, the first."""
    clock: Annotated[Clock, FLAT] = field(default_factory=partial(Clock, repeats=3, cores=1))


def ours(texts: list[str]) -> Run:
    def select(text: str):
        return [pseudo_summary(group) for group in group_sentences(split_sentences(text, faithful=True))]

    return lambda: [select(text) for text in texts]


def plain(texts: list[str]) -> Run:
    import pylcs

    from tests.pegasus_zh.rows import reference

    def select(text: str):
        return [reference.pseudo_summary(group, lcs=pylcs.lcs) for group in reference.group(reference.segment(text))]

    return lambda: [select(text) for text in texts]


def same(texts: list[str], ours: Selections, others: Selections) -> str:
    for text, mine, other in zip(texts, ours, others, strict=True):
        assert mine == other, f"selects otherwise in {text[:50]!r}"
    return f"identical selections of {sum(map(len, ours))} groups"


def read(path: Path, documents: int) -> list[str]:
    def texts() -> Iterator[str]:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]

    return list(islice(texts(), documents))


def of_file(config: Config, path: Path) -> None:
    texts = read(path, config.documents)
    megabytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
    measure(
        f"pseudo-summaries of {path.name}, {len(texts)} documents, {megabytes:.2f} MB",
        {"ours": partial(ours, texts), "plain": partial(plain, texts)},
        config.clock,
        work=len(texts),
        unit="document",
        check=partial(same, texts),
    )


def main() -> None:
    config = tyro.cli(Config)
    in_turn(*(partial(of_file, config, path) for path in config.data))


if __name__ == "__main__":
    main()
