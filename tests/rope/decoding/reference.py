"""Beam search written down plainly: over lists, without a cache."""

from collections.abc import Callable

import numpy as np

from rope.decoding.search import Search

Hypothesis = tuple[list[int], float]  # what is written, and its score


def plain_beams(
    log_p: Callable[[list[list[int]]], np.ndarray], search: Search, end: int, longest: int, pad: int = 0
) -> Hypothesis:
    """The best hypothesis. log_p: K lists of ids, equally long, -> the log-probabilities [K, V] of the next one's."""
    count, running, pool = search.beams, [([], 0.0)], []
    for length in range(1, longest + 1):
        written = [tokens for tokens, _ in running]
        found = np.array(log_p(written + written[:1] * (count - len(written))), np.float64)
        if search.length_penalty is None:
            found = np.log(np.exp(found) + 1e-12)
        found[:, pad] = -np.inf
        reached = [
            ([*tokens, token], score + found[row, token])
            for row, (tokens, score) in enumerate(running)
            for token in range(found.shape[1])
        ]
        reached.sort(key=lambda hypothesis: -hypothesis[1])
        if search.length_penalty is None:  # bert4keras
            best, *others = reached[: len(running) if length > 1 else count]
            if best[0][-1] == end or length == longest:
                return best
            running = [best, *(other for other in others if other[0][-1] != end)]
        else:
            best = reached[: 2 * count]
            ends = [tokens[-1] == end or length == longest for tokens, _ in best]
            pool += [(t, s / length**search.length_penalty) for (t, s), e in zip(best[:count], ends, strict=False) if e]
            pool = sorted(pool, key=lambda hypothesis: -hypothesis[1])[:count]
            running = [hypothesis for hypothesis, e in zip(best, ends, strict=True) if not e][:count]
            if length == longest or (
                len(pool) == count and running[0][1] / length**search.length_penalty <= pool[-1][1]
            ):
                return pool[0]
    raise AssertionError
