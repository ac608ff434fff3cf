"""Each figure against what it says, counted over all pairs, thresholds and bins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.matching.predict import probabilities, written
from retrieval.matching.score import BINS, auc, auc_interval, estimate_auc, parts_of_auc, score
from training.files.errors import DataError

Scored = tuple[np.ndarray, np.ndarray]


def both(rows: list[tuple[int, int]]) -> Scored:
    """Scores in eighths, of which many are ties, and labels."""
    scores, labels = np.array(rows, np.float64).T
    return scores / 8, labels


def rows(least: int = 1) -> st.SearchStrategy[Scored]:
    """With `least` or more of each class."""
    found = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=2 * least, max_size=40)
    return found.filter(lambda x: least <= sum(label for _, label in x) <= len(x) - least).map(both)


def above(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[ones, others]: 1 where the one scores above the other, and a half of a tie."""
    one, other = scores[labels == 1][:, None], scores[labels == 0]
    return (one > other) + 0.5 * (one == other)


@given(rows())
def test_auc_counts_all_pairs(given: Scored) -> None:
    assert auc(*given) == pytest.approx(above(*given).mean(), abs=1e-12)
    scores, labels = given
    assert auc(-scores, labels) == pytest.approx(1 - auc(*given), abs=1e-12)
    assert auc(np.exp(5 * scores) - 9, labels) == auc(*given)  # the order alone


@given(rows(2))
def test_the_interval_is_delongs(given: Scored) -> None:
    """Of DeLong et al. 1988: the variance over each class of its members' means over the other class."""
    psi = above(*given)
    m, n = psi.shape
    variance = sum((psi.mean(1) - psi.mean()) ** 2) / (m - 1) / m + sum((psi.mean(0) - psi.mean()) ** 2) / (n - 1) / n
    half = 1.96 * variance**0.5
    assert auc_interval(*given) == pytest.approx((psi.mean(), psi.mean() - half, psi.mean() + half), abs=1e-7)


def test_the_interval_holds_the_truth():
    """Of normal scores that lie 1 apart AUC is Φ(1 / √2); of 300 intervals of 95 % at least 90 % have it."""
    random, inside = np.random.default_rng(0), 0
    labels = np.repeat([0.0, 1.0], [60, 90])
    for _ in range(300):
        found = auc_interval(random.normal(size=150) + labels, labels)
        inside += found.low < 0.7602 < found.high
    assert 270 <= inside < 300


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20))
def test_what_is_written_keeps_its_order_and_six_digits(odds: list[float]) -> None:
    found = probabilities(np.float32(odds))
    kept = np.array([float(written(p)) for p in found.tolist()])
    near = np.minimum(found, 1 - found)
    assert np.abs(kept - found).max() <= 1e-5 * near.min() or (np.abs(kept - found) <= 1e-5 * near + 1e-16).all()
    assert (kept[np.argsort(found, kind="stable")] == np.sort(kept)).all()
    assert not any("e" in written(p) for p in found.tolist())


def test_what_is_tied_is_calibrated_alike_in_any_order():
    scores, labels = np.repeat([0.5, 0.8], 50), np.tile([0.0, 1.0], 50)
    found = [score(scores, x).calibration for x in (labels, np.sort(labels.reshape(2, 50), 1).ravel())]
    assert found[0] == pytest.approx(found[1]) == pytest.approx(0.15)


def test_folds_are_averaged_with_less_variance():
    """Of two folds of the same scores the AUC is the same, and the interval narrower by the root of two."""
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 300), random.normal(size=300)
    one = auc_interval(scores, labels)
    both = estimate_auc([parts_of_auc(scores, labels)] * 2)
    assert both.mean == pytest.approx(one.mean)
    assert both.high - both.mean == pytest.approx((one.high - one.mean) / 2**0.5)


def test_one_of_a_class_has_no_interval():
    found = auc_interval(np.array([0.1, 0.9, 0.5]), np.array([0, 1, 0]))
    assert found.mean == 1 and np.isnan(found.low) and np.isnan(found.high)


@given(rows())
def test_the_accuracy_is_the_best_of_all_thresholds(given: Scored) -> None:
    scores, labels = given
    found = score(*given)
    right = [np.mean((scores >= edge) == labels) for edge in np.arange(-1, 19) / 16]
    assert found.accuracy == pytest.approx(max(right), abs=1e-12)
    assert np.mean((scores >= found.threshold) == labels) == pytest.approx(found.accuracy, abs=1e-12)
    assert found.auc == auc(*given)


@given(rows())
def test_bins_are_of_nearly_equal_size_and_in_order(given: Scored) -> None:
    scores, labels = given
    found = score(*given)
    counts = [count for _, _, count in found.bins]
    assert len(counts) == min(BINS, len(scores)) and sum(counts) == len(scores) and max(counts) - min(counts) <= 1
    means = [mean for mean, _, _ in found.bins]
    assert means == sorted(means)
    assert sum(mean * count for mean, _, count in found.bins) == pytest.approx(scores.sum())
    assert sum(share * count for _, share, count in found.bins) == pytest.approx(labels.sum())


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], []])
def test_one_class_is_refused(labels):
    scores, ones = np.arange(len(labels)) / 4, sum(labels)
    for of in (auc, auc_interval, score):
        with pytest.raises(DataError, match=f"^of {len(labels)} labels {ones} are 1: AUC needs both 0 and 1$"):
            of(scores, np.array(labels, np.float64))


def test_calibration_is_that_of_the_bins():
    """Of scores that are what they say an error remains by chance: of a bin of n a normal one of deviation 0.5 / √n at
    most, 0.005, whose size is 0.004 by mean, and 0.001 the deviation of the mean of ten of them. The bound is six of
    these above it. What is moved by 0.2 errs by that.
    """
    random = np.random.default_rng(0)
    scores = random.uniform(0.25, 0.75, 100_000)
    labels = (random.random(len(scores)) < scores).astype(np.float64)
    assert 0 < score(scores, labels).calibration < 0.01
    assert score(scores + 0.2, labels).calibration == pytest.approx(0.2, abs=0.01)
    one_bin_each = np.array([0.1, 0.4, 0.8, 0.9]), np.array([0.0, 1.0, 0.0, 1.0])
    assert score(*one_bin_each).calibration == pytest.approx((0.1 + 0.6 + 0.8 + 0.1) / 4)
