"""A small encoder of plain text, and pairs of its characters as numbers."""

from collections import Counter
from pathlib import Path

import numpy as np

from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.alphabet import make_alphabet
from retrieval.matching.pairs import Pair, Reader, Row
from retrieval.matching.start import reading_numbers
from rope.encoder.roformer import RoFormerConfig
from tests.retrieval.vectors.test_encoding import CHARACTERS, source
from tests.rope.encoder.random_encoder import ROFORMER

NUMBERS = [str(7 * n + 3) for n in range(len(CHARACTERS))]  # of each character
KEY = dict(zip(NUMBERS, CHARACTERS, strict=True))


def texts(count: int, seed: int = 0) -> list[str]:
    """Of a Markov chain, so that what stands beside a character says something of it; some characters are common."""
    random = np.random.default_rng(seed)
    size = len(CHARACTERS)
    law = np.random.default_rng(99).dirichlet(np.full(size, 0.2), size)
    found = []
    for _ in range(count):
        at, text = int(random.integers(size)), ""
        for _ in range(int(random.integers(2, 9))):
            text += CHARACTERS[at]
            at = int(random.choice(size, p=law[at]))
        found.append(text)
    return found


def as_numbers(text: str) -> str:
    return " ".join(NUMBERS[CHARACTERS.index(x)] for x in text)


def rows(count: int, seed: int = 0) -> list[tuple[str, str, int]]:
    """Pairs of numbers; alike are those whose second text begins as the first."""
    found = []
    for n, (a, b) in enumerate(zip(texts(count, seed), texts(count, seed + 1), strict=True)):
        label = n % 2
        found.append((as_numbers(a), as_numbers(a[:2] + b[:3] if label else b), label))
    return found


def write_rows(path: Path, count: int, seed: int = 0) -> Path:
    path.write_text("".join(f"{a}\t{b}\t{label}\n" for a, b, label in rows(count, seed)))
    return path


def small(config: RoFormerConfig = ROFORMER, count: int = 64) -> tuple[TextEncoder, list[Pair]]:
    """An encoder whose rows of numbers are random, and pairs."""
    found = rows(count)
    alphabet = make_alphabet(Counter(NUMBERS), 1)
    encoder = reading_numbers(source(config), alphabet, np.zeros((len(NUMBERS), 1), np.float32), drawn=True)
    reader = Reader(alphabet)
    return encoder, [reader.pair(Row("", a, b, label)) for a, b, label in found]
