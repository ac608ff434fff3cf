"""Measures of generated images, on sets for which the answer is known."""

import numpy as np
import pytest

from gan.quality import blur, features_of, frechet, precision_recall


def points(seed: int, count: int = 400, size: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def test_frechet_distance_of_normal_samples():
    x = points(0)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, x + np.array([3.0, 0, 4.0])) == pytest.approx(25)
    # Of covariances C and 4 C the roots are C^(1/2) and 2 C^(1/2): what is left is tr C.
    centred = x - x.mean(0)
    assert frechet(centred, 2 * centred) == pytest.approx(np.trace(np.cov(x, rowvar=False)))


def test_precision_and_recall():
    x, y = points(0), points(1)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    precision, recall = precision_recall(x, 0.05 * y)  # all in the middle: plausible, and little of the variety
    assert precision > 0.95 and recall < 0.2


def test_blur_is_of_greys():
    assert blur(np.array([0.0, 1.0])) == 0 and blur(np.full(4, 0.5)) == 0.25


@pytest.mark.parametrize("labelled", [True, False])
def test_features(labelled):
    x = np.concatenate([points(0, 100), points(1, 100) + 3])
    found = features_of(x, np.repeat([0, int(labelled)], 100))(x)
    assert found.shape == (200, 128) and (found >= 0).all() and found.std() > 0
    np.testing.assert_array_equal(found, features_of(x, np.repeat([0, int(labelled)], 100))(x))
