"""Alignments by name: functions of how numbers and tokens are used -> shares float32 [n, m] of a number that are a
token. A method of one's own is a row of METHODS."""

from collections.abc import Callable

import numpy as np

from retrieval.matching.alignment.context import by_context
from retrieval.matching.alignment.rank import by_rank
from retrieval.matching.alignment.statistics import Statistics
from retrieval.matching.alignment.transport import by_transport

Told = Callable[[int, int], object]  # of each turn, and how many there are
Method = Callable[[Statistics, Statistics, Told], np.ndarray]
METHODS: dict[str, Method] = {
    "rank": lambda numbers, tokens, told: by_rank(numbers.counts, tokens.counts),
    "transport": lambda numbers, tokens, told: by_transport(numbers, tokens),
    "context": by_context,
}
