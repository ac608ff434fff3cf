"""How often tokens come in texts, and which come beside which."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from pegasus_zh.text.tokenizers import Tokenizer

TOGETHER = 1 << 20  # tokens that are counted at once


class Statistics(NamedTuple):
    """Of texts over a vocabulary of n tokens."""

    counts: np.ndarray  # float64 [n]
    bigrams: sparse.csr_array  # [n + 1, n + 1] float64: how often i stands before j; n is the end of a text
    skips: sparse.csr_array  # the same, with one between them

    @property
    def order(self) -> np.ndarray:
        """The tokens, the commonest first; of equals the first."""
        return np.argsort(-self.counts, kind="stable")


def gather(texts: Iterable[Sequence[int]], size: int) -> Statistics:
    """Of texts as ids below `size`; negative ids are tokens outside of it, beside which nothing is counted."""
    counts = np.zeros(size)
    apart = [sparse.csr_array((size + 1, size + 1)) for _ in range(2)]  # of tokens 1 and 2 places apart
    left: list[np.ndarray] = []
    held = 0

    def add() -> None:
        nonlocal left, held
        ids = np.concatenate(left)
        known = ids[(ids >= 0) & (ids < size)]
        np.add.at(counts, known, 1)
        for n, found in enumerate(apart):
            first, second = ids[: -n - 1], ids[n + 1 :]
            both = (first >= 0) & (second >= 0) & ~((first == size) & (second == size))
            ones = np.ones(int(both.sum()))
            apart[n] = found + sparse.csr_array((ones, (first[both], second[both])), shape=found.shape)
        left, held = [], 0

    end, gap = np.array([size], np.int64), np.array([-1], np.int64)
    for text in texts:
        left += [end, np.asarray(text, np.int64), end, gap]
        held += len(text) + 3
        if held > TOGETHER:
            add()
    if left:
        add()
    return Statistics(counts, *apart)


def of_numbers(texts: Iterable[str], numbers: Sequence[str]) -> Statistics:
    """Of texts of numbers between blanks, over these numbers."""
    place = {x: n for n, x in enumerate(numbers)}
    return gather(([place.get(x, -1) for x in text.split()] for text in texts), len(numbers))


def of_plain(texts: Iterable[str], tokenizer: Tokenizer) -> Statistics:
    """Of plain texts, over a tokenizer's vocabulary; its special tokens are none."""
    ids = map(tokenizer.encode, texts)
    return gather(([-1 if i < tokenizer.specials else i for i in text] for text in ids), tokenizer.vocab_size)
