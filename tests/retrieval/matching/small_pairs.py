"""Pairs of small numbers, all different, and an alphabet that has nearly all of their numbers."""

from collections import Counter

import numpy as np

from retrieval.matching.alphabet import make_alphabet
from retrieval.matching.pairs import Pair

UNKNOWN = float("nan")
ALPHABET = make_alphabet(Counter(map(str, range(300))), 1)
FIRST, SIZE = ALPHABET.specials, ALPHABET.vocab_size


def pair(a: list[int], b: list[int], label: float = UNKNOWN) -> Pair:
    """Of ids."""
    return Pair(np.array(a, np.int32), np.array(b, np.int32), label)


def pairs(count: int, longest: int = 7, seed: int = 0, labels: tuple[float, ...] = (0, 1, UNKNOWN)) -> list[Pair]:
    """Texts of up to `longest` ids, of which every third pair has a number that is unknown on both sides; no two pairs
    are the same in either order."""
    random, found = np.random.default_rng(seed), dict[frozenset, Pair]()
    while len(found) < count:
        a, b = (random.integers(FIRST, SIZE, n).tolist() for n in random.integers(1, longest + 1, 2))
        if len(found) % 3 == 0:
            a[0] = b[-1] = -1
        found.setdefault(frozenset((tuple(a), tuple(b))), pair(a, b, labels[len(found) % len(labels)]))
    return [*found.values()]
