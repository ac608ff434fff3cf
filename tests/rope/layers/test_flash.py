"""The flash kernel, interpreted on a CPU, against float64 NumPy, plain XLA and the laws of attention."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from rope.layers.attention import attention
from rope.layers.dropout import attention_dropout
from rope.layers.flash import blocks
from rope.layers.masks import Segments, segment_places
from rope.positions.buckets import RelativeBias
from tests.rope.positions.reference import attention64, gradients64

flash = partial(attention, implementation="flash")


def arrays(seed=0, rows=2, queries=128, keys=128, heads=2, groups=None, size=64, dtype="float32"):
    """Query, key, value and a cotangent."""
    q, kv = (rows, queries, heads, size), (rows, keys, groups or heads, size)
    drawn = jax.random.split(jax.random.key(seed), 4)
    return [jax.random.normal(k, s, dtype) for k, s in zip(drawn, (q, kv, kv, q), strict=True)]


def segments(rows, length, seed=0, most=3):
    """Rows of 1 to `most` examples and padding, int32 [rows, length]."""
    rng, found = np.random.default_rng(seed), np.zeros((rows, length), np.int32)
    for row in found:
        ends = np.sort(rng.integers(1, length + 1, rng.integers(1, most + 1)))
        for number, (a, b) in enumerate(zip([0, *ends], ends, strict=False), 1):
            row[a:b] = number
    return jnp.asarray(found)


def made(kind, rows, queries, keys, heads, buckets=32, far=128):
    """Table, bias and mask by words: "bias", "left" (not bidirectional), "places", "segments", "causal"."""
    table = jax.random.normal(jax.random.key(9), (buckets, heads))
    q, k = segments(rows, queries, 1), segments(rows, keys, 2)
    k = q if "causal" in kind and queries == keys else k
    places = segment_places(q, k) if "places" in kind else None
    bias = partial(RelativeBias, bidirectional="left" not in kind, max_distance=far, places=places)
    mask = Segments(q, k, causal="causal" in kind) if "segments" in kind else None
    return table, bias if "bias" in kind else None, mask


CASES = {  # what, and the shapes
    "plain": ("", {}),
    "bias": ("bias", {}),
    "T5's encoder": ("bias segments", {"queries": 160, "keys": 160}),
    "T5's decoder": ("bias left segments causal", {"queries": 160, "keys": 160}),
    "cross-attention": ("segments", {"queries": 48, "keys": 200}),
    "T5-PEGASUS's cross-attention": ("bias left places segments", {"queries": 96, "keys": 256}),
    "places on both sides": ("bias places segments", {"queries": 32, "keys": 200}),
    "causal alone": ("segments causal", {"queries": 300, "keys": 300, "rows": 1}),
    "lengths of no tile": ("bias segments", {"queries": 37, "keys": 5}),
    "three heads": ("bias segments", {"heads": 3, "queries": 32}),
    "four heads in 128 lanes": ("bias segments", {"heads": 4, "size": 32, "queries": 32}),
    "heads of 128": ("bias segments", {"size": 128, "queries": 32}),
    "an odd head": ("bias segments", {"size": 5, "queries": 32}),
    "shared keys": ("bias segments", {"heads": 4, "groups": 2, "queries": 32}),
}
LONG = {
    "bias": ("bias", {"queries": 256, "keys": 384, "rows": 1}),
    "T5's encoder": ("bias segments", {"queries": 384, "keys": 384}),
    "T5's decoder": ("bias left segments causal", {"queries": 300, "keys": 300}),
    "T5-PEGASUS's cross-attention": ("bias left places segments", {"queries": 96, "keys": 300}),
    "an odd head": ("segments", {"queries": 200, "keys": 256, "size": 5, "rows": 1}),
}


def check(kind, shapes, dtype="float32", scale=0.25, far=128):
    """Values and gradients equal NumPy's: to a few roundings of the type, beside the largest number there is."""
    query, key, value, cotangent = arrays(dtype=dtype, **shapes)
    rows, queries, heads, _ = query.shape
    table, bias, mask = made(kind, rows, queries, key.shape[1], heads, far=far)

    def of(query, key, value, table):
        out = flash(query, key, value, bias=bias and bias(table), mask=mask, scale=scale)
        return (out.astype(jnp.float32) * cotangent.astype(jnp.float32)).sum(), out

    (_, out), ours = jax.jit(jax.value_and_grad(of, range(4), has_aux=True))(query, key, value, table)
    assert out.dtype == query.dtype
    dense, pull = jax.vjp(lambda t: bias(t).dense(queries, key.shape[1]), table) if bias else (None, None)
    reference = {"bias": dense, "mask": mask and mask.dense(), "scale": scale}
    given = [np.asarray(x, np.float64) for x in (query, key, value)]
    theirs = [attention64(*given, **reference), *gradients64(cotangent, *given, **reference)]
    if bias:
        theirs[-1] = pull(jnp.asarray(theirs[-1], jnp.float32))[0]
    room = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
    for mine, expected in zip([out, *ours], theirs if bias else theirs[:-1], strict=False):
        expected = np.asarray(expected, np.float64)
        np.testing.assert_allclose(np.asarray(mine, np.float64), expected, atol=room * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_numpy(case):
    check(*CASES[case])


@pytest.mark.parametrize("case", ["T5's decoder", "T5-PEGASUS's cross-attention"])
def test_bfloat16_equals_numpy_to_its_rounding(case):
    check(*CASES[case], dtype="bfloat16", scale=1 / 8)


@pytest.mark.parametrize("case", LONG)
def test_many_keys_come_in_chunks(case, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", 128)
    monkeypatch.setattr(blocks, "AREA", 128 * 128)
    assert blocks.lengths(200, 300) == (128, 256, 128, 384)
    check(*LONG[case], far=40)


def test_the_backward_pass_has_half_as_many_keys_at_once(monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", 256)
    monkeypatch.setattr(blocks, "AREA", 128 * 256)
    check("bias left segments causal", {"queries": 200, "keys": 200, "rows": 1}, far=40)


def test_a_query_that_sees_nothing_sees_all_alike():
    """Of other segments than all keys, with and without the causal mask; no gradient goes through its scores."""
    query, key, value, cotangent = arrays(queries=160, keys=160)
    mine = segments(2, 160, 1).at[:, 40:60].set(7)
    for causal in (False, True):
        mask = Segments(mine, segments(2, 160, 2), causal=causal)
        grads = jax.grad(lambda q, m=mask: (flash(q, key, value, mask=m) * cotangent)[:, 40:60].sum())(query)
        np.testing.assert_allclose(
            flash(query, key, value, mask=mask)[:, 40:60],
            jnp.broadcast_to(value.mean(1)[:, None], (2, 20, 2, 64)),
            atol=1e-6,
        )
        np.testing.assert_array_equal(grads, 0)


def dropped(case, rate, dtype="float32", **shapes):
    """Values and gradients by flash and by XLA, of one key of dropout."""
    query, key, value, cotangent = arrays(dtype=dtype, **shapes)
    table, bias, mask = made(case, len(query), query.shape[1], key.shape[1], query.shape[2])

    def of(query, key, value, table, implementation):
        options = {"dropout_rate": rate, "dropout_key": jax.random.key(3), "implementation": implementation}
        out = attention(query, key, value, bias=bias and bias(table), mask=mask, **options)
        return (out.astype(jnp.float32) * cotangent.astype(jnp.float32)).sum(), out

    step = jax.jit(jax.value_and_grad(of, range(4), has_aux=True), static_argnums=4)
    return [jax.tree.leaves(step(query, key, value, table, by)) for by in ("flash", "xla")]


@pytest.mark.parametrize("case", ["bias segments", "bias left segments causal", "bias left places segments"])
def test_dropped_weights_are_those_of_plain_xla(case):
    for mine, theirs in zip(*dropped(case, 0.3, queries=160, keys=160), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_dropped_weights_of_chunks_are_those_of_plain_xla(monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", 128)
    monkeypatch.setattr(blocks, "AREA", 128 * 128)
    for mine, theirs in zip(*dropped("bias left segments causal", 0.3, queries=200, keys=200), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_the_dropout_mask_is_the_dense_one_to_the_bit():
    """Uniform weights over values of ones in a row each: what comes out is the mask, and so it is for the gradient."""
    query, _, value, _ = arrays(rows=2, queries=160, keys=128, heads=2, size=128)
    value, key = jnp.broadcast_to(jnp.eye(128)[None, :, None], value.shape), jax.random.key(5)

    def of(value):
        return flash(query * 0, value * 0, value, dropout_rate=0.25, dropout_key=key)

    mask = attention_dropout(0.25, key, query, 128).dense()
    out, pull = jax.vjp(of, value)
    np.testing.assert_array_equal(out.swapaxes(1, 2) != 0, mask)
    np.testing.assert_allclose(out.max(), 1 / 0.75 / 128, rtol=1e-6)
    taken = pull(jnp.ones_like(out))[0]
    np.testing.assert_allclose(taken[..., 0].swapaxes(1, 2) * 128 * 0.75, mask.sum(2), rtol=1e-5)


@pytest.mark.parametrize("case", ["bias segments", "bias left places segments"])
def test_sharded_equals_unsharded(case):
    shapes = {"rows": 4, "queries": 64, "keys": 64, "heads": 4}
    query, key, value, cotangent = arrays(**shapes)
    table, bias, mask = made(case, 4, 64, 64, 4)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2, 3), has_aux=True)
    def of(query, key, value, table, cotangent, mask, places):
        made = bias(table, places=places)
        options = {"dropout_rate": 0.3, "dropout_key": jax.random.key(3)}
        out = flash(query, key, value, bias=made, mask=mask, **options)
        return (out * cotangent).sum(), out

    alone = of(query, key, value, table, cotangent, mask, bias.keywords["places"])
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        cut = [jax.device_put(x, jax.P(("data", "fsdp"), None, "tensor")) for x in (query, key, value, cotangent)]
        rows = jax.device_put((mask, bias.keywords["places"]), jax.P(("data", "fsdp")))
        heads = jax.device_put(table, jax.P(None, "tensor"))
        meshed = of(*cut[:3], heads, cut[3], *rows)
    assert meshed[1][3].sharding.spec == jax.P(None, "tensor")
    for mine, theirs in zip(jax.tree.leaves(meshed), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_no_gradient_comes_from_the_right():
    query, key, value, _ = arrays(queries=160, keys=160, rows=1)
    table, bias, _ = made("bias", 1, 160, 160, 2)
    ones = jnp.ones((1, 160), int)

    def at(query, key, value, t):
        out = flash(query, key, value, bias=bias(table), mask=Segments(ones, ones, causal=True))
        return (out[:, t] ** 2).sum()

    for t in (0, 77, 127, 128):
        _, *grads = jax.grad(at, range(3))(query, key, value, t)
        for gradient in grads:
            assert np.abs(gradient[:, : t + 1]).max(initial=0) > 0 or t == 0
            np.testing.assert_array_equal(gradient[:, t + 1 :], 0)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31 - 1), most=st.integers(1, 6))
def test_a_segment_is_as_if_alone(seed, most):
    """What other segments of its row hold changes nothing, to the bit."""
    mine, theirs = segments(2, 96, seed, most), segments(2, 128, seed + 1, most)
    query, key, value, _ = arrays(seed, queries=96, keys=128)
    other = arrays(seed + 1, queries=96, keys=128)
    table, _, _ = made("bias", 2, 96, 128, 2)

    @jax.jit
    def of(query, key, value, mine, theirs):
        places = segment_places(mine, theirs)
        bias = RelativeBias(table, bidirectional=False, places=places)
        return flash(query, key, value, bias=bias, mask=Segments(mine, theirs))

    one, out = (mine == 1)[:, :, None, None], of(query, key, value, mine, theirs)
    first = (theirs == 1)[:, :, None, None]
    changed = of(
        jnp.where(one, query, other[0]),
        *(jnp.where(first, x, y) for x, y in zip((key, value), other[1:3], strict=True)),
        mine,
        theirs,
    )
    seen = one & first.any(1, keepdims=True)
    np.testing.assert_array_equal(jnp.where(seen, out, 0), jnp.where(seen, changed, 0))


@pytest.mark.parametrize("saved", [False, True])
def test_in_a_scan_with_recomputation(saved):
    """Gradients are as without; where its output is saved the kernel is not run forwards a second time."""
    query, key, value, _ = arrays(queries=64, keys=64)
    table, bias, mask = made("bias segments", 2, 64, 64, 2)

    def of(table, query, policy):
        def layer(x, _):
            return x + jnp.tanh(flash(x, key, value, bias=bias(table), mask=mask)), None

        layer = layer if policy is None else jax.checkpoint(layer, policy=policy)
        return (jax.lax.scan(layer, query, None, length=3)[0] ** 2).sum()

    policies = jax.checkpoint_policies
    policy = policies.save_only_these_names("attention") if saved else policies.nothing_saveable
    grad = jax.jit(jax.grad(of, (0, 1)), static_argnums=2)
    for mine, theirs in zip(grad(table, query, policy), grad(table, query, None), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-4)
    program = jax.make_jaxpr(grad, static_argnums=2)(table, query, policy)
    assert used(program.jaxpr, "flash_forward") == (1 if saved else 2)


@pytest.mark.parametrize("causal", ["", "_causal"])
def test_causal_kernels_have_names_of_their_own(causal):
    """For encoder and decoder of one length have arrays of the same shapes."""
    *given, cotangent = arrays(queries=32, keys=32)
    mask = made(f"segments{causal}", 2, 32, 32, 2)[-1]
    back = jax.make_jaxpr(lambda *x: jax.vjp(partial(flash, mask=mask), *x)[1](cotangent))(*given)
    assert [used(back.jaxpr, f"flash_{way}{causal}") for way in ("forward", "backward")] == [1, 1]


def used(jaxpr, name):
    """How many kernels of this name there are whose results are used."""
    found, read = 0, {id(v) for v in jaxpr.outvars} | {id(v) for e in jaxpr.eqns for v in e.invars}
    for e in jaxpr.eqns:
        if e.primitive.name == "pallas_call":
            found += str(e.params["name"]) == name and any(id(v) in read for v in e.outvars)
        else:
            found += sum(used(inner, name) for inner in jaxprs_in_params(e.params))
    return found
