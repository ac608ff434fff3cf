"""Alignments by name: functions of what is given -> shares float32 [n, m] of a number that are a token. A method of
one's own is a row of METHODS."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.alignment.context import by_context
from retrieval.matching.alignment.likelihood import by_likelihood, expectation
from retrieval.matching.alignment.rank import by_rank
from retrieval.matching.alignment.statistics import Statistics
from retrieval.matching.alignment.transport import by_transport
from training.files.errors import DataError


class Given(NamedTuple):
    """What a method may look at."""

    numbers: Statistics  # of the alphabet's numbers, in its order
    tokens: Statistics  # of plain text, over the encoder's vocabulary
    texts: Sequence[str]  # of numbers between blanks
    alphabet: PegasusTokenizer
    source: TextEncoder  # of plain text


Told = Callable[[int, int], object]  # of each turn, and how many there are
Method = Callable[[Given, Told], np.ndarray]
METHODS: dict[str, Method] = {
    "rank": lambda given, told: by_rank(given.numbers.counts, given.tokens.counts),
    "transport": lambda given, told: by_transport(given.numbers, given.tokens),
    "context": lambda given, told: by_context(given.numbers, given.tokens, told),
    "likelihood": lambda given, told: by_likelihood(
        given.numbers, given.tokens, expectation(given.source, given.alphabet, given.texts), told
    ),
}


def shares_by(method: str, given: Given, told: Told) -> np.ndarray:
    """float32 [n, m], shares of a number that are a token, of those that the plain text has: rows sum to 1 at most.
    Raises DataError for plain text without any."""
    comes = given.tokens.counts > 0
    if not comes.any():
        raise DataError("no token of the model's vocabulary in the plain text; give other --plain")
    return np.where(comes, METHODS[method](given, told), 0).astype(np.float32)
