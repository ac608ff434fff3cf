"""Queries and keys turned within the flash kernel, interpreted on a CPU, against the same turned before plain XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.layers.attention import attention
from rope.layers.flash import blocks
from rope.layers.masks import Segments
from rope.positions.angles import axial_frequencies, frequencies, grid, mixed_frequencies
from rope.positions.rotary import rotation
from tests.rope.layers.test_flash import arrays, segments

TURNED = {  # positions, pairs, and shapes
    "one row's": ("1-D", "half", {}),
    "rows of their own": ("rows", "interleaved", {}),
    "axial": ("axial", "interleaved", {"size": 32, "heads": 4}),
    "heads of their own": ("mixed", "half", {"heads": 4}),
    "heads and rows of their own": ("mixed rows", "interleaved", {}),
    "three heads": ("mixed", "interleaved", {"heads": 3}),
    "heads of 128": ("rows", "half", {"size": 128}),
    "an odd head": ("1-D", "interleaved", {"size": 6, "heads": 1}),
    "shared keys": ("rows", "half", {"heads": 4, "groups": 2}),
}


def turned(kind, pairs, implementation, length=48, dtype="float32", wide=0, **shapes):
    """Values and gradients, of frequencies too, which are lengthened by YaRN."""
    query, key, value, cotangent = arrays(queries=length, keys=length, dtype=dtype, **shapes)
    value, cotangent = (jnp.concatenate([x, x[..., :wide]], -1) for x in (value, cotangent))
    (*_, heads, size), mine = query.shape, segments(2, length, 3)
    where, theta = jnp.arange(length), frequencies(size)
    if kind not in ("1-D", "rows"):
        where, theta = grid(4, length // 4), axial_frequencies(size, 2)
    if "mixed" in kind:
        theta = mixed_frequencies(jax.random.key(2), heads, size)
    if "rows" in kind:
        where = jnp.stack([where, where[::-1] * 3])

    def of(query, key, value, theta):
        by = rotation(where, theta, magnitude=1.1)
        mask = Segments(mine, mine, causal=True)
        out = attention(query, key, value, rotation=by, layout=pairs, mask=mask, implementation=implementation)
        return (out.astype(jnp.float32) * cotangent.astype(jnp.float32)).sum(), out

    return jax.tree.leaves(jax.jit(jax.value_and_grad(of, range(4), has_aux=True))(query, key, value, theta))


def equal(mine, theirs, room=1e-5):
    for x, y in zip(mine, theirs, strict=True):
        assert x.dtype == y.dtype
        x, y = (np.asarray(a, np.float64) for a in (x, y))
        np.testing.assert_allclose(x, y, atol=room * np.abs(y).max())


@pytest.mark.parametrize("case", TURNED)
def test_turned_within_the_kernel_is_as_turned_before_plain_xla(case):
    kind, pairs, shapes = TURNED[case]
    equal(*(turned(kind, pairs, by, **shapes) for by in ("flash", "xla")))


def test_turned_where_values_are_wider_than_keys():
    equal(*(turned("mixed rows", "half", by, size=16, wide=16) for by in ("flash", "xla")))


def test_turned_in_bfloat16_to_its_rounding():
    mine, theirs = (turned("mixed rows", "half", by, dtype="bfloat16") for by in ("flash", "xla"))
    equal(mine[1:], theirs[1:], 2e-2)


@pytest.mark.parametrize("kind", ["rows", "mixed"])
def test_turned_in_chunks(kind, monkeypatch):
    """Keys are turned once, for several blocks of queries."""
    monkeypatch.setattr(blocks, "CHUNK", 128)
    monkeypatch.setattr(blocks, "AREA", 128 * 128)
    equal(*(turned(kind, "interleaved", by, length=300) for by in ("flash", "xla")))


def test_more_keys_than_angles_have_room_are_turned_before(monkeypatch):
    needed, turned_there = blocks.needed, []
    monkeypatch.setattr(blocks, "needed", lambda *key, turned: 10**12 if turned else needed(*key, turned=turned))
    monkeypatch.setattr(blocks, "of_angles", lambda angles: turned_there.append(angles))
    equal(*(turned("mixed rows", "half", by) for by in ("flash", "xla")))
    assert not turned_there


def test_turned_sharded_equals_unsharded():
    query, key, value, cotangent = arrays(rows=4, queries=64, keys=64, heads=4)
    theta = mixed_frequencies(jax.random.key(2), 4, 64)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2, 3))
    def of(query, key, value, theta, cotangent):
        out = attention(query, key, value, rotation=rotation(grid(8, 8), theta), implementation="flash")
        return (out * cotangent).sum()

    alone = of(query, key, value, theta, cotangent)
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        cut = [jax.device_put(x, jax.P(("data", "fsdp"), None, "tensor")) for x in (query, key, value, cotangent)]
        meshed = of(*cut[:3], jax.device_put(theta, jax.P()), cut[3])
    equal(*(jax.tree.leaves(x) for x in (meshed, alone)))
