"""Text as numbers by a private map, to measure with: what the map is is kept apart."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from training.files.atomic import write_bytes

SPREAD = 3  # numbers are drawn of so many times as there are characters, so that they tell nothing


def characters(text: str) -> list[str]:
    """What is given a number each: the characters that are seen, in lower case as in a BERT vocabulary."""
    return [x for x in unicodedata.normalize("NFC", text.lower()) if not x.isspace()]


def private_map(texts: Iterable[str], seed: int) -> dict[str, int]:
    """Character -> number, all different, drawn by `seed` of the sorted characters: frequency decides nothing."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(characters(text))
    found = sorted(counts)
    numbers = np.random.default_rng(seed).permutation(SPREAD * len(found))[: len(found)] + 1
    return dict(zip(found, numbers.tolist(), strict=True))


def anonymised(text: str, of: dict[str, int]) -> str:
    """The text's characters as numbers between blanks."""
    return " ".join(str(of[x]) for x in characters(text))


def write_key(path: Path, of: dict[str, int]) -> None:
    """The map, a line a character: number TAB character."""
    lines = sorted((number, character) for character, number in of.items())
    write_bytes(path, "".join(f"{number}\t{character}\n" for number, character in lines).encode())
