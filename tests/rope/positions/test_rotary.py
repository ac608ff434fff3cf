"""Rotary and sinusoidal positions: the laws they were made for, against complex numbers in float64."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.positions import rotary
from rope.positions.angles import angles, axial_frequencies, frequencies, grid, lookup, mixed_frequencies
from rope.positions.rotary import to_half, to_interleaved
from rope.positions.sinusoidal import sinusoidal

HEADS, SIZE = 3, 12
rotate, rotation = jax.jit(rotary.rotate, static_argnames="layout"), jax.jit(rotary.rotation)
KINDS = {
    "1-D": (1, lambda: frequencies(SIZE)),
    "1-D, another schedule": (1, lambda: frequencies(SIZE, "t^2")),
    "2-D": (2, lambda: axial_frequencies(SIZE, 2)),
    "3-D": (3, lambda: axial_frequencies(SIZE, 3, "100^-t")),
    "mixed": (2, lambda: mixed_frequencies(jax.random.key(0), HEADS, SIZE)),
}
COORDINATE = st.floats(-50, 50, width=32)


@cache
def theta_of(kind: str) -> np.ndarray:
    return np.asarray(KINDS[kind][1]())


def vectors(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, HEADS, SIZE), np.float32)


def turned(x, places, kind: str, layout: str) -> np.ndarray:
    """In float64 complex numbers, straight from the definition; the frequencies are ours."""
    axes, theta = KINDS[kind][0], theta_of(kind).astype(np.float64)
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
    axes = KINDS[kind][0]
    where = np.random.default_rng(0).uniform(-20, 20, (5, axes)).astype(np.float32)
    where = where[:, 0] if axes == 1 else where
    x = vectors(1, 5)
    ours = rotate(x, rotation(where, theta_of(kind)), layout)
    np.testing.assert_allclose(ours, turned(x, where, kind, layout), atol=2e-5)


def matrices(where, theta, layout: str) -> np.ndarray:
    """R of one position for each head: [N, H, H]."""
    unit = np.broadcast_to(np.eye(SIZE, dtype=theta.dtype)[:, None, None], (SIZE, 1, HEADS, SIZE))
    turned = rotate(unit, rotation(where[None], theta), layout)
    return np.moveaxis(np.asarray(turned)[:, 0], 0, -1).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_difference_of_positions_is_a_rotation(kind, layout, dtype, data):
    """R(p)^T R(q) = R(q - p) to 1e-6 in float64; in float32 to what an angle of that many turns can hold."""
    p, q = places(data.draw, kind, 2)
    with jax.enable_x64(dtype == "float64"):
        theta = theta_of(kind).astype(dtype)
        product = np.swapaxes(matrices(p, theta, layout), -1, -2) @ matrices(q, theta, layout)
        turns = 1 + np.abs(p).max() + np.abs(q).max() if dtype == "float32" else 1
        np.testing.assert_allclose(product, matrices(np.subtract(q, p, dtype=dtype), theta, layout), atol=1e-6 * turns)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_scores_do_not_change_when_all_positions_are_shifted(kind, data):
    where, (shift,) = places(data.draw, kind, 4), places(data.draw, kind, 1)
    query, key = vectors(0, 4), vectors(1, 4)

    def scores(where):
        by = rotation(where, theta_of(kind))
        return np.einsum("TNH,SNH->NTS", rotate(query, by), rotate(key, by))

    np.testing.assert_allclose(scores(where), scores(where + shift), atol=5e-4)


@settings(max_examples=25)
@given(st.lists(COORDINATE, min_size=3, max_size=3), COORDINATE)
def test_on_a_line_two_axes_are_one(line, row):
    """Half of the dimensions turn as a 1-D head of that size does, the other half not relative to each other."""
    x, y = vectors(2, 3), vectors(3, 3)
    half = SIZE // 2
    flat = rotation(np.array(line, np.float32), frequencies(half))
    both = rotation(np.array([[row, at] for at in line], np.float32), theta_of("2-D"))
    across = np.einsum("TNH,SNH->NTS", x[..., :half], y[..., :half])
    along = np.einsum("TNH,SNH->NTS", rotate(x[..., half:], flat), rotate(y[..., half:], flat))
    ours = np.einsum("TNH,SNH->NTS", rotate(x, both), rotate(y, both))
    np.testing.assert_allclose(ours, across + along, atol=2e-4)


@settings(max_examples=8)  # each shape is compiled
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_layouts_are_permutations_of_one_another(heads, pairs, lead):
    x = np.arange(heads * pairs * 2 * (lead + 1), dtype=np.float32).reshape(lead + 1, -1)
    np.testing.assert_array_equal(to_interleaved(to_half(x, heads), heads), x)
    np.testing.assert_array_equal(to_half(to_interleaved(x, heads), heads), x)
    theta = 10_000 ** -np.linspace(0, 1, pairs, endpoint=False, dtype=np.float32)

    @jax.jit
    def both(x, theta):
        by = rotation(jnp.arange(lead + 1), theta)

        def turn(x, layout):
            return rotate(x.reshape(lead + 1, heads, -1), by, layout).reshape(x.shape)

        return turn(to_half(x, heads), "half"), to_half(turn(x, "interleaved"), heads)

    np.testing.assert_allclose(*both(x, theta), rtol=1e-6, atol=1e-5)


def test_lengths_of_vectors_and_types_are_kept():
    by = rotation(grid(2, 3), axial_frequencies(SIZE, 2))
    x = vectors(4, 6)
    np.testing.assert_allclose(np.linalg.norm(rotate(x, by), axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert rotate(x.astype(jnp.bfloat16), by).dtype == jnp.bfloat16
    np.testing.assert_array_equal(grid(2, 3)[4], [1, 1])


def test_a_cached_table_serves_packed_rows_and_single_steps():
    table = rotation(np.arange(16), theta_of("1-D"))
    where = np.array([[0, 1, 2, 0, 1, 9]])
    x = vectors(5, 6)[None]
    taken = jax.tree.map(lambda rows: lookup(rows, where), table)
    np.testing.assert_array_equal(rotate(x, taken), rotate(x, rotation(where, theta_of("1-D"))))


def test_gradients_reach_learned_frequencies():
    x, where, theta = vectors(6, 4), grid(2, 2), theta_of("mixed")

    @jax.jit
    @jax.value_and_grad
    def of(theta):
        turned = rotate(x, rotation(where, theta))
        return (turned * vectors(7, 4)).sum()

    gradient = np.asarray(of(theta)[1])
    step = 1e-2 * np.random.default_rng(2).standard_normal(theta.shape, np.float32)
    difference = (of(theta + step)[0] - of(theta - step)[0]) / 2
    np.testing.assert_allclose((gradient * step).sum(), difference, rtol=1e-3)
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_sinusoids_equal_their_formula(layout):
    ours = np.asarray(sinusoidal(np.arange(7), frequencies(8), layout))
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
