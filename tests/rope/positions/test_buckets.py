"""Relative position buckets and biases against plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rope.positions.buckets import RelativeBias, offset_bias, relative_bias, relative_bucket


def plain_bucket(offset: int, bidirectional: bool, buckets: int = 32, far: int = 128) -> int:
    """Raffel et al. 2020 in words: exact distances first, then logarithmic ones up to `far`."""
    side = 0
    if bidirectional:
        buckets //= 2
        side = buckets if offset > 0 else 0
        distance = abs(offset)
    else:
        distance = max(-offset, 0)
    exact = buckets // 2
    if distance < exact:
        return side + distance
    scaled = np.float32(np.log(np.float32(distance) / exact)) / np.float32(math.log(far / exact)) * (buckets - exact)
    return side + min(exact + int(scaled), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_a_plain_loop(bidirectional):
    offsets = np.arange(-1000, 1001)
    ours = relative_bucket(jnp.asarray(offsets), bidirectional=bidirectional)
    np.testing.assert_array_equal(ours, [plain_bucket(int(o), bidirectional) for o in offsets])


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (3, 4), (7, 2), (1, 9), (200, 300)])
def test_bias_is_the_tables_entry_of_each_offset(queries, keys):
    table = jax.random.normal(jax.random.key(0), (32, 3))
    ours = relative_bias(table, queries, keys, bidirectional=True)
    bucket = [[plain_bucket(s - t, True) for s in range(keys)] for t in range(queries)]
    expected = np.asarray(table)[np.array(bucket)].transpose(2, 0, 1)[None]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_gradient_counts_the_offsets_of_each_bucket():
    gradient = jax.grad(lambda table: relative_bias(table, 5, 6, bidirectional=True).sum())(jnp.zeros((32, 2)))
    counts = np.bincount([plain_bucket(s - t, True) for s in range(6) for t in range(5)], minlength=32)
    np.testing.assert_allclose(gradient, np.stack([counts, counts], 1), rtol=1e-6)


def test_a_bias_at_places_is_the_tables_entry_of_each_offset():
    table = jax.random.normal(jax.random.key(0), (32, 3))
    places = np.random.default_rng(1).integers(-200, 300, (2, 4))
    ours = RelativeBias(table, bidirectional=False, places=jnp.asarray(places)).dense(4, 6)
    offsets = np.arange(6) - places[:, :, None]
    bucket = np.vectorize(lambda offset: plain_bucket(int(offset), False))(offsets)
    np.testing.assert_array_equal(ours, np.asarray(table)[bucket].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("bidirectional", [True, False])
@given(buckets=st.integers(2, 32).map(lambda n: 4 * n), far=st.integers(1, 40))
def test_offsets_beyond_the_range_share_a_bucket(bidirectional, buckets, far):
    far = buckets + 13 * far
    low, high = RelativeBias(jnp.zeros((buckets, 1)), bidirectional=bidirectional, max_distance=far).range()
    offsets = np.arange(-1300, 1300)  # twice the farthest: one shape, so compiled once
    found = np.asarray(relative_bucket(offsets, bidirectional=bidirectional, buckets=buckets, max_distance=far))
    assert len({*found[offsets <= low]}) == len({*found[offsets >= high]}) == 1
    assert -far <= low and high <= far


@pytest.mark.parametrize(("buckets", "bidirectional"), [(32, True), (32, False), (33, True), (4, True), (2, False)])
def test_the_least_distance_that_can_be_is_right_and_a_smaller_one_refused(buckets, bidirectional):
    exact = buckets // (4 if bidirectional else 2)
    offsets = np.arange(-60, 61)
    ours = relative_bucket(offsets, bidirectional=bidirectional, buckets=buckets, max_distance=exact + 1)
    np.testing.assert_array_equal(ours, [plain_bucket(int(o), bidirectional, buckets, exact + 1) for o in offsets])
    assert ours.min() >= 0 and ours.max() < buckets
    bias = RelativeBias(jnp.zeros((buckets, 1)), bidirectional=bidirectional, max_distance=exact)
    for of in (lambda: bias.dense(3, 3), bias.range):
        with pytest.raises(ValueError, match=f"{exact} a side are of exact distances, which must be 1 or more and le"):
            of()


@pytest.mark.parametrize(("buckets", "bidirectional"), [(3, True), (1, False)])
def test_too_few_buckets_are_refused(buckets, bidirectional):
    with pytest.raises(ValueError, match="0 a side are of exact distances"):
        relative_bucket(jnp.arange(3), bidirectional=bidirectional, buckets=buckets)


def test_offset_bias_of_one_query_is_a_row_of_the_whole():
    table = jax.random.normal(jax.random.key(1), (32, 2))
    whole = relative_bias(table, 8, 8, bidirectional=False)[0, :, 5]
    np.testing.assert_allclose(offset_bias(table, jnp.arange(8) - 5, bidirectional=False), whole, rtol=1e-6)
