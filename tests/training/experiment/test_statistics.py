"""Intervals: of seeds and examples, the examples being the same for all seeds; of few runs; of rank correlations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from training.experiment.statistics import (
    _pearson,
    _Ranks,
    bounds_of_means,
    differences,
    estimate,
    estimate_correlations,
    estimate_runs,
    spearman,
)


def test_a_constant_has_no_interval():
    assert estimate(np.full((3, 50), 0.25)) == pytest.approx((0.25, 0.25, 0.25))


def test_of_one_seed_it_is_the_examples_standard_error():
    values = np.random.default_rng(0).normal(0, 1, (1, 400))
    mean, low, high = estimate(values)
    assert mean == pytest.approx(values.mean()) and (high - low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    # Ten seeds that agree leave open what the examples do.
    _, same_low, same_high = estimate(values.repeat(10, axis=0))
    assert same_high - same_low == pytest.approx(high - low, rel=0.1)


def test_seeds_that_differ_alone_make_it_as_wide_as_they_are():
    assert estimate(np.repeat([[0.0], [3.0]], 400, axis=1)) == pytest.approx((1.5, 0, 3))


def test_sums_over_so_many_things_each_have_the_mean_of_the_things():
    random = np.random.default_rng(0)
    counts = random.integers(0, 5, 400)
    things = random.normal(1, 1, counts.sum())
    sums = np.add.reduceat(np.append(things, 0), np.cumsum(counts) - counts) * (counts > 0)
    mean, low, high = estimate(sums[None], counts=counts)
    assert mean == pytest.approx(things.mean()) and (high - low) / 2 == pytest.approx(
        1.96 / len(things) ** 0.5, rel=0.15
    )
    of_one_each = random.normal(0, 1, (3, 50))
    assert estimate(of_one_each, counts=np.ones(50)) == pytest.approx(estimate(of_one_each))
    assert np.isnan(estimate(np.zeros((2, 9)), counts=np.zeros(9))).all()


def test_a_few_runs_have_students_interval():
    assert estimate_runs([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)
    assert estimate_runs([0.5]).text(2) == "0.50" and estimate_runs([0.5, 0.5]).text(2) == "0.50 [0.50, 0.50]"


def test_bounds_of_several_means_are_of_the_same_draws():
    values = np.random.default_rng(0).normal(0, 1, (400, 1))
    low, high = bounds_of_means(np.concatenate([values, values + 1], 1))
    assert (high - low) / 2 == pytest.approx([1.96 / 20] * 2, rel=0.15)
    assert [low[1] - low[0], high[1] - high[0]] == pytest.approx([1, 1])


def test_differences_are_over_the_seeds_that_both_have():
    one, other = {0: [1.0, 2.0], 2: [5.0, 6.0]}, {1: [7.0, 7.0], 2: [1.0, 4.0]}
    np.testing.assert_array_equal(differences(one, other), [[4, 2]])
    assert not differences(one, {1: [7.0, 7.0]}).size and not differences({}, {}).size


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), min_size=3, max_size=30).filter(
        lambda rows: len({a for a, _ in rows}) > 1 and len({b for _, b in rows}) > 1
    )
)
def test_spearman_is_scipys(rows: list[tuple[int, int]]):
    a, b = np.array(rows).T
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


@given(st.integers(0, 1000))
def test_a_resample_by_counts_is_the_resample(seed: int):
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 3, 40), random.standard_normal(40).round(1)
    drawn = random.integers(0, 40, 40)
    counts = np.bincount(drawn, minlength=40).astype(float)[None]
    found = _pearson(_Ranks(a).of(counts), _Ranks(b).of(counts), counts)
    assert found == pytest.approx([spearmanr(a[drawn], b[drawn]).statistic], abs=1e-9)


def test_the_interval_covers_the_truth_and_narrows():
    random = np.random.default_rng(0)
    widths = []
    for n in (100, 1600):
        x = random.standard_normal(n)
        found, same = estimate_correlations([(x, x + random.standard_normal(n))])
        assert found == pytest.approx(same, rel=1e-12)  # the mean of one, weighted, is rounded
        assert found.low < 0.69 < found.high  # of a normal law with correlation 1 / sqrt(2)
        widths.append(found.high - found.low)
    assert 3 < widths[0] / widths[1] < 5.5


def test_splits_are_weighed_by_their_sizes():
    random = np.random.default_rng(0)
    pairs = [(random.integers(0, 2, n), random.standard_normal(n)) for n in (30, 90)]
    one, other, both = estimate_correlations(pairs, 50)
    assert both.mean == pytest.approx((one.mean + 3 * other.mean) / 4)
    assert both.low < both.mean < both.high
