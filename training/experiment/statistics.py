"""Means with 95 % intervals: Student's over runs, and bootstraps over examples, over both, and of rank correlations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, t

RESAMPLES = 2000
BOUNDS = [2.5, 97.5]  # percentiles
Runs = Mapping[int, Sequence[float]]  # seed -> what it scored on each example; a seed may be missing


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: int, sign: str = "") -> str:
        """As a table has it; sign "+" marks what is above 0."""
        mean, low, high = (f"{value:{sign}.{digits}f}" for value in self)
        return mean if np.isnan(self.low) else f"{mean} [{low}, {high}]"


def estimate(values: np.ndarray, seed: int = 0, counts: np.ndarray | None = None) -> Estimate:
    """Of values [seeds, examples], by a bootstrap of both:
    resampled seeds, and examples that are the same for all seeds.

    Of differences between two methods, seed by seed and example by example, it keeps each pair together. Where a seed
    has one number, values are [seeds, 1]. counts [examples]: values are sums over so many things of each example, and
    the mean is that of the things; NaN where there are none.
    """
    rng = np.random.default_rng(seed)
    # How often each seed and each example is drawn is all that a resample's mean needs.
    seeds, examples = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in values.shape)
    means = np.einsum("rs,se,re->r", seeds, values, examples, optimize=True)
    mean = values.mean()
    if counts is not None:
        if not counts.any():
            return Estimate(np.nan, np.nan, np.nan)
        size = examples @ counts
        means, mean = means[size > 0] / size[size > 0], mean / counts.mean()
    low, high = np.percentile(means, BOUNDS)
    return Estimate(float(mean), float(low), float(high))


def over_seeds(runs: Runs) -> np.ndarray:
    """[seeds there are, examples]."""
    return np.array([*runs.values()])


def differences(runs: Runs, less: Runs) -> np.ndarray:
    """[seeds that both have, examples], perhaps none: the first less the other, in pairs."""
    both = [seed for seed in runs if seed in less]
    return np.array([runs[seed] for seed in both]) - np.array([less[seed] for seed in both])


def estimate_runs(values: Sequence[float] | np.ndarray) -> Estimate:
    """Of independent runs with one number each: Student's interval, since a bootstrap of few is too narrow.
    One run has none, NaN."""
    mean, count = float(np.mean(values)), len(values)
    half = t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5 if count > 1 else np.nan
    return Estimate(mean, float(mean - half), float(mean + half))


def bounds_of_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """[2, M]: the lower and upper bounds of the means of values [examples, M],
    by one bootstrap of the examples for all."""
    draws = _resampled(len(values), resamples, np.random.default_rng(seed))
    return np.percentile(np.concatenate([counts @ values / len(values) for counts in draws]), BOUNDS, axis=0)


def spearman(scores: np.ndarray, found: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing the mean of their ranks; NaN where one of the two is constant."""
    return float(_pearson(rankdata(scores), rankdata(found), np.ones(len(scores))))


def estimate_correlations(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """Spearman's of each two arrays [n], by a bootstrap of their places; last, of the mean of all weighted by their n.

    A resample is how often each place is drawn: ranks are then running sums of these counts, in an order found once.
    """
    rng = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    for pair in pairs:
        one, other = map(_Ranks, pair)
        draws = _resampled(len(pair[0]), resamples, rng)
        drawn.append(np.concatenate([_pearson(one.of(counts), other.of(counts), counts) for counts in draws]))
    values = np.array([spearman(*pair) for pair in pairs])
    sizes = np.array([len(scores) for scores, _ in pairs], np.float64)
    values = np.append(values, np.average(values, weights=sizes))
    of_all = zip(values, np.array([*drawn, np.average(drawn, 0, sizes)]), strict=True)
    return [Estimate(float(value), *map(float, np.nanpercentile(x, BOUNDS))) for value, x in of_all]


def _resampled(size: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of `size` examples is drawn, float64 [r, size], of some resamples at a time."""
    most = max(1, 2**14 // size)
    for first in range(0, resamples, most):
        draws = [rng.integers(size, size=size) for _ in range(min(most, resamples - first))]
        yield np.stack([np.bincount(draw, minlength=size) for draw in draws]).astype(np.float64)


class _Ranks:
    """Mid-ranks of values that are each there a number of times."""

    def __init__(self, values: np.ndarray):
        _, self._group = np.unique(values, return_inverse=True)

    def of(self, counts: np.ndarray) -> np.ndarray:
        """[r, n], of counts [r, n]."""
        sizes = np.stack([np.bincount(self._group, row) for row in counts])
        return (np.cumsum(sizes, 1) - sizes / 2)[:, self._group]


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[...], of arrays [..., n]; NaN where one of the two is constant."""
    x, y = (a - np.average(a, -1, weights, keepdims=True) for a in (x, y))
    norm = np.sqrt((weights * x * x).sum(-1) * (weights * y * y).sum(-1))
    return np.divide((weights * x * y).sum(-1), norm, out=np.full(norm.shape, np.nan), where=norm > 0)
