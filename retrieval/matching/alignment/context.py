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
FREQUENCY = 0.05  # weight of the difference of log frequencies, beside likenesses in [0, 2]
TEMPERATURES = (0.1, 0.07, 0.05, 0.04)  # of the matchings, a quarter of the turns each
SURE = 0.2  # a smaller share says nothing of neighbours
BALANCING = 30  # rounds of Sinkhorn


def by_context(
    numbers: Statistics, tokens: Statistics, told: Callable[[int, int], object] = lambda turn, turns: None
) -> np.ndarray:
    """float32 [n, m], shares of a number that are a token: each row sums to 1. told: of each turn, and how many."""
    n, m = len(numbers.counts), len(tokens.counts)
    sizes = [FIRST] * TURNS
    while sizes[-1] < max(n, m):
        sizes.append(int(sizes[-1] * GROWTH) + 1)
    sizes += [max(n, m)] * LAST
    logs = [np.log((x.counts + 0.5) / max(x.counts.sum(), 1)).astype(np.float32) for x in (numbers, tokens)]
    match = np.zeros((n, m), np.float32)
    for turn, size in enumerate(sizes):
        one, other = numbers.order[:size], tokens.order[: int(size * WIDER)]
        likeness = _likeness(numbers, tokens, match, one, other) if turn else _unlabelled(numbers, tokens, one, other)
        likeness -= FREQUENCY * np.abs(logs[0][one][:, None] - logs[1][other][None])
        match = np.zeros((n, m), np.float32)
        match[np.ix_(one, other)] = balanced(likeness / TEMPERATURES[turn * len(TEMPERATURES) // len(sizes)])
        told(turn + 1, len(sizes))
    return match


def balanced(odds: np.ndarray) -> np.ndarray:
    """Log-odds [n, m] -> shares whose rows sum to 1, and whose columns sum to little more than 1 at most."""
    shares = np.exp(odds - odds.max(1, keepdims=True)).astype(np.float32)
    for _ in range(BALANCING):
        shares /= np.maximum(shares.sum(0, keepdims=True), 1)
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-30)
    return shares


def _sides(statistics: Statistics) -> tuple[sparse.csr_array, sparse.csr_array]:
    """What stands after each token, and what before it."""
    return statistics.bigrams, statistics.bigrams.T.tocsr()


def _likeness(
    numbers: Statistics, tokens: Statistics, match: np.ndarray, one: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """float32 [one, other]: Bhattacharyya coefficients of the distributions of what stands before, and of what stands
    after, the numbers' by the matching; summed."""
    n, m = match.shape
    with_end = np.zeros((n + 1, m + 1), np.float32)
    with_end[:n, :m], with_end[n, m] = np.where(match >= SURE, match, 0), 1
    total = np.zeros((len(one), len(other)), np.float32)
    for ours, theirs in zip(_sides(numbers), _sides(tokens), strict=True):
        total += _roots(ours[one] @ with_end) @ _roots(theirs[other].toarray()).T
    return total


def _unlabelled(numbers: Statistics, tokens: Statistics, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The same of distributions whose largest parts are set beside each other, whatever they are of."""
    total = np.zeros((len(one), len(other)), np.float32)
    for ours, theirs in zip(_sides(numbers), _sides(tokens), strict=True):
        total += _largest(ours[one]) @ _largest(theirs[other]).T
    return total


def _largest(counts: sparse.csr_array) -> np.ndarray:
    """Square roots of the K largest shares of each row, in order, and of the end's."""
    dense = counts.toarray().astype(np.float32)
    dense /= np.maximum(dense.sum(1, keepdims=True), 1)
    ranked = -np.sort(-dense[:, :-1], 1)[:, :NEIGHBOURS]
    ranked = np.pad(ranked, ((0, 0), (0, NEIGHBOURS - ranked.shape[1])))
    return np.sqrt(np.concatenate([ranked, dense[:, -1:]], 1))


def _roots(counts: np.ndarray) -> np.ndarray:
    counts = counts.astype(np.float32)
    return np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))
