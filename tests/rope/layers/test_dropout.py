"""Dropout by its laws: rate, scale, independence, the same on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.layers.dropout import attention_dropout, dropout


@settings(max_examples=12)
@given(rate=st.sampled_from([0.1, 0.3, 0.5, 0.9]), seed=st.integers(0, 2**31 - 1))
def test_dropout_keeps_its_share_scaled_and_independent(rate, seed):
    n = 1 << 18
    out = np.asarray(dropout(jnp.ones((4, n // 4)), rate, jax.random.key(seed)))
    kept = out != 0
    assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / n) ** 0.5
    np.testing.assert_allclose(out[kept], 1 / (1 - rate), rtol=1e-6)
    centred = kept - kept.mean()
    deviation = 5 * rate * (1 - rate) / n**0.5
    for other in (np.roll(centred, 1, 1), np.roll(centred, 1, 0), np.roll(centred, 64, 1)):
        assert abs((centred * other).mean()) < deviation
    again = np.asarray(dropout(jnp.ones((4, n // 4)), rate, jax.random.key(seed ^ 1))) != 0
    assert abs((centred * (again - again.mean())).mean()) < deviation


def test_dropout_is_the_same_on_every_mesh_and_off_without_a_key():
    x, key = jnp.ones((8, 16, 4)), jax.random.key(3)
    alone = dropout(x, 0.3, key)
    np.testing.assert_array_equal(dropout(x, 0.3, None), x)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))
    with jax.set_mesh(mesh):
        cut = jax.device_put(np.ones((8, 16, 4), np.float32), jax.P(("data", "fsdp"), None, "tensor"))
        sharded = jax.jit(lambda x: dropout(x, 0.3, jax.random.key(3)))(cut)
    np.testing.assert_array_equal(sharded, alone)


def weight_mask(seed, rate, rows=2, length=512, heads=4):
    """bool [rows, heads, length, length], True where a weight is kept."""
    query = jnp.zeros((rows, length, heads, 1))
    found = attention_dropout(rate, jax.random.key(seed), query, length)
    return np.asarray(jax.jit(lambda: found.dense())())


def activation_mask(seed, rate, rows=2, length=512, width=1024):
    """bool [rows, 1, length, width], True where an element is kept."""
    kept = jax.jit(lambda: dropout(jnp.ones((rows, length, width)), rate, jax.random.key(seed)) != 0)
    return np.asarray(kept())[:, None]


masks = pytest.mark.parametrize("drawn", [weight_mask, activation_mask])


@masks
@settings(max_examples=6)
@given(rate=st.sampled_from([0.1, 0.3, 0.5]), seed=st.integers(0, 2**31 - 1))
def test_dropout_is_as_independent_as_random_bits(drawn, rate, seed):
    """Rate; neighbours along each axis and far ones; rectangles, which a product of rows and columns could favour;
    another key; each within five deviations of independent draws."""
    mask = drawn(seed, rate)
    n, spread = mask.size, rate * (1 - rate)
    assert abs(mask.mean() - (1 - rate)) < 5 * (spread / n) ** 0.5
    centred = (mask - (1 - rate)).astype(np.float32) / spread**0.5
    for axis in (axis for axis in range(4) if mask.shape[axis] > 1):
        for lag in {1, 2, 64, 128} if axis > 1 else {1}:
            assert abs((centred * np.roll(centred, lag, axis)).mean()) < 5 / n**0.5
    corners = np.prod([np.roll(centred, lags, (2, 3)) for lags in ((0, 0), (1, 0), (0, 1), (1, 1))], axis=0)
    assert abs(corners.mean()) < 5 / n**0.5
    other = (drawn(seed ^ 1, rate) - (1 - rate)) / spread**0.5
    assert abs((centred * other).mean()) < 5 / n**0.5


@masks
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_has_the_spectrum_of_noise(drawn, rate):
    """The largest singular value of T rows and N S columns of independent numbers is sqrt(T) + sqrt(N S) and hardly
    more (Marchenko and Pastur 1967); and no two rows or columns are alike: all their correlations, in deviations, are
    as large as a normal law's are."""
    mask = drawn(7, rate, rows=1)[0]
    centred = (mask - (1 - rate)) / (rate * (1 - rate)) ** 0.5
    together = centred.transpose(1, 0, 2).reshape(512, -1)
    assert np.linalg.norm(together, 2) < 1.02 * sum(n**0.5 for n in together.shape)
    for vectors in (together, together.T):
        pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)] / vectors.shape[1] ** 0.5
        assert abs((pairs**2).mean() - 1) < 5 * (2 / len(pairs)) ** 0.5
        assert np.abs(pairs).max() < 7


@masks
def test_patterns_of_neighbours_are_equally_frequent(drawn):
    """Eight elements side by side, or one above another, at a rate of 1/2: 256 patterns by chi-square."""
    mask = drawn(11, 0.5)
    for axis in (2, 3):
        bits = np.moveaxis(mask, axis, -1).reshape(-1, 8)
        counts = np.bincount(bits @ (1 << np.arange(8)), minlength=256)
        expected = len(bits) / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * (2 * 255) ** 0.5


def test_the_gradient_of_dropout_is_its_mask_and_no_mask_is_saved():
    x, key = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 8)).astype(np.float32)), jax.random.key(5)
    value, back = jax.vjp(lambda x: dropout(x, 0.3, key), x)
    np.testing.assert_array_equal(back(x)[0], value)
    assert max(residual.size for residual in jax.tree.leaves(back)) <= 4 * 16


def test_attention_dropout_is_the_same_on_every_mesh_and_off_without_a_key():
    query, key = np.zeros((8, 16, 4, 2), np.float32), jax.random.key(3)
    assert attention_dropout(0.3, None, jnp.asarray(query), 16) is attention_dropout(0.0, key, query, 16) is None
    alone = attention_dropout(0.3, key, jnp.asarray(query), 24).dense()
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        cut = jax.device_put(query, jax.P(("data", "fsdp"), None, "tensor"))
        sharded = jax.jit(lambda query: attention_dropout(0.3, key, query, 24).dense())(cut)
    assert sharded.sharding.spec[:2] == (("data", "fsdp"), "tensor")
    np.testing.assert_array_equal(sharded, alone)
    with pytest.raises(ValueError, match="a dropout rate of 1"):
        attention_dropout(1.0, key, jnp.asarray(query), 24)
