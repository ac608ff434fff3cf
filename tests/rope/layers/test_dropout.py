"""Dropout by its laws: rate, scale, independence, the same on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.layers.dropout import dropout


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
