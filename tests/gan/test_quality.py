"""Measures of generated images, on sets for which the answer is known."""

import numpy as np
import pytest

from gan.quality import blur, coverage, features_of, frechet, precision_recall


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


@pytest.mark.parametrize("seed", range(5))
def test_points_that_come_often_change_neither_precision_nor_recall_nor_coverage(seed):
    """Every one as often as the others, in any order, and but for rounding."""
    rng = np.random.default_rng(seed)
    sides = [points(seed, 200), 0.8 * points(seed + 10, 150)]
    many = [
        rng.permutation(np.repeat(side, times, 0) + 1e-8 * rng.normal(size=(len(side) * times, 3)))
        for side, times in zip(sides, rng.integers(2, 6, 2), strict=True)
    ]
    once = (*precision_recall(*sides), coverage(*sides))
    assert all(0.2 < value < 1 for value in once)
    for pair in ((many[0], sides[1]), (sides[0], many[1]), many):
        assert (*precision_recall(*pair), coverage(*pair)) == pytest.approx(once, abs=1e-9)


def test_coverage_needs_as_many_images_as_there_are_kinds():
    x, y = points(0), points(1)
    assert coverage(x, x) == 1 and coverage(x, x + 100) == 0
    assert coverage(x, y) > 0.8 and coverage(x, 0.05 * y) < 0.2
    few = np.repeat(x[:4], 100, 0)
    assert precision_recall(x, few)[0] == 1 and coverage(x, few) < 0.1
    assert 1 / 400 <= coverage(x, np.repeat(x[:1], 400, 0)) < 0.05


def test_blur_is_of_greys():
    assert blur(np.array([0.0, 1.0])) == 0 and blur(np.full(4, 0.5)) == 0.25


@pytest.mark.parametrize("labelled", [True, False])
def test_features(labelled):
    x = np.concatenate([points(0, 100), points(1, 100) + 3])
    found = features_of(x, np.repeat([0, int(labelled)], 100))(x)
    assert found.shape == (200, 128) and (found >= 0).all() and found.std() > 0
    np.testing.assert_array_equal(found, features_of(x, np.repeat([0, int(labelled)], 100))(x))
