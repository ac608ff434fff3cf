"""Attention, masks and dropout against float64 NumPy and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.attention import attention, dropout
from rope.masks import segment_mask


def plain_attention(query, key, value, bias, mask, scale):
    """In float64, one head and query at a time; also the gradient of the output's sum of squares in value."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    out = np.zeros((*query.shape[:3], value.shape[3]))
    for b, t, n in np.ndindex(query.shape[:3]):
        scores = scale * key[b, :, n] @ query[b, t, n]
        scores += 0 if bias is None else np.asarray(bias, np.float64)[0, n, t]
        if mask is not None:
            scores = np.where(np.asarray(mask)[b, 0, t], scores, -1e9)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights / weights.sum() @ value[b, :, n]
    return out


def arrays(seed=0, rows=2, queries=5, keys=7, heads=3, size=4):
    shapes = [
        (rows, queries, heads, size),
        (rows, keys, heads, size),
        (rows, keys, heads, size),
        (1, heads, queries, keys),
    ]
    return [jax.random.normal(k, s) for k, s in zip(jax.random.split(jax.random.key(seed), 4), shapes, strict=True)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_attention_equals_numpy(with_bias, with_mask, scale):
    query, key, value, bias = arrays()
    bias = bias if with_bias else None
    segments = jnp.array([[1, 1, 2, 2, 0], [1, 2, 2, 3, 3]]), jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 3, 3, 0]])
    mask = segment_mask(*segments) if with_mask else None
    ours = attention(query, key, value, bias=bias, mask=mask, scale=scale)
    np.testing.assert_allclose(ours, plain_attention(query, key, value, bias, mask, scale or 0.5), atol=1e-5)


def test_gradients_equal_finite_differences():
    query, key, value, bias = arrays(rows=1, queries=3, keys=3, heads=1)
    mask = segment_mask(jnp.array([[1, 1, 2]]), jnp.array([[1, 1, 2]]), causal=True)

    def of(*inputs):
        return (plain_attention(*inputs, mask, 1.0) ** 2).sum()

    inputs = [np.asarray(x, np.float64) for x in (query, key, value, bias)]
    ours = jax.grad(lambda *x: (attention(*x[:3], bias=x[3], mask=mask, scale=1.0) ** 2).sum(), argnums=range(4))(
        query, key, value, bias
    )
    for number, gradient in enumerate(ours):
        for place in np.ndindex(inputs[number].shape):
            moved = [[x.copy() for x in inputs] for _ in range(2)]
            moved[0][number][place] += 1e-5
            moved[1][number][place] -= 1e-5
            assert abs((of(*moved[0]) - of(*moved[1])) / 2e-5 - gradient[place]) < 1e-4


def test_masks():
    mask = segment_mask(jnp.array([[1, 1, 2, 0]]), jnp.array([[1, 2, 2, 0]]))[0, 0]
    np.testing.assert_array_equal(mask, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    causal = segment_mask(jnp.array([[1, 1, 2, 2]]), jnp.array([[1, 1, 2, 2]]), causal=True)[0, 0]
    np.testing.assert_array_equal(causal, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])


@settings(deadline=None, max_examples=12)
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
