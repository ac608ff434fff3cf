"""Pseudo-summaries a second, against the plain algorithm of T5-PEGASUS with pylcs; the selections must be identical.

In an environment with this project and its `parity` extra (which brings pylcs), from the root of the repository:

    python -m benchmarks.pseudo_summaries --data news.jsonl.gz wiki.jsonl.gz

Both sides split, group and select, in one process on one core, taking turns pass by pass. `plain` scores every
candidate of every round with `pylcs.lcs`, as the original does; without pylcs it is left out and nothing is compared.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import tyro

from pegasus_zh.rows.pseudo_summary import pseudo_summary
from pegasus_zh.text.sentences import group_sentences, split_sentences
from tests.pegasus_zh.rows import reference

try:
    import pylcs
except ImportError:
    pylcs = None

Selections = list[tuple[list[int], list[int]]]


def ours(text: str) -> Selections:
    return [pseudo_summary(group) for group in group_sentences(split_sentences(text, faithful=True))]


def plain(text: str) -> Selections:
    return [reference.pseudo_summary(group, lcs=pylcs.lcs) for group in reference.group(reference.segment(text))]


def read(path: Path, documents: int) -> list[str]:
    """The first texts of a .jsonl or .jsonl.gz file with a "text" in each line."""

    def texts() -> Iterator[str]:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]

    return list(islice(texts(), documents))


def main(data: list[Path], documents: int = 125, repeats: int = 3) -> None:
    """Times `repeats` passes over the first `documents` of each file of `data` and prints the medians."""
    sides: dict[str, Callable[[str], Selections]] = {"ours": ours} | ({"plain": plain} if pylcs else {})
    for path in data:
        texts = read(path, documents)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        results: dict[str, list[Selections]] = {}
        for _ in range(repeats):
            for name, side in sides.items():
                start = perf_counter()
                results[name] = [side(text) for text in texts]
                seconds[name].append(perf_counter() - start)
                for text, selections, expected in zip(texts, results[name], results["ours"], strict=True):
                    assert selections == expected, f"{path}: {name} selects otherwise in {text[:50]!r}"
        groups = sum(map(len, results["ours"]))
        megabytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
        print(f"{path.name}: {len(texts)} documents, {groups} groups, {megabytes:.2f} MB")
        for name, times in seconds.items():
            time = median(times)
            speed = f"{len(texts) / time:9.1f} documents/s {megabytes / time:8.3f} MB/s"
            print(f"  {name:6}{speed} {1e3 * time / max(groups, 1):8.3f} ms/group")
        if pylcs:
            print(f"  identical selections, {median(seconds['plain']) / median(seconds['ours']):.1f} times as fast")


if __name__ == "__main__":
    tyro.cli(main)
