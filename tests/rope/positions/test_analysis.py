"""The laws of position encodings, by property and by closed form; the code's own rotations against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import fresnel

from rope.positions import analysis
from rope.positions.angles import axial_frequencies, frequencies, grid, mixed_frequencies
from rope.positions.extension import Extension, extended_rotation, yarn, yarn_magnitude
from rope.positions.rerope import LongRotation, long_scores
from rope.positions.rotary import rotate, rotation
from rope.positions.sinusoidal import sinusoidal

SIZES = st.sampled_from([2, 6, 16, 50])  # few, for JAX compiles each anew
THETAS = st.sampled_from(["10000^-t", "1000^-t", "7.5^-t", "t", "t^2", "t^0.5"])
law = settings(max_examples=25)
few = settings(max_examples=6)  # where each example is JAX op by op


@law
@given(SIZES, THETAS, st.lists(st.integers(0, 5000), min_size=2, max_size=20, unique=True))
def test_scores_of_sinusoidal_positions_depend_on_the_difference_alone(size, theta, positions):
    positions, theta = np.array(positions), frequencies(size, theta)
    angles = analysis.turns(positions, theta)
    found = analysis.gram(np.concatenate([np.sin(angles), np.cos(angles)], -1))
    assert analysis.toeplitz_error(found, positions).largest < 1e-11 * size
    np.testing.assert_allclose(found[0], analysis.decay(positions - positions[0], theta), atol=1e-10 * size)


def test_the_code_follows_the_law_to_the_rounding_of_its_angles():
    positions, theta = np.arange(0, 5000, 50), frequencies(64)
    found = analysis.gram(sinusoidal(jnp.asarray(positions), theta))
    assert analysis.toeplitz_error(found, positions).largest < 32 * 5000 * 2**-23


@law
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_toeplitz_error_is_the_distance_from_the_means_of_the_diagonals(length, seed):
    matrix = np.random.default_rng(seed).normal(size=(length, length))
    off = np.concatenate([np.diagonal(matrix, k) - np.diagonal(matrix, k).mean() for k in range(1 - length, length)])
    found = analysis.toeplitz_error(matrix, np.arange(length))
    np.testing.assert_allclose(found, [np.abs(off).max(), np.sqrt(np.mean(off**2))], atol=1e-12)


def test_toeplitz_error_takes_the_cells_of_a_grid():
    cells = np.asarray(grid(3, 4))
    apart = cells[:, None] - cells
    assert analysis.toeplitz_error(apart[..., 0] * 10 + apart[..., 1] ** 2, cells).largest < 1e-12
    assert analysis.toeplitz_error(cells[:, :1] + cells[:, 0], cells).largest > 1


@law
@given(st.floats(0, 3000), SIZES, st.floats(1.1, 20_000))
def test_closed_form_and_sum_differ_by_less_than_the_cosine_varies(k, size, base):
    """A sum over equal steps is off by no more than the total variation of what is summed,
    here at most k (1 - 1/base)."""
    name = f"{base:.6f}^-t"
    apart = analysis.decay([k], frequencies(size, name)) - analysis.decay_limit([k], size, name)
    assert abs(apart[0]) <= k * (1 - 1 / base) + 1e-7 * size * (1 + k)


def test_sum_tends_to_closed_form():
    """Half of the cosines at both ends is what a sum from the left leaves out (Euler and Maclaurin)."""
    k, size = np.arange(0, 200), 16_384
    ends = (np.cos(k) - np.cos(k / 10_000)) / 2
    summed = analysis.decay(k, frequencies(size)) - ends
    np.testing.assert_allclose(summed, analysis.decay_limit(k, size, "10000^-t"), atol=0.02)  # of 8192 at distance 0


@pytest.mark.parametrize(
    ("theta", "exact"),
    [
        ("t", lambda k: np.sin(k) / k),
        ("t^2", lambda k: np.sqrt(np.pi / 2 / k) * fresnel(np.sqrt(2 * k / np.pi))[1]),
        ("t^0.5", lambda k: 2 * (np.sin(k) / k + (np.cos(k) - 1) / k**2)),
        ("t^0", np.cos),
        ("1^-t", np.cos),
    ],
)
def test_numerical_integral(theta, exact):
    k = np.linspace(0.01, 1500, 300)
    np.testing.assert_allclose(analysis.decay_integral(k, theta), exact(k), atol=1e-9)
    np.testing.assert_allclose(analysis.decay_limit(-k, 8, theta), 4 * exact(k), atol=1e-8)


@law
@given(st.floats(1.01, 1e6), st.lists(st.floats(0, 500), min_size=1, max_size=5))
def test_closed_form_is_the_numerical_integral(base, k):
    name = f"{base:.12f}^-t"
    integral = analysis.decay_integral(np.array(k), name)
    np.testing.assert_allclose(analysis.decay_limit(k, 2, name), integral, atol=1e-8)


def test_where_the_schedules_cross_zero():
    k = np.arange(1, 2001)
    count = {x: len(analysis.crossings(k, analysis.decay_limit(k, 2, x))) for x in ("10000^-t", "1000^-t", "t^2", "t")}
    assert count == {"10000^-t": 0, "1000^-t": 1, "t^2": 0, "t": int(2000 / np.pi)}
    # Ci has its first zero at 0.6165..., so theta = base^-t crosses there times the base.
    (first,) = analysis.crossings(k, analysis.decay_limit(k, 2, "1000^-t"))
    assert first == pytest.approx(616.5, abs=1.5)


@law
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_crossings_are_changes_of_sign(values):
    curve, x = np.array(values), np.arange(len(values))
    found = analysis.crossings(x, curve)
    signs = [np.sign(y) for y in values if y]
    assert len(found) == sum(a != b for a, b in zip(signs, signs[1:], strict=False))
    assert np.all((found >= 0) & (found <= len(values) - 1)) and np.all(np.diff(found) >= 0)


def test_crossings_of_a_line():
    np.testing.assert_allclose(analysis.crossings([2, 3], np.array([1.0, -3.0])), [2.25])
    assert not len(analysis.crossings([0, 1, 2], np.array([1.0, 0.0, 1.0])))


@law
@given(st.sampled_from([1, 2, 7]), THETAS, st.integers(0, 2**32 - 1))
def test_diagonal_is_a_relative_and_an_absolute_part(pairs, theta, seed):
    rng, positions, theta = np.random.default_rng(seed), np.arange(12), frequencies(2 * pairs, theta)
    h = rng.normal(size=2 * pairs)
    angles = analysis.turns(positions, theta)
    encoding = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(12, -1)
    parts = analysis.diagonal_parts(positions, theta, h)
    np.testing.assert_allclose(sum(parts), encoding * h @ encoding.T, atol=1e-12)
    assert analysis.toeplitz_error(parts.relative, positions).largest < 1e-12 * pairs * 5
    # A function of m + n is one of differences where one of the two is counted backwards.
    assert analysis.toeplitz_error(parts.absolute[:, ::-1], positions).largest < 1e-12 * pairs * 5
    even = analysis.diagonal_parts(positions, theta, np.repeat(h[:pairs], 2))
    assert not even.absolute.any()


def test_a_diagonal_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"a diagonal of shape \(3,\) for positions of 4 dimensions"):
        analysis.diagonal_parts(np.arange(3), frequencies(4), np.ones(3))
    with pytest.raises(ValueError, match="2 axes"):
        analysis.turns(np.zeros((4, 3)), axial_frequencies(8, 2))


@law
@given(SIZES, THETAS, st.lists(st.floats(-1000, 1000), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_decay_bound_bounds_rotary_scores(size, theta, distances, seed):
    """|sum h_i e^(i k theta_i)| <= max |h_i+1 - h_i| sum |S_i|,
    with h = 0 after the last (Su et al. 2021, eq. 35-37)."""
    rng, k, theta = np.random.default_rng(seed), np.array(distances), frequencies(size, theta)
    h = rng.normal(size=size // 2) + 1j * rng.normal(size=size // 2)
    score = np.abs((h * np.exp(1j * analysis.turns(k, theta))).sum(-1))
    steepest = np.abs(np.diff(np.append(h, 0))).max()
    assert np.all(score <= steepest * analysis.decay_bound(k, theta) * (size // 2) + 1e-9 * size)
    np.testing.assert_allclose(analysis.decay_bound([0], theta), (size // 2 + 1) / 2)


@pytest.mark.parametrize("theta", [frequencies(12), axial_frequencies(12, 3)])
def test_exponential_of_the_generators_is_the_rotation_of_the_code(theta):
    by = analysis.generators(theta)
    position = np.array([1.5, -2.0, 3.0])[: len(by)]
    x = jax.random.normal(jax.random.key(0), (1, 1, 12))
    turned = rotate(x, rotation(jnp.asarray(position[None] if theta.ndim == 2 else position), theta))
    matrix = analysis.expm(np.einsum("a,aij->ij", position, by))
    np.testing.assert_allclose(turned.ravel(), matrix @ np.asarray(x).ravel(), atol=1e-5)
    np.testing.assert_allclose(by, -by.swapaxes(-1, -2), atol=0)  # skew-symmetric, to the bit


@few
@given(st.sampled_from(["axial", "mixed"]), st.integers(0, 2**31 - 1))
def test_turns_of_images_are_a_group_of_differences(kind, seed):
    theta = axial_frequencies(8, 2) if kind == "axial" else mixed_frequencies(jax.random.key(seed), 1, 8)[0]
    by, rng = analysis.generators(theta), np.random.default_rng(seed)
    p, q = rng.uniform(-20, 20, (2, 3, 2))
    assert analysis.commutator(by) == 0
    assert analysis.group_error(by, p, q).largest < 1e-11


def test_quaternions_are_no_group_of_differences():
    i, j = analysis.QUATERNION
    np.testing.assert_array_equal([i @ i, j @ j, i @ j], [-np.eye(4), -np.eye(4), -(j @ i)])
    assert analysis.commutator(analysis.QUATERNION) == 2
    p, q = np.random.default_rng(0).uniform(-3, 3, (2, 8, 2))
    assert analysis.group_error(analysis.QUATERNION, p, q).largest > 0.5
    assert analysis.group_error(analysis.QUATERNION[:1], p[:, :1], q[:, :1]).largest < 1e-13


@few
@given(st.integers(2, 9), st.integers(2, 9), st.sampled_from([8, 16, 32]))
def test_axial_turns_are_reversible_and_flattened_ones_are_not(height, width, size):
    cells = np.asarray(grid(height, width))
    axial, flattened = axial_frequencies(size, 2), jnp.tile(frequencies(size), (2, 1))
    found = analysis.recover(analysis.turns(cells, axial) + 2 * np.pi, axial, cells)
    np.testing.assert_array_equal(found, np.arange(height * width))
    found = analysis.recover(analysis.turns(cells, flattened), flattened, cells)
    expected = np.full(height * width, -1)
    expected[[0, -1]] = [0, height * width - 1]  # the corners' x + y is no other cell's
    np.testing.assert_array_equal(found, expected)


def test_turning_finds_the_frequencies_of_any_extension():
    e = Extension(method="yarn", factor=4, trained=64)
    found, length = analysis.turning(lambda p: extended_rotation(e, p, 32, 256))
    np.testing.assert_allclose(found, yarn(32, 4, 64), rtol=1e-6)
    assert length == pytest.approx(yarn_magnitude(4))
    e = Extension(method="rerope", window=16)
    found, length = analysis.turning(lambda p: extended_rotation(e, p, 32, 256))
    np.testing.assert_allclose(found, frequencies(32), rtol=1e-6)
    assert length == 1


@pytest.mark.parametrize(("method", "factor"), [("rerope", 3.0), ("leaky", 3.0), ("linear", 3.0), ("none", 1.0)])
def test_effective_distance_is_what_the_scores_see(method, factor):
    e, row = Extension(method=method, factor=factor, window=4), jnp.arange(12.0)
    x = jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 12, 1, 2))
    by = extended_rotation(e, row, 2, 12)
    if isinstance(by, LongRotation):
        scores = long_scores(x, x, by, "interleaved")
    else:
        scores = jnp.einsum("BTNH,BSNH->BNTS", rotate(x, by), rotate(x, by))
    (slow,), _ = analysis.turning(lambda p: extended_rotation(e, p, 2, 12))
    expected = analysis.effective_distance(e, row[:, None] - row[None])
    np.testing.assert_allclose(scores[0, 0], np.cos(slow * expected), atol=1e-5)
