"""Rotary and sinusoidal positions: the laws they were made for, against complex numbers in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.positions.angles import angles, axial_frequencies, frequencies, grid, lookup, mixed_frequencies
from rope.positions.rotary import rotate, rotation, to_half, to_interleaved
from rope.positions.sinusoidal import sinusoidal

HEADS, SIZE = 3, 12
KINDS = {
    "1-D": (1, lambda: frequencies(SIZE)),
    "1-D, another schedule": (1, lambda: frequencies(SIZE, "t^2")),
    "2-D": (2, lambda: axial_frequencies(SIZE, 2)),
    "3-D": (3, lambda: axial_frequencies(SIZE, 3, "100^-t")),
    "mixed": (2, lambda: mixed_frequencies(jax.random.key(0), HEADS, SIZE)),
}
COORDINATE = st.floats(-50, 50, width=32)


def vectors(seed: int, rows: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (rows, HEADS, SIZE))


def turned(x, places, kind: str, layout: str) -> np.ndarray:
    """In float64 complex numbers, straight from the definition; the frequencies are ours."""
    axes, make = KINDS[kind]
    theta = np.asarray(make(), np.float64)
    angle = np.asarray(places, np.float64).reshape(len(x), -1) @ theta.reshape(-1, axes, SIZE // 2)  # [N or 1, T, F]
    angle = np.moveaxis(angle, 0, 1)
    x = np.asarray(x, np.float64)
    pairs = (x[..., 0::2], x[..., 1::2]) if layout == "interleaved" else np.split(x, 2, -1)
    product = (pairs[0] + 1j * pairs[1]) * np.exp(1j * angle)
    parts = product.real, product.imag
    return np.stack(parts, -1).reshape(x.shape) if layout == "interleaved" else np.concatenate(parts, -1)


def places(draw, kind: str, rows: int) -> np.ndarray:
    axes = KINDS[kind][0]
    values = draw(st.lists(st.lists(COORDINATE, min_size=axes, max_size=axes), min_size=rows, max_size=rows))
    return np.array(values, np.float32)[..., 0] if axes == 1 else np.array(values, np.float32)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("kind", KINDS)
def test_rotation_equals_complex_numbers(kind, layout):
    axes, make = KINDS[kind]
    where = np.random.default_rng(0).uniform(-20, 20, (5, axes)).astype(np.float32)
    where = where[:, 0] if axes == 1 else where
    x = vectors(1, 5)
    ours = rotate(x, rotation(where, make()), layout)
    np.testing.assert_allclose(ours, turned(x, where, kind, layout), atol=2e-5)


def matrices(where, theta, layout: str) -> np.ndarray:
    """R of one position for each head: [N, H, H]."""
    unit = jnp.broadcast_to(jnp.eye(SIZE, dtype=theta.dtype)[:, None], (SIZE, HEADS, SIZE))
    one = rotation(jnp.asarray(where)[None], theta)
    return np.moveaxis(np.asarray(rotate(unit[:, None], one, layout))[:, 0], 0, -1).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_difference_of_positions_is_a_rotation(kind, layout, dtype, data):
    """R(p)^T R(q) = R(q - p) to 1e-6 in float64; in float32 to what an angle of that many turns can hold."""
    p, q = places(data.draw, kind, 2)
    with jax.enable_x64(dtype == "float64"):
        theta = KINDS[kind][1]().astype(dtype)
        product = np.swapaxes(matrices(p, theta, layout), -1, -2) @ matrices(q, theta, layout)
        turns = 1 + np.abs(p).max() + np.abs(q).max() if dtype == "float32" else 1
        np.testing.assert_allclose(product, matrices(np.subtract(q, p, dtype=dtype), theta, layout), atol=1e-6 * turns)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_scores_do_not_change_when_all_positions_are_shifted(kind, data):
    where, (shift,) = places(data.draw, kind, 4), places(data.draw, kind, 1)
    query, key, theta = vectors(0, 4), vectors(1, 4), KINDS[kind][1]()

    def scores(where):
        by = rotation(where, theta)
        return jnp.einsum("TNH,SNH->NTS", rotate(query, by), rotate(key, by))

    np.testing.assert_allclose(scores(where), scores(where + shift), atol=5e-4)


@settings(max_examples=25)
@given(st.lists(COORDINATE, min_size=3, max_size=3), COORDINATE)
def test_on_a_line_two_axes_are_one(line, row):
    """Half of the dimensions turn as a 1-D head of that size does, the other half not relative to each other."""
    x, y = vectors(2, 3), vectors(3, 3)
    flat = rotation(jnp.array(line), frequencies(SIZE // 2))
    both = rotation(jnp.array([[row, at] for at in line]), axial_frequencies(SIZE, 2))
    half = SIZE // 2
    across = jnp.einsum("TNH,SNH->NTS", x[..., :half], y[..., :half])
    along = jnp.einsum("TNH,SNH->NTS", rotate(x[..., half:], flat), rotate(y[..., half:], flat))
    ours = jnp.einsum("TNH,SNH->NTS", rotate(x, both), rotate(y, both))
    np.testing.assert_allclose(ours, across + along, atol=2e-4)


@settings(max_examples=8)  # each shape is compiled
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_layouts_are_permutations_of_one_another(heads, pairs, lead):
    x = jnp.arange(heads * pairs * 2 * (lead + 1), dtype=jnp.float32).reshape(lead + 1, -1)
    np.testing.assert_array_equal(to_interleaved(to_half(x, heads), heads), x)
    np.testing.assert_array_equal(to_half(to_interleaved(x, heads), heads), x)
    by = rotation(jnp.arange(lead + 1), frequencies(2 * pairs))

    def heads_of(x):
        return x.reshape(lead + 1, heads, -1)

    turn = jax.jit(rotate, static_argnames="layout")
    one = turn(heads_of(to_half(x, heads)), by, "half").reshape(x.shape)
    np.testing.assert_allclose(one, to_half(turn(heads_of(x), by).reshape(x.shape), heads), rtol=1e-6, atol=1e-5)


def test_lengths_of_vectors_and_types_are_kept():
    by = rotation(grid(2, 3), axial_frequencies(SIZE, 2))
    x = vectors(4, 6)
    np.testing.assert_allclose(jnp.linalg.norm(rotate(x, by), axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    assert rotate(x.astype(jnp.bfloat16), by).dtype == jnp.bfloat16
    np.testing.assert_array_equal(grid(2, 3)[4], [1, 1])


def test_a_cached_table_serves_packed_rows_and_single_steps():
    table = rotation(jnp.arange(16), frequencies(SIZE))
    where = jnp.array([[0, 1, 2, 0, 1, 9]])
    x = vectors(5, 6)[None]
    taken = jax.tree.map(lambda rows: lookup(rows, where), table)
    np.testing.assert_array_equal(rotate(x, taken), rotate(x, rotation(where, frequencies(SIZE))))


def test_gradients_reach_learned_frequencies():
    x, where, theta = vectors(6, 4), grid(2, 2), mixed_frequencies(jax.random.key(1), HEADS, SIZE)

    def of(theta):
        turned = rotate(x, rotation(where, theta))
        return (turned * vectors(7, 4)).sum()

    gradient = jax.grad(of)(theta)
    step = 1e-2 * jax.random.normal(jax.random.key(2), theta.shape)
    difference = (of(theta + step) - of(theta - step)) / 2
    np.testing.assert_allclose((gradient * step).sum(), difference, rtol=1e-3)
    assert jnp.abs(gradient).max() > 0


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_sinusoids_equal_their_formula(layout):
    ours = sinusoidal(jnp.arange(7), frequencies(8), layout)
    for k, i in np.ndindex(7, 4):
        angle = k * 10_000 ** (-2 * i / 8)
        first, second = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + 4)
        np.testing.assert_allclose([ours[k, first], ours[k, second]], [np.sin(angle), np.cos(angle)], atol=1e-6)


@pytest.mark.parametrize(
    "name, at", [("10000^-t", 1e-2), ("1000^-t", 1000**-0.5), ("t^2", 0.25), ("t^0.5", 0.5**0.5), ("t", 0.5)]
)
def test_schedules(name, at):
    np.testing.assert_allclose(frequencies(8, name)[2], at, rtol=1e-6)


REFUSED = {
    "an odd head": (
        lambda: frequencies(7),
        "the head size (or width) is 7: positions turn pairs of dimensions, so it must be even",
    ),
    "a head of 2-D": (lambda: axial_frequencies(6, 2), "is 6: for 2 axes it must be a multiple of 4"),
    "a schedule": (
        lambda: frequencies(8, "10000-t"),
        "theta is '10000-t': it must be like 10000^-t, 1000^-t, t^2 or t",
    ),
    "a base of 0": (lambda: frequencies(8, "0^-t"), "theta is '0^-t'"),
    "coordinates": (
        lambda: angles(jnp.zeros((5, 3)), axial_frequencies(8, 2)),
        "positions of shape (5, 3): the frequencies have 2 axes, so it must end in 2",
    ),
    "no coordinates": (lambda: angles(jnp.zeros(2), axial_frequencies(8, 2)), "positions of shape (2,)"),
    "a layout": (
        lambda: sinusoidal(jnp.arange(3), frequencies(8), "llama"),
        "layout is 'llama': it must be interleaved",
    ),
    "a rotation's layout": (
        lambda: rotate(vectors(0, 3), rotation(jnp.arange(3), frequencies(SIZE)), "both"),
        "layout is",
    ),
    "another head size": (
        lambda: rotate(vectors(0, 3), rotation(jnp.arange(3), frequencies(8))),
        "a rotation of 8 dimensions cannot turn a head of 12",
    ),
    "past a table": (
        lambda: lookup(jnp.zeros((4, 2)), jnp.array([0, 4])),
        "position 4: the table has positions 0 to 3",
    ),
    "before a table": (lambda: lookup(jnp.zeros((4, 2)), jnp.array([-1, 4])), "position -1"),
    "heads of an odd size": (
        lambda: to_half(jnp.zeros((2, 9)), 3),
        "a last dimension of 9 is not 3 heads of an even size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused(kind):
    call, expected = REFUSED[kind]
    with pytest.raises(ValueError) as error:
        call()
    assert expected in str(error.value)


def test_past_a_table_under_jit_is_not_a_number():
    found = jax.jit(lookup)(jnp.zeros((4, 2)), jnp.array([0, 4, -1]))
    assert jnp.isnan(found).tolist() == [[False] * 2, [True] * 2, [True] * 2]
