"""A generator's step: what it moves, and where the gradient goes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan.critic import Shape
from gan.metric import distances
from gan.networks import convolve, init_transposed
from gan.objectives import CRITICS
from gan.trainer import Generator, Recipe

SIZE = 4
REAL = jax.random.uniform(jax.random.key(9), (3, 8, SIZE))


def recipe(name: str) -> Recipe:
    critic = CRITICS[name](Shape(size=SIZE, hidden=(8, 8)))
    return Recipe(critic=critic, generator=Generator(size=SIZE, latent=3, hidden=(8,)), n_critic=2, rate=1e-2)


@pytest.mark.parametrize("name", ["wc", "gp", "sn", "c", "ls", "exact", "mm"])
def test_a_step_moves_both_and_lessens_the_distance(name):
    made = recipe(name)
    before = made.init(jax.random.key(0))
    after, readings = jax.jit(made.step)(before, REAL, jax.random.key(1))
    assert all(np.isfinite(value) for value in readings.values())
    for part in ("generator", "average") if name == "exact" else ("generator", "average", "critic"):
        old, new = (jax.tree.leaves(getattr(gan, part)) for gan in (before, after))
        assert any((a != b).any() for a, b in zip(old, new, strict=True)), part


def test_the_average_follows():
    made = recipe("exact")
    gan = made.init(jax.random.key(0))
    after, _ = made.step(gan, REAL, jax.random.key(1))
    for old, new, average in zip(*map(jax.tree.leaves, (gan.generator, after.generator, after.average)), strict=True):
        np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)  # the first of ten that warm it up


def test_the_exact_critic_draws_points_together():
    """Its gradient goes through matched pairs: a generator of one point alone finds a median of the images."""
    real = jnp.broadcast_to(jnp.array([0.2, 0.4, 0.6, 0.8])[None, None], (3, 8, SIZE))
    made = recipe("exact")
    gan, step = made.init(jax.random.key(0)), jax.jit(made.step)
    for n in range(300):
        gan, readings = step(gan, real, jax.random.key(n))
    points = made.generator.sample(gan.generator, jax.random.key(0), 16)
    assert float(distances(points, real[0]).mean()) < 0.1


def test_a_discrete_generator_has_so_many_points():
    generator = Generator(size=2, latent=3, hidden=(4,), codes=5)
    points = generator.sample(generator.init(jax.random.key(0)), jax.random.key(1), 200)
    assert len(np.unique(np.asarray(points).round(5), axis=0)) == 5


def test_sides_that_are_soon_odd():
    """MNIST's 28 x 28 halve twice, so critic and generator have two convolutions; 7 x 7 have none."""
    critic, generator = Shape(size=784, image=(28, 28, 1)), Generator(size=784, latent=3, image=(28, 28, 1))
    kernels = [layer.kernel.shape for layer in critic.init(jax.random.key(0))]
    assert kernels == [(4, 4, 1, 64), (4, 4, 64, 128), (7 * 7 * 128, 1)]
    layers = generator.init(jax.random.key(0))
    assert [layer.kernel.shape for layer in layers] == [(3, 7 * 7 * 128), (4, 4, 64, 128), (4, 4, 1, 64)]
    assert jax.eval_shape(partial(generator.sample, count=2), layers, jax.random.key(1)).shape == (2, 784)
    for shape in (critic, generator):
        with pytest.raises(ValueError, match="images of 7 x 7: 1 convolutions of stride 2 need multiples of 2"):
            replace(shape, size=49, image=(7, 7, 1)).init(jax.random.key(0))


def test_convolutions_make_images():
    generator = Generator(size=16 * 24 * 3, latent=5, image=(16, 24, 3))
    points = jax.jit(partial(generator.sample, count=2))(generator.init(jax.random.key(0)), jax.random.key(1))
    assert points.shape == (2, 16 * 24 * 3) and 0 <= points.min() <= points.max() <= 1 and points.std() > 0
    (layer,), x = generator.init(jax.random.key(0))[-1:], jax.random.normal(jax.random.key(1), (2, 4, 6, 64))
    flipped = layer.kernel[::-1, ::-1].swapaxes(2, 3)  # jax.lax has it so that its gradient is a convolution's, flipped
    wanted = jax.lax.conv_transpose(x, flipped, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    larger = jax.ShapeDtypeStruct((2, 8, 12, 3), x.dtype)
    (found,) = jax.linear_transpose(partial(convolve, kernel=layer.kernel), larger)(x)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    with pytest.raises(ValueError, match="images of 12 x 16: 3 convolutions of stride 2 need multiples of 8"):
        init_transposed(jax.random.key(0), 4, (12, 16, 1), (8, 8, 8))
