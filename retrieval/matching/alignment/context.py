"""Numbers and tokens matched so that what stands beside them agrees, in turns: a matching gives numbers' neighbours as
tokens, whose distributions are compared with each token's own, which gives the next matching.

It begins with what needs no matching: how unequal a token's neighbours are, and how often it begins and ends a text.
The commonest come first, and the others as these are known. Matchings are soft, and get sharper (softassign: Gold and
Rangarajan 1996, of graph matching). Letters: n numbers, m tokens, K neighbours.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from retrieval.matching.alignment.statistics import Statistics

FIRST, TURNS = 100, 8  # of the commonest are matched, for so many turns
GROWTH = 1.3  # times as many in each of the next turns
LAST = 10  # turns with all of them
WIDER = 1.5  # times as many tokens as numbers are looked at: the ranks differ
NEIGHBOURS = 60  # K
WEIGHTS = (2 / 3, 1 / 3)  # of what stands next to it, and of what stands one further
FREQUENCY = 0.05  # weight of the difference of log frequencies, beside likenesses in [0, 2]
TEMPERATURES = (0.085, 0.06, 0.042, 0.034)  # of the matchings, a quarter of the turns each
SURE = 0.2  # a smaller share says nothing of neighbours
BALANCING = 30  # rounds of Sinkhorn


def by_context(
    numbers: Statistics, tokens: Statistics, told: Callable[[int, int], object] = lambda turn, turns: None
) -> np.ndarray:
    """float32 [n, m], shares of a number that are a token: each row sums to 1. told: of each turn, and how many."""
    n, m = len(numbers.counts), len(tokens.counts)
    sizes = sizes_of(n, m)
    match, context = np.zeros((n, m), np.float32), Context(numbers, tokens)
    for turn, size in enumerate(sizes):
        one, other = numbers.order[:size], tokens.order[: int(size * WIDER)]
        likeness = context.likeness(match, one, other) if turn else context.unlabelled(one, other)
        match = np.zeros((n, m), np.float32)
        match[np.ix_(one, other)] = balanced(likeness / TEMPERATURES[turn * len(TEMPERATURES) // len(sizes)])
        told(turn + 1, len(sizes))
    return match


def sizes_of(n: int, m: int) -> list[int]:
    """How many of the commonest numbers are matched, in each turn."""
    sizes = [FIRST] * TURNS
    while sizes[-1] < max(n, m):
        sizes.append(int(sizes[-1] * GROWTH) + 1)
    return sizes + [max(n, m)] * LAST


class Context:
    """What stands beside numbers and beside tokens, compared: Bhattacharyya coefficients of the distributions of what
    stands before and after, next and one further, summed by weight, so at most 2; less the difference in frequency."""

    def __init__(self, numbers: Statistics, tokens: Statistics) -> None:
        self._logs = [np.log((x.counts + 0.5) / max(x.counts.sum(), 1)).astype(np.float32) for x in (numbers, tokens)]
        weights = np.repeat(WEIGHTS, 2).tolist()
        self._sides = [*zip(_sides(numbers), map(_roots, _sides(tokens)), weights, strict=True)]

    def likeness(self, match: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """float32 [one, other], the numbers' neighbours being tokens by the matching float32 [n, m]."""
        n, m = match.shape
        with_end = np.zeros((n + 1, m + 1), np.float32)
        with_end[:n, :m], with_end[n, m] = np.where(match >= SURE, match, 0), 1
        known = np.flatnonzero(with_end.any(0))
        total = self._unlike(one, other)
        for ours, theirs, weight in self._sides:
            shares = ours[one] @ with_end[:, known]
            shares /= np.maximum(shares.sum(1, keepdims=True), 1)
            total += weight * np.sqrt(shares) @ theirs[other][:, known].toarray().T
        return total

    def unlabelled(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The same of distributions whose largest parts are set beside each other, whatever they are of."""
        total = self._unlike(one, other)
        for ours, theirs, weight in self._sides:
            total += weight * _largest(_roots(ours[one])) @ _largest(theirs[other]).T
        return total

    def _unlike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return -FREQUENCY * np.abs(self._logs[0][one][:, None] - self._logs[1][other][None])


def balanced(odds: np.ndarray) -> np.ndarray:
    """Log-odds [n, m] -> shares whose rows sum to 1, and whose columns sum to little more than 1 at most."""
    shares = np.exp(odds - odds.max(1, keepdims=True)).astype(np.float32)
    for _ in range(BALANCING):
        shares /= np.maximum(shares.sum(0, keepdims=True), 1)
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-30)
    return shares


def _sides(statistics: Statistics) -> list[sparse.csr_array]:
    """float32: what stands after each token, and what before it, next and one further."""
    apart = (statistics.bigrams.astype(np.float32), statistics.skips.astype(np.float32))
    return [side.tocsr() for counts in apart for side in (counts, counts.T)]


def _roots(counts: sparse.csr_array) -> sparse.csr_array:
    """Square roots of the shares in each row."""
    return (sparse.diags_array(1 / np.maximum(counts.sum(1), 1)) @ counts).sqrt().astype(np.float32).tocsr()


def _largest(roots: sparse.csr_array) -> np.ndarray:
    """float32 [n, K + 1]: the K largest of each row, in order, and the end's."""
    dense = roots.toarray()
    ranked = -np.sort(-dense[:, :-1], 1)[:, :NEIGHBOURS]
    ranked = np.pad(ranked, ((0, 0), (0, NEIGHBOURS - ranked.shape[1])))
    return np.concatenate([ranked, dense[:, -1:]], 1)
