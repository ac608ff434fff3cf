"""The n-th commonest number is the n-th commonest token (Su, https://kexue.fm/archives/8213)."""

import numpy as np


def by_rank(numbers: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Counts [n] of numbers and [m] of tokens -> float32 [n, m], of which one is 1 in each row; of numbers beyond the
    last token none is."""
    found = np.zeros((len(numbers), len(tokens)), np.float32)
    orders = (np.argsort(-counts, kind="stable") for counts in (numbers, tokens))
    count = min(len(numbers), len(tokens))
    one, other = (order[:count] for order in orders)
    found[one, other] = 1
    return found
