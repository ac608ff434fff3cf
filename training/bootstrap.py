"""Means with intervals, of an experiment repeated over seeds and scored on the same examples."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """Of values [seeds, examples], by a bootstrap of both: resampled seeds, and examples that are the same for all seeds.

    Of differences between two methods, seed by seed and example by example, it keeps each pair together.
    """
    rng = np.random.default_rng(seed)
    # How often each seed and each example is drawn is all that a resample's mean needs.
    seeds, examples = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in values.shape)
    low, high = np.percentile(np.einsum("rs,se,re->r", seeds, values, examples, optimize=True), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))
