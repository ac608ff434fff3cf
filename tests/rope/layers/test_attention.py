"""Attention, by XLA and by kernels, and masks, against float64 NumPy and their laws."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.layers import masks
from rope.layers.attention import attention, prepare
from rope.layers.kernels import KERNELS, Asked, Implementation, choose
from rope.layers.masks import Segments, segment_places
from rope.positions.angles import frequencies
from rope.positions.buckets import RelativeBias
from rope.positions.rerope import long_rotation
from rope.positions.rotary import rotation
from tests.rope.positions.reference import attention64, gradients64, rotate64

# In one program, where operation by operation there would be fifty.
compiled = jax.jit(attention, static_argnames=("layout", "scale", "implementation"))
segment_mask = jax.jit(masks.segment_mask, static_argnames="causal")
unilm_mask, segment_positions = jax.jit(masks.unilm_mask), jax.jit(masks.segment_positions)


def arrays(seed=0, rows=2, queries=5, keys=7, heads=4, groups=4, size=4):
    """Query, key, value, bias and a cotangent."""
    shapes = (
        (rows, queries, heads, size),
        (rows, keys, groups, size),
        (rows, keys, groups, size),
        (1, heads, queries, keys),
        (rows, queries, heads, size),
    )
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape, np.float32) for shape in shapes]


def row_segments(rows=2, length=5):
    """Two examples and padding in each row."""
    ends = np.array([[length // 2, length - 1], [length // 3, length]])[np.arange(rows) % 2]
    places = np.arange(length)
    return np.array([np.where(places < a, 1, np.where(places < b, 2, 0)) for a, b in ends])


SEGMENTS = row_segments()
KEYS = row_segments(length=7)
MASKS = {
    "none": (None, 7),
    "padding and segments": (segment_mask(SEGMENTS, KEYS), 7),
    "causal": (segment_mask(SEGMENTS, SEGMENTS, causal=True), 5),
    "unilm": (unilm_mask(SEGMENTS, np.array([[0, 1, 0, 1, 0], [0, 0, 1, 1, 1]])), 5),
    "segments": (Segments(SEGMENTS, KEYS), 7),
    "causal segments": (Segments(SEGMENTS, SEGMENTS, causal=True), 5),
}


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kind", MASKS)
def test_values_and_gradients_equal_numpy(kind, with_bias, groups):
    mask, keys = MASKS[kind]
    *inputs, bias, cotangent = arrays(keys=keys, groups=groups)
    inputs = [*inputs, bias] if with_bias else inputs
    scale = 1.0 if with_bias else None  # T5's, and the default

    def of(query, key, value, bias=None):
        out = attention(query, key, value, bias=bias, mask=mask, scale=scale)
        return (out * cotangent).sum(), out

    (_, out), ours = jax.jit(jax.value_and_grad(of, range(len(inputs)), has_aux=True))(*inputs)
    dense = mask.dense() if isinstance(mask, Segments) else mask
    reference = {"bias": bias if with_bias else None, "mask": dense, "scale": scale or 0.5}
    np.testing.assert_allclose(out, attention64(*inputs[:3], **reference), atol=1e-5)
    for mine, theirs in zip(ours, gradients64(cotangent, *inputs[:3], **reference), strict=False):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_the_reference_gradients_equal_finite_differences():
    *inputs, cotangent = (np.asarray(x, np.float64) for x in arrays(rows=1, queries=3, keys=3, heads=2, groups=1))
    mask = segment_mask(np.array([[1, 1, 2]]), np.array([[1, 1, 2]]), causal=True)

    def of(query, key, value, bias):
        return (attention64(query, key, value, bias=bias, mask=mask, scale=0.7) * cotangent).sum()

    found = gradients64(cotangent, *inputs[:3], bias=inputs[3], mask=mask, scale=0.7)
    for number, gradient in enumerate(found):
        for place in np.ndindex(inputs[number].shape):
            moved = [[x.copy() for x in inputs] for _ in range(2)]
            moved[0][number][place] += 1e-5
            moved[1][number][place] -= 1e-5
            assert abs((of(*moved[0]) - of(*moved[1])) / 2e-5 - gradient[place]) < 1e-8


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("groups", [4, 2])
def test_rotated_attention_equals_numpy(groups, layout):
    query, key, value, _, cotangent = arrays(keys=5, groups=groups, size=8)
    where, theta = np.asarray(segment_positions(SEGMENTS)), frequencies(8)
    mask = Segments(SEGMENTS, SEGMENTS)

    def of(query, key, value):
        out = attention(query, key, value, rotation=rotation(where, theta), layout=layout, mask=mask)
        return (out * cotangent).sum(), out

    (_, out), ours = jax.jit(jax.value_and_grad(of, range(3), has_aux=True))(query, key, value)
    turned = [rotate64(x, where, theta, layout) for x in (query, key)]
    reference = {"mask": mask.dense(), "scale": 8**-0.5}
    np.testing.assert_allclose(out, attention64(*turned, value, **reference), atol=1e-5)
    theirs = gradients64(cotangent, *turned, value, **reference)
    back = [rotate64(g, -where, theta, layout) for g in theirs[:2]]  # the transpose of a rotation is its inverse
    for mine, expected in zip(ours, [*back, theirs[2]], strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-5)


@pytest.mark.parametrize("factor", [None, 2.0, 1.0])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_rerope_equals_scores_of_clipped_distances(layout, factor):
    length, window = 9, 3.0
    query, key, value, _, _ = arrays(queries=length, keys=length, groups=2, size=8)
    segments = row_segments(length=length)
    where, theta = np.asarray(segment_positions(segments)), frequencies(8)
    by = jax.jit(long_rotation, static_argnums=(2, 3))(where, theta, window, factor)
    ours = compiled(query, key, value, rotation=by, layout=layout, mask=Segments(segments, segments))

    def scores(b, n):
        found = np.zeros((length, length))
        for t, s in np.ndindex(length, length):
            distance = float(where[b, t] - where[b, s])
            if abs(distance) >= window:
                beyond = 0 if factor is None else (abs(distance) - window) / factor
                distance = np.sign(distance) * (window + beyond)
            q = rotate64(query[b : b + 1, t : t + 1, n : n + 1], [[distance]], theta, layout)
            found[t, s] = np.dot(q[0, 0, 0], np.asarray(key[b, s, n // 2], np.float64)) * 8**-0.5
        return found

    expected = attention64(query, key, value, mask=segment_mask(segments, segments), scale=1, scores=scores)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    if factor == 1.0:
        plain = compiled(
            query, key, value, rotation=rotation(where, theta), layout=layout, mask=segment_mask(segments, segments)
        )
        np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_rotated_attention_by_the_kernel_is_that_of_xla(layout):
    query, key, value, _, cotangent = arrays(queries=32, keys=32, groups=2, size=16)
    segments = row_segments(length=32)
    mask, by = Segments(segments, segments), rotation(segment_positions(segments), frequencies(16))

    def of(inputs, implementation):
        out = attention(*inputs, rotation=by, layout=layout, mask=mask, implementation=implementation)
        return (out * cotangent).sum()

    step = jax.jit(jax.value_and_grad(of), static_argnums=1)
    mine, theirs = (jax.tree.leaves(step((query, key, value), by)) for by in ("flash", "xla"))
    for x, y in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_relative_bias_is_its_dense_form_to_the_bit(bidirectional):
    query, key, value, _, cotangent = arrays(keys=7)
    table = np.random.default_rng(1).standard_normal((8, 4), np.float32)

    def of(table, inputs, dense):
        bias = RelativeBias(table, bidirectional=bidirectional, max_distance=6)
        out = attention(*inputs, bias=bias.dense(5, 7) if dense else bias, mask=Segments(SEGMENTS, KEYS))
        return (out * cotangent).sum()

    step = jax.jit(jax.value_and_grad(of, (0, 1)), static_argnums=2)
    jax.tree.map(np.testing.assert_array_equal, *(step(table, (query, key, value), dense) for dense in (True, False)))


def test_a_relative_bias_of_packed_rows_is_that_of_their_segments():
    """Where two examples lie side by side, positions are those in the segments, of queries and of keys."""
    query, key, value, _, _ = arrays(keys=7)
    table = np.random.default_rng(1).standard_normal((8, 4), np.float32)
    places = segment_places(SEGMENTS, KEYS)
    bias, mask = RelativeBias(table, bidirectional=False, max_distance=6, places=places), Segments(SEGMENTS, KEYS)
    dense = jax.jit(lambda bias: bias.dense(5, 7))
    out = np.asarray(compiled(query, key, value, bias=bias, mask=mask))
    np.testing.assert_array_equal(out, compiled(query, key, value, bias=dense(bias), mask=mask))
    plain = RelativeBias(table, bidirectional=False, max_distance=6)
    for row, segment in np.ndindex(2, 2):
        mine, theirs = (np.flatnonzero(x[row] == segment + 1) for x in (SEGMENTS, KEYS))
        alone = compiled(query[row, mine][None], *(x[row, theirs][None] for x in (key, value)), bias=plain)
        np.testing.assert_allclose(out[row, mine], alone[0], atol=1e-6)


def test_what_xla_serves_is_prepared_dense_and_what_a_kernel_takes_stays():
    like = jax.ShapeDtypeStruct((2, 128, 4, 64), jnp.bfloat16)
    segments = row_segments(length=128)
    bias = RelativeBias(np.ones((8, 4), np.float32), bidirectional=True)
    mask = Segments(segments, segments, causal=True)
    for implementation in ("auto", "xla", "cudnn"):
        found = prepare(implementation, like, like, bias=bias, mask=mask)
        jax.tree.map(np.testing.assert_array_equal, found, (bias.dense(128, 128), mask.dense()))
    assert prepare("flash", like, like, bias=bias, mask=mask, dropped=True) == (bias, mask)
    with pytest.raises(ValueError, match="attention by flash has no ReRoPE"):
        prepare("flash", like, like, mask=mask, long=True)
    with pytest.raises(ValueError, match="attention by cudnn has no dropout"):
        prepare("cudnn", like, like, mask=mask, dropped=True)


@pytest.mark.parametrize("implementation", ["xla", "flash"])
def test_sharded_equals_unsharded(implementation):
    length = 128
    query, key, value, _, _ = arrays(rows=4, queries=length, keys=length, heads=4, groups=2, size=16)
    segments = row_segments(rows=4, length=length)
    by = rotation(segment_positions(segments), frequencies(16))

    @jax.jit
    def of(query, key, value, segments, by):
        mask = Segments(segments, segments)
        return attention(query, key, value, rotation=by, mask=mask, implementation=implementation)

    alone = of(query, key, value, segments, by)
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        cut = [jax.device_put(x, jax.P(("data", "fsdp"), None, "tensor")) for x in (query, key, value)]
        rows = jax.device_put((segments, by), jax.P(("data", "fsdp")))
        np.testing.assert_allclose(of(*cut, *rows), alone, atol=1e-6)


def test_the_names_of_kernels_are_what_a_config_may_say():
    assert get_args(Implementation) == ("auto", "xla", *KERNELS)


def test_pallas_is_not_run_where_the_compiler_cuts(monkeypatch):
    """On a mesh of Auto axes auto is XLA, on a TPU too; alone, in Explicit mode and within shard_map it is flash."""
    monkeypatch.setattr("rope.layers.kernels.device_kind", lambda: "TPU v5 lite")
    like = jax.ShapeDtypeStruct((8, 128, 4, 64), jnp.bfloat16)
    asked = Asked(query=like, key=like, value=like, bias=None, mask=None, dropped=False, long=False)
    found = []

    def of(x, wanted="auto"):
        found.append(choose(wanted, asked))
        return x

    def traced(devices, wanted="auto", how=lambda f: f):
        with jax.set_mesh(jax.make_mesh((devices, 1), ("data", "fsdp"), devices=jax.devices()[:devices])):
            jax.eval_shape(how(partial(of, wanted=wanted)), jax.device_put(np.zeros(8), jax.P("data")))
        return found.pop()

    auto = partial(jax.sharding.auto_axes, out_sharding=jax.P("data"))
    by_hand = partial(jax.shard_map, in_specs=jax.P("data"), out_specs=jax.P("data"))
    assert traced(8, how=auto) is None and traced(8, "xla", auto) is None
    assert traced(8, "cudnn", auto) is KERNELS["cudnn"]
    with pytest.raises(ValueError, match=r"attention by flash cannot be cut over a mesh of Auto axes \(data, fsdp\)"):
        traced(8, "flash", auto)
    assert traced(8) is traced(1, how=auto) is traced(8, how=by_hand) is KERNELS["flash"]
    of(None)
    assert found.pop() is KERNELS["flash"]


def lowered(platform: str, implementation: str, dtype="bfloat16", **arguments) -> str:
    like = jax.ShapeDtypeStruct((2, 128, 4, 64), dtype)

    def of(query, key, value):
        return attention(query, key, value, implementation=implementation, **arguments).astype(jnp.float32).sum()

    return jax.jit(jax.grad(of, range(3))).trace(like, like, like).lower(lowering_platforms=(platform,)).as_text()


SQUARE = np.zeros((2, 4, 128, 128), jnp.bfloat16)
REFUSED = {
    "no such": ({"implementation": "splash"}, "implementation is 'splash': it must be auto, xla, flash, cudnn"),
    "a dense bias": (
        {"implementation": "flash", "bias": SQUARE},
        "needs its bias as rope.positions.buckets.RelativeBias",
    ),
    "a dense mask": ({"implementation": "flash", "mask": SQUARE > 0}, "needs its mask as rope.layers.masks.Segments"),
    "in float32": (
        {"implementation": "cudnn", "dtype": "float32"},
        "computes in bfloat16 or float16, not float32 (--dtype bfloat16); use xla",
    ),
    "float16": ({"implementation": "flash", "dtype": "float16"}, "computes in bfloat16 or float32, not float16"),
    "dropped": (
        {"implementation": "cudnn", "dropout_rate": 0.1, "dropout_key": jax.random.key(0)},
        "attention by cudnn has no dropout",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kernel_that_is_not_legal_is_refused_with_the_reason(kind):
    arguments, expected = REFUSED[kind]
    with pytest.raises(ValueError) as error:
        lowered("cpu", **arguments)
    assert expected in str(error.value)


def test_lengths_and_heads_that_do_not_fit_are_refused():
    query, key, value, _, _ = arrays()
    with pytest.raises(ValueError, match="has no room for 20000 keys of this size and type"):
        attention(query, *(jnp.zeros((2, 20_000, 4, 4)),) * 2, implementation="flash")
    with pytest.raises(ValueError, match="4 heads of queries cannot share 3 heads of keys"):
        attention(query, key[:, :, :3], value[:, :, :3])


BAD = {
    "a mask of numbers": ({"mask": np.zeros((1, 1, 5, 5), np.float32)}, "a mask of float32: it must be bool"),
    "no axis of heads": ({"mask": np.ones((4, 5, 5), bool)}, "a mask of shape (4, 5, 5): it must be (4, 4, 5, 5)"),
    "a table of other heads": (
        {"bias": RelativeBias(np.zeros((32, 3)), bidirectional=True)},
        "a bias of a table (32, 3) for 4 heads",
    ),
    "places of other rows": (
        {"bias": RelativeBias(jnp.zeros((32, 4)), bidirectional=True, places=jnp.zeros((1, 5), int))},
        "a bias of places (1, 5) of queries: they must be (4, 5)",
    ),
    "other rows": ({"bias": np.zeros((3, 1, 5, 5))}, "a bias of shape (3, 1, 5, 5)"),
    "another length": ({"rotation": rotation(jnp.arange(1), frequencies(4))}, "a rotation of 1 positions, 5 queries"),
    "segments of one row": (
        {"mask": Segments(np.zeros((1, 5), int), np.zeros((1, 5), int))},
        "segments (1, 5) and (1, 5): they must be (4, 5) and (4, 5)",
    ),
    "a rotation of other rows": (
        {"rotation": rotation(np.zeros((3, 5)), frequencies(4))},
        "a rotation of 3 rows for 4 rows of queries",
    ),
    "a rotation of other heads": (
        {"rotation": rotation(np.zeros((5, 2)), np.zeros((3, 2, 2), np.float32))},
        "a rotation of 3 heads for 4 heads of queries and 4 of keys",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_would_broadcast_to_something_else_is_refused(kind):
    query, key, value, _, _ = arrays(rows=4, keys=5)
    arguments, expected = BAD[kind]
    with pytest.raises(ValueError) as error:
        attention(query, key, value, **arguments)
    assert expected in str(error.value)
    with pytest.raises(ValueError, match="do not belong together"):
        attention(query, key, value[:, :1])
    with pytest.raises(ValueError, match="they must be floats"):
        attention(query.astype(int), key, value)


def test_places_of_packed_rows_keep_the_distance_from_the_segments_first():
    query, key = jnp.array([[1, 1, 2, 2, 2, 3, 0]]), jnp.array([[1, 2, 2, 0, 0, 0]])
    np.testing.assert_array_equal(segment_places(query, key)[0, :5], [0, 1, 1, 2, 3])
    assert segment_places(query, key)[0, 6] == 3


def test_masks():
    mask = segment_mask(np.array([[1, 1, 2, 0]]), np.array([[1, 2, 2, 0]]))[0, 0]
    np.testing.assert_array_equal(mask, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    causal = segment_mask(np.array([[1, 1, 2, 2]]), np.array([[1, 1, 2, 2]]), causal=True)[0, 0]
    np.testing.assert_array_equal(causal, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])
    source_and_target = unilm_mask(np.array([[1, 1, 1, 1, 0]]), np.array([[0, 0, 1, 1, 0]]))[0, 0]
    np.testing.assert_array_equal(
        source_and_target, [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
    )
    long = unilm_mask(np.ones((1, 300), int), np.ones((1, 300), np.uint8))[0, 0]
    np.testing.assert_array_equal(long.sum(1), np.arange(1, 301))
    packed = unilm_mask(np.array([[1, 1, 2, 2]]), np.array([[0, 1, 0, 1]]))[0, 0]
    np.testing.assert_array_equal(packed, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])
