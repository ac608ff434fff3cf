"""A plan that carries numbers onto tokens so that what stands beside what costs alike on both sides: Gromov-Wasserstein
(Mémoli 2011; Peyré et al. 2016), begun by the order of frequency."""

import numpy as np

from retrieval.matching.alignment.rank import by_rank
from retrieval.matching.alignment.statistics import Statistics

SIZE = 400  # of the commonest are carried; the others by rank
ITERATIONS = 200  # of conditional gradients, at most


def by_transport(numbers: Statistics, tokens: Statistics) -> np.ndarray:
    """float32 [n, m], shares of a number that are a token: each row sums to 1, but for numbers beyond the last token.

    The cost of j behind i is one less the root of the share of i's neighbours that are j: between 0 and 1, and not
    symmetric.
    """
    import ot  # a second, where it is needed

    shares = by_rank(numbers.counts, tokens.counts)
    one, other = (x.order[:SIZE] for x in (numbers, tokens))
    costs = [_cost(x, order) for x, order in ((numbers, one), (tokens, other))]
    masses = [x.counts[order] / x.counts[order].sum() for x, order in ((numbers, one), (tokens, other))]
    ranks = [np.arange(len(order), dtype=float)[:, None] for order in (one, other)]
    begin = ot.emd(*masses, ot.dist(*ranks))
    plan = ot.gromov_wasserstein(*costs, *masses, "square_loss", symmetric=False, G0=begin, max_iter=ITERATIONS)
    shares[one] = 0
    shares[np.ix_(one, other)] = plan / np.maximum(plan.sum(1, keepdims=True), 1e-30)
    return shares


def _cost(statistics: Statistics, order: np.ndarray) -> np.ndarray:
    after = statistics.bigrams[order][:, order].toarray()
    return 1 - np.sqrt(after / np.maximum(statistics.counts[order][:, None], 1))
