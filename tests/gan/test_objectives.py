"""Bounds that hold whatever the weights, constraints on weights, and what a step changes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gan import laws, weight_constraints
from gan import objectives as critics
from gan.critic import Critic, Shape, State, kr, slope
from gan.metric import lengths
from gan.networks import Layer, convolve, init_convolutions, init_mlp, mlp, sort_groups
from gan.objectives import CRITICS
from gan.training import train
from gan.transport import entropic, exact_w1

SHAPE = Shape(size=3, hidden=(16, 16))
LAW = laws.shift(3, 2.0)


def made(name: str, seed: int, grow: float = 1.0):
    critic = CRITICS[name](SHAPE)
    state = critic.init(jax.random.key(seed))
    return critic, state._replace(nets=jax.tree.map(lambda x: grow * x, state.nets))


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0]))
def test_transforms_are_bounded_by_the_exact_distance(seed, grow):
    """The hard one for any f and any batch; the soft one is above it, by at most epsilon log n."""
    x, y = (np.asarray(z) for z in LAW.sample(jax.random.key(seed), 24))
    state = made("c", seed, grow)[1]
    hard = float(critics.c_transform(SHAPE).read(state, x, y)["objective"])
    assert hard <= exact_w1(x, y) + 1e-4
    rounding = 1e-4 + 1e-6 * abs(hard)
    for epsilon in (0.01, 1.0):
        soft = critics.soft_c_transform(SHAPE, epsilon).read(state, x, y)["objective"]
        assert -rounding <= soft - hard <= epsilon * np.log(24) + rounding


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([1.0, 10.0]), st.sampled_from([0.0, 1e4]))
def test_so_they_are_where_points_are_equal_or_far(seed, grow, far):
    """Of clusters at 1e4, whose coordinates are stored to 1e-3, the values of f rounding at 1e4 times its slope."""
    x, y = (np.asarray(z) for z in LAW.sample(jax.random.key(seed), 24))
    x, y = (z + np.float32(far * np.where(np.arange(24) % 2, 1, -1)[:, None]) for z in (x, y))
    state = made("c", seed, grow)[1]
    for other in (y, x, x[::-1]):
        told = critics.c_transform(SHAPE).read(state, x, other)
        rounding = 1e-5 + 1e-7 * float(np.abs(critics.c_transform(SHAPE).potential(state, x)).max()) + 1e-7 * far
        assert told["objective"] <= exact_w1(x, other) + rounding


def test_debiased_objectives_are_bounded_by_the_divergence():
    """Whatever f is; a batch is at most 0 from itself. The soft distance itself is checked against POT's plan."""
    x, y = (np.asarray(z) for z in LAW.sample(jax.random.key(0), 24))
    plan = ot.sinkhorn([], [], cdist(x, y), 0.5, stopThr=1e-12)
    wanted = np.sum(plan * cdist(x, y)) + 0.5 * np.sum(plan * np.log(plan * 24 * 24))
    debiased = critics.soft_c_transform(SHAPE, 0.5, debiased=True)
    between, *within = (float(entropic(*pair, epsilon=0.5)) for pair in ((x, y), (x, x), (y, y)))
    np.testing.assert_allclose(between, wanted, rtol=1e-3)
    for seed in range(3):
        state = made("c-debiased", seed, 3.0)[1]
        assert debiased.read(state, x, y)["objective"] <= between - sum(within) / 2 + 1e-3
        assert debiased.read(state, x, x)["objective"] <= 1e-3


ORTHOGONAL = critics.orthogonal(SHAPE, rate=1e-2)


SPECTRAL = critics.spectral_normalization(SHAPE)


def said(critic: Critic, state: State, x, y) -> tuple[jax.Array, jax.Array]:
    assert critic.certified
    return critic.read(state, x, y)["kr"], lengths(slope(partial(critic.potential, state), x)).max()


@jax.jit
def of_spectral(key: jax.Array, grow: float, x, y):
    """Any weights; the bound is that of a converged power iteration."""
    state = SPECTRAL.init(key)
    layers = jax.tree.map(lambda x: grow * x, state.nets["f"])
    return said(
        SPECTRAL,
        state._replace(nets={"f": layers}, memory=weight_constraints.spectral(layers, state.memory, 200)[1]),
        x,
        y,
    )


@jax.jit
def of_orthogonal(key: jax.Array, x, y):
    """Where steps much longer than usual lead."""
    step = lambda n, state: ORTHOGONAL.step(state, partial(LAW.sample, count=16), jax.random.fold_in(key, n))[0]  # noqa: E731
    return said(ORTHOGONAL, jax.lax.fori_loop(0, 30, step, ORTHOGONAL.init(key)), x, y)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0]))
def test_certified_critics_are_below_the_exact_distance(seed, grow):
    x, y = (np.asarray(z) for z in LAW.sample(jax.random.key(seed), 24))
    for said, steepest in (of_spectral(jax.random.key(seed), grow, x, y), of_orthogonal(jax.random.key(seed), x, y)):
        assert said <= exact_w1(x, y) + 1e-4 and steepest <= 1 + 1e-3


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (8, 8), (1, 7), (64, 1)])
def test_orthonormal_kernels(shape):
    found = weight_constraints.orthonormal(jax.random.normal(jax.random.key(0), shape), 40)
    inner = found.T @ found if shape[0] >= shape[1] else found @ found.T
    np.testing.assert_allclose(inner, np.eye(min(shape)), atol=1e-3)


def test_the_norm_of_a_convolution_is_that_of_its_map():
    """Not of its kernel as a matrix; and the gradient through the power iteration is that of the largest singular
    value."""
    layer = init_convolutions(jax.random.key(0), (8, 8, 2), (3,))[0]
    eye = jnp.eye(8 * 8 * 2).reshape(-1, 8, 8, 2)

    def matrix(kernel):
        return convolve(eye, kernel).reshape(len(eye), -1)

    wanted, slope_ = jax.value_and_grad(lambda kernel: jnp.linalg.norm(matrix(kernel), 2))(layer.kernel)
    start = jax.random.normal(jax.random.key(1), (8, 8, 2))
    found, gradient = jax.value_and_grad(lambda kernel: weight_constraints.spectral_norm(kernel, start, 300)[0])(
        layer.kernel
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(gradient, slope_, atol=2e-2 * np.abs(slope_).max())


@pytest.mark.parametrize("size", [1, 2, 8, 16])
def test_groups_are_sorted(size):
    x = jax.random.normal(jax.random.key(0), (5, 48))
    np.testing.assert_array_equal(sort_groups(x, size), jnp.sort(x.reshape(5, -1, size), -1).reshape(5, 48))


def test_sorting_permutes_gradients():
    """Twice, over seeds side by side, and with equal features, of which none has another's share."""
    x, weights = jax.random.normal(jax.random.key(0), (2, 3, 5, 32))
    x = x.at[0, 0, 4:20].set(1.0)

    def second(run, x, weights):
        first = jax.grad(lambda x: jnp.sum(jnp.sin(run(x)) * weights))
        return first(x), jax.grad(lambda x: jnp.sum(first(x) ** 2))(x)

    plain = lambda x: jnp.sort(x.reshape(5, -1, 16), -1).reshape(x.shape)  # noqa: E731
    found, wanted = (jax.vmap(partial(second, run))(x, weights) for run in (lambda x: sort_groups(x, 16), plain))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_a_convolution_by_products_twice_differentiated(side):
    """As a penalty of gradients is, over seeds side by side."""
    x = jax.random.normal(jax.random.key(0), (3, 2, 7, 5, 2))
    kernels = jax.random.normal(jax.random.key(1), (3, side, side, 2, 4))
    stride, before = 2 - side % 2, (side - 1) // 2
    around = [(before, before + size % stride) for size in (7, 5)]
    numbers = ("NHWC", "HWIO", "NHWC")

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=numbers)

    def penalty(run, x, kernel):
        slope_ = jax.grad(lambda x: jnp.sum(jnp.sin(run(x, kernel))))(x)
        return jnp.sum(slope_**2)

    found, wanted = (jax.vmap(jax.grad(partial(penalty, run), argnums=(0, 1)))(x, kernels) for run in (convolve, plain))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("shape", [(2, 4, 6, 1), (3, 8, 8, 5)])
def test_a_convolution_by_products_is_one(shape):
    x, kernel = (jax.random.normal(jax.random.key(n), size) for n, size in enumerate((shape, (4, 4, shape[-1], 3))))
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(convolve(x, kernel), wanted, atol=1e-4)


def test_a_mean_over_patches():
    """It is the mean of the perceptron on each, knows no order of them,
    and its gradient is within the bound it says."""
    image = (6, 7, 2)
    critic = critics.spectral_normalization(Shape(size=84, image=image, patch=3, hidden=(8,)))
    state = critic.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 84))
    cut = [z[i : i + 3, j : j + 3].reshape(-1) for z in x.reshape(4, *image) for i in range(4) for j in range(5)]
    layers = weight_constraints.spectral(state.nets["f"], state.memory, 5)[0]
    wanted = mlp(layers, jnp.stack(cut), "leaky").reshape(4, 20).mean(1)
    np.testing.assert_allclose(critic.potential(state, x), wanted, atol=1e-5)
    assert critic.certified and lengths(slope(partial(critic.potential, state), x)).max() <= 1 + 1e-4
    assert not critics.spectral_normalization(Shape(size=16, image=(4, 4, 1), patch=3)).certified


def test_clipping_leaves_biases():
    layers = init_mlp(jax.random.key(0), (4, 5, 1))
    for before, after in zip(layers, weight_constraints.clip(layers, 0.05), strict=True):
        np.testing.assert_array_equal(after.kernel, np.clip(before.kernel, -0.05, 0.05))
        np.testing.assert_array_equal(after.bias, before.bias)


def test_a_penalty_is_of_each_points_own_gradient():
    """A linear f of slope 3 has the penalty (3 - 1)^2, in l2; one-sided, a slope below 1 has none.
    Neither is reported."""
    x, y = (np.asarray(z) for z in LAW.sample(jax.random.key(0), 8))
    for slope_, one_sided, wanted in ((3.0, False, 4.0), (3.0, True, 4.0), (0.5, False, 0.25), (0.5, True, 0.0)):
        critic = critics.gradient_penalty(Shape(size=3, hidden=()), one_sided=one_sided)
        direction = jnp.array([[2.0], [-1.0], [2.0]]) / 3
        state = critic.init(jax.random.key(0))
        layers = [Layer(slope_ * direction, jnp.zeros(1))]
        state = state._replace(nets={"f": layers}, optimizer={"f": critics.adam().init(layers)})
        _, readings = critic.step(state, lambda _: (x, y), jax.random.key(1))
        np.testing.assert_allclose(readings["penalty"], wanted, atol=1e-5)
        np.testing.assert_allclose(readings["kr"], slope_ * ((x - y) @ direction).mean(), rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in CRITICS if name != "exact"])  # which has no weights
def test_a_step_moves_and_a_constant_does_not_matter(name):
    critic, state = made(name, 0)
    draw = partial(LAW.sample, count=16)
    after, readings = jax.jit(lambda state, key: critic.step(state, draw, key))(state, jax.random.key(1))
    assert all(np.isfinite(value) for value in readings.values()) and "kr" in readings
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(state.nets), jax.tree.leaves(after.nets), strict=True))
    x, y = LAW.sample(jax.random.key(2), 16)
    f = state.nets["f"]
    last = f[-1] if isinstance(f, list) else f.last
    last = last.replace(bias=last.bias + 5)
    raised = state._replace(nets=state.nets | {"f": [*f[:-1], last] if isinstance(f, list) else f.replace(last=last)})
    read = jax.jit(critic.read)
    np.testing.assert_allclose(read(raised, x, y)["kr"], read(state, x, y)["kr"], atol=1e-4)
    assert critic.field(state, x).shape == x.shape


def test_what_cannot_be():
    for make, setting in (
        (critics.weight_clipping, {"bound": 0.0}),
        (critics.soft_c_transform, {"epsilon": -1.0}),
        (critics.regularized, {"epsilon": 0.0}),
        (critics.gradient_penalty, {"weight": float("nan")}),
    ):
        with pytest.raises(ValueError, match="it must be above 0"):
            make(SHAPE, **setting)
    critic, state = made("c", 0)
    for x, y in ((np.ones((1, 3)), np.ones((1, 3))), (np.ones((4, 3)), np.ones((5, 3)))):
        with pytest.raises(ValueError, match="of one shape, and of two points or more"):
            critic.read(state, x, y)
    with pytest.raises(ValueError, match="multiples of 8"):
        critics.weight_clipping(Shape(size=784, image=(28, 28, 1), hidden=(4, 4, 4))).init(jax.random.key(0))
    with pytest.raises(ValueError, match="no network of patches"):
        critics.residual(Shape(size=1024, image=(32, 32, 1), patch=4))
    with pytest.raises(ValueError, match="down is 'median': it must be one of stride, mean, norm"):
        critics.residual(SHAPE, down="median")
    assert kr(jnp.array([3.0, 3.0, 1.0, 1.0])) == 2


def test_updates_decay():
    """The second of two is half of what it would have been, and the first all of it."""
    states = []
    for linear_decay in (False, True):
        gp = CRITICS["gp"](Shape(size=3, hidden=(4,)))
        readings = train(gp, LAW, steps=2, batch=8, seeds=2, chunk=1, linear_decay=linear_decay)
        states.append([jax.tree.leaves(state.nets) for _, state in readings])
    (first, plain), (same, decayed) = states
    assert any((a != b).any() for a, b in zip(first, plain, strict=True))
    for one, other, full, half in zip(first, same, plain, decayed, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(half - one, (full - one) / 2, atol=1e-7)


def test_no_function_of_single_points():
    state = State({"f": []}, ())
    with pytest.raises(ValueError, match="no function of single points"):
        CRITICS["exact"](Shape(size=2)).of(state)


@pytest.mark.parametrize("name", ["wc", "gp", "lp", "sn"])
@pytest.mark.parametrize("rate", [2e-4, 1e-3])
def test_a_first_update_is_as_long_as_the_rate(name, rate):
    """As Adam without momentum has it in each bias, which no constraint on kernels changes."""
    critic = CRITICS[name](SHAPE, rate=rate)
    before = critic.init(jax.random.key(0))
    after, _ = critic.step(before, lambda key: LAW.sample(key, 16), jax.random.key(1))
    change = after.nets["f"][0].bias - before.nets["f"][0].bias
    assert jnp.max(jnp.abs(change)) == pytest.approx(rate, rel=1e-2)
