"""Exact solvers agree with each other, and the distance is one."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gan import laws
from gan.metric import distances
from gan.transport import entropic, exact_on_device, exact_plan, exact_w1, matched, sinkhorn, sliced

SIZES = st.integers(2, 12)


def points(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@settings(max_examples=30)
@given(st.integers(0, 2**31), SIZES, SIZES, st.integers(1, 4), st.sampled_from(["l2", "l1"]))
def test_it_is_a_distance(seed, n, m, dimensions, metric):
    x, y, z = points(seed, n, dimensions), points(seed + 1, m, dimensions), points(seed + 2, n, dimensions)
    there = exact_w1(x, y, metric)
    assert exact_w1(y, x, metric) == pytest.approx(there)
    assert exact_w1(x, x[::-1], metric) == pytest.approx(0, abs=1e-12)
    assert exact_w1(x, z, metric) <= there + exact_w1(y, z, metric) + 1e-9
    assert exact_w1(-3 * x + 1, -3 * y + 1, metric) == pytest.approx(3 * there)
    plan = exact_plan(x, y, metric)
    np.testing.assert_allclose(np.bincount(plan.source, plan.mass, n), 1 / n)
    np.testing.assert_allclose(np.bincount(plan.target, plan.mass, m), 1 / m)


def test_sorting_assignment_program_and_device_agree():
    x, y = points(0, 40, 3), points(1, 40, 3)
    wanted = exact_w1(x, y)
    equal = np.full(40, 1 / 40)
    assert exact_plan(x, y, x_weights=equal, y_weights=equal).cost == pytest.approx(wanted, abs=1e-9)
    assert float(jax.jit(exact_on_device)(x, y)) == pytest.approx(wanted, abs=1e-5)
    line = exact_w1(x[:, :1], y[:, :1])
    assert (
        exact_plan(x[:, :1], y[:, :1]).cost == pytest.approx(line) == np.abs(np.sort(x[:, 0]) - np.sort(y[:, 0])).mean()
    )


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("n", [150, 200])
@pytest.mark.parametrize("scale", [1e-300, 1e-16, 1e-12, 1e12, 1e300])
def test_it_grows_with_the_scale(dimensions, n, scale):
    x, y = points(0, 200, dimensions), points(1, n, dimensions)
    assert exact_w1(x * scale, y * scale) / scale == pytest.approx(exact_w1(x, y), rel=1e-12)
    np.testing.assert_array_equal(matched(x * scale, x[::-1] * scale), np.arange(200)[::-1])


def test_an_end_without_an_optimum_is_refused(monkeypatch):
    emd = ot.emd
    monkeypatch.setattr(ot, "emd", lambda *given, **options: emd(*given, **options | {"numItermax": 1}))
    with pytest.raises(ValueError, match="no optimal transport was found: numItermax reached"):
        exact_w1(points(0, 9, 2), points(1, 7, 2))


@pytest.mark.parametrize("far", [1e6, 1e9, 1e12, 1e14])
def test_one_point_far_away_is_no_silent_error(far):
    """Of unequal numbers the solver's potentials round by the largest cost: exact, or refused."""
    x, y = points(0, 200, 2), points(1, 100, 2)
    x[0] = x[1] = y[0] = [far, 0]
    wanted = exact_w1(x, np.repeat(y, 2, 0))  # an assignment
    if far < 1e12:
        assert exact_w1(x, y) == pytest.approx(wanted, rel=1e-6)
    else:
        with pytest.raises(ValueError, match="hide small ones, so that W1 is only known to be from"):
            exact_w1(x, y)


def test_distances_on_a_device_have_no_floor():
    x = np.float32(points(0, 64, 3))
    for scale in (1e-5, 1e-7, 1e-9):
        found = float(exact_on_device(jnp.asarray(x * scale), jnp.asarray((x + 1) * scale)))
        assert found / scale == pytest.approx(3**0.5, rel=1e-3)
    assert float(exact_on_device(jnp.asarray(x), jnp.asarray(x))) == 0


def test_monitors_are_on_their_sides():
    x, y = (np.asarray(z) for z in laws.shift(4, 3.0).sample(jax.random.key(0), 64))
    wanted, found = exact_w1(x, y), sinkhorn(x, y)
    assert wanted - 1e-5 <= found["primal"] <= 1.05 * wanted
    assert 0 <= sliced(x, y, jax.random.key(1)) <= wanted


@pytest.mark.parametrize(
    "x, y, expected",
    [
        (np.zeros((0, 2)), np.zeros((3, 2)), "the first sample is empty"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), "the second sample has a value that is no finite number, in row 0"),
        (np.zeros((3, 2)), np.zeros((3, 4)), "samples of 2 and 4 dimensions"),
        *((np.full((n, d), 1e308), np.full((2, d), -1e308), "is beyond float64") for n in (2, 3) for d in (1, 2)),
    ],
)
def test_what_cannot_be_transported(x, y, expected):
    with pytest.raises(ValueError, match=expected):
        exact_w1(x, y)


def test_costs_equal_their_definition():
    x, y = points(3, 5, 7), points(4, 6, 7)
    difference = x[:, None] - y[None]
    np.testing.assert_allclose(distances(x, y), np.linalg.norm(difference, axis=2), rtol=1e-5)
    np.testing.assert_allclose(distances(x, y, "l1"), np.abs(difference).sum(2), rtol=1e-5)
    gradient = jax.grad(lambda z: distances(z, y).sum())(y)  # 0 / 0 where points coincide
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="metric is 'l3'"):
        distances(x, y, "l3")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 64]), st.sampled_from([0.0, 10.0, 1e4]), st.booleans())
def test_costs_are_right_to_rounding_wherever_points_are(seed, dimensions, far, metric_l1):
    """Clusters far from each other, and points that are one: by scipy in float64, of the same float32 points."""
    x, y = (
        np.float32(points(seed + n, 20, dimensions) + far * np.where(np.arange(20) % 2, 1, -1)[:, None])
        for n in range(2)
    )
    y[:3] = x[:3]
    metric, name = ("l1", "cityblock") if metric_l1 else ("l2", "euclidean")
    wanted = cdist(np.float64(x), np.float64(y), name)
    found = jax.jit(distances, static_argnums=2)(x, y, metric)
    rounding = 2e-3 if far == 1e4 else 2e-6  # 1e4 itself is stored to 1e-3, and centring rounds once more
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=rounding * dimensions**0.5)


@pytest.mark.parametrize("weights", [[0.5, 0.1], [2.0, -1.0], [np.nan, 1.0], [1.0]])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="weights of 2 points: as many numbers from 0, in all 1"):
        exact_w1(np.eye(2), np.ones((3, 2)), x_weights=weights)
    with pytest.raises(ValueError, match="weights of 2 points: as many numbers from 0, in all 1"):
        exact_w1(np.eye(2)[:, :1], np.ones((3, 1)), y_weights=None, x_weights=weights)


def test_sinkhorn_says_where_it_does_not_know():
    x, y = (np.float32(points(n, 40, 4)) for n in range(2))
    with pytest.raises(ValueError, match="not converged in 2,000 iterations at epsilon 0.0001: allow more"):
        entropic(x, y, epsilon=1e-4)
    with pytest.raises(ValueError, match="not converged in 10 iterations"):
        sinkhorn(x, y, iterations=10)
    for epsilon in (0.0, -1.0, float("nan")):
        for call in (entropic, sinkhorn):
            with pytest.raises(ValueError, match=f"epsilon is {epsilon}: it must be above 0"):
                call(x, y, epsilon=epsilon)
    within, slope = jax.jit(jax.value_and_grad(lambda x: entropic(x, y, epsilon=1e-4)))(x)
    assert np.isnan(within) and np.isfinite(slope).all()
    assert np.isfinite(jax.jit(entropic)(x, y))


def test_metrics_that_are_none():
    for call in (exact_w1, exact_plan, matched, sinkhorn):
        with pytest.raises(ValueError, match="metric is 'l3': it must be l2 or l1"):
            call(np.eye(2), np.eye(2), "l3")
