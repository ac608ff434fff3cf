"""What of a pair is to be guessed, chosen on the host: tokens (Devlin et al. 2019, arXiv 1810.04805), short spans of
them, or one text whole."""

from typing import Literal

import numpy as np

RATE = 0.15  # of tokens that are guessed
SPANS = np.array([0.5, 0.3, 0.2])  # of 1, 2 and 3 tokens
Masks = Literal["tokens", "spans"]


def chosen(texts: list[int], masks: Masks, random: np.random.Generator) -> np.ndarray:
    """bool [n], n the sum of the texts' lengths: each token for itself, or spans, which end with their text."""
    if masks == "tokens":
        return random.random(sum(texts)) < RATE
    # A token is in no span with probability (1 - p)(1 - p P(2 or 3))(1 - p P(3)), of which p is found to first order.
    reach = SPANS[::-1].cumsum()[::-1]  # of a span that covers the token at its 1st, 2nd, 3rd place
    parts = []
    for length in texts:
        begins = random.random(length) < RATE / reach.sum() * (1 + RATE / 2)
        lengths = random.choice(len(SPANS), length, p=SPANS) + 1
        part = np.zeros(length, bool)
        for offset in range(len(SPANS)):
            part[offset:] |= (begins & (lengths > offset))[: length - offset] if length > offset else False
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def replaced(
    ids: np.ndarray, hidden: np.ndarray, mask: int, first: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """The ids with 80 % of the hidden ones masked, 10 % another of first … size-1 and 10 % as they are."""
    kind = random.random(len(ids))
    other = random.integers(first, size, len(ids), dtype=np.int32)
    return np.where(hidden & (kind < 0.8), mask, np.where(hidden & (kind < 0.9), other, ids)).astype(np.int32)
