"""What is said of a critic's slope is never less than it is: bounds of norms, wide networks, readings of a GAN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan.certified import orthogonal, whole
from gan.critic import Shape
from gan.metric import lengths
from gan.networks import convolve
from gan.objectives import spectral_normalization
from gan.trainer import Generator, Recipe
from gan.weight_constraints import norm_bound


def largest(kernel: jax.Array, inputs: tuple[int, ...]) -> float:
    """The largest singular value of a layer's map."""
    if kernel.ndim == 4:
        eye = jnp.eye(int(np.prod(inputs))).reshape(-1, *inputs)
        kernel = convolve(eye, kernel).reshape(len(eye), -1)
    return float(np.linalg.norm(np.asarray(kernel, np.float64), 2))


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ((5, 9), (5,)), ((9, 5), (9,)), ((64, 1), (64,)), ((300, 300), (300,)),
        ((4, 4, 2, 3), (6, 8, 2)), ((4, 4, 1, 8), (8, 6, 1)), ((4, 4, 8, 3), (10, 4, 8)),
    ],
)  # fmt: skip
def test_a_bound_is_never_below_the_norm(shape, inputs):
    """Of ordinary kernels, of one that is nearly of rank one, and of scales whose squares are no float32."""
    bounded = jax.jit(lambda kernel: norm_bound(kernel, inputs))
    for number, scale in enumerate((1.0, 1e-15, 1e15)):
        kernel = scale * jax.random.normal(jax.random.key(number), shape)
        steep = kernel.at[..., 0].multiply(100)
        for one in (kernel, steep):
            bound, norm = float(bounded(one)), largest(one, inputs)
            assert norm * (1 - 1e-5) <= bound <= norm * (1.001 if len(inputs) == 1 else 1.5)
    assert norm_bound(jnp.zeros(shape), inputs) <= 1e-6


def test_wide_orthonormal_networks():
    """The first updates of Adam are of the same length in each of a kernel's numbers, and so long where they are
    many."""
    size = 784
    critic = orthogonal(Shape(size=size, hidden=(512, 512)))

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, y = jax.random.uniform(key, (2, 8, size))
        return 2 * x, y

    step = jax.jit(lambda state, key: critic.step(state, draw, key)[0])
    kernels = jax.jit(lambda state: [layer.kernel for layer in whole(state.nets["f"])])
    state, bound = jax.jit(critic.init)(jax.random.key(0)), jax.jit(critic.bound)
    for number in range(3):
        state = step(state, jax.random.key(number))
        norms = [np.linalg.norm(kernel, 2) for kernel in kernels(state)]
        assert max(norms) <= 1 + 1e-4 and bound(state) <= 1 + 1e-3


@pytest.mark.parametrize("image", [None, (4, 4, 1)])
@pytest.mark.parametrize("detached", [False, True])
def test_spectral_norms_at_each_reading_of_a_gan(image, detached):
    """The f that is read is certified; what steps are taken by is steeper where iterations lag, and its bound says
    so."""
    shape = Shape(size=16, hidden=(8, 8) if image is None else (4,), image=image)
    critic = spectral_normalization(shape, iterations=1, detached=detached)
    recipe = Recipe(critic=critic, generator=Generator(size=16, latent=4, hidden=(8,)), n_critic=2)
    gan = jax.jit(recipe.init)(jax.random.key(0))
    real = jax.random.uniform(jax.random.key(1), (3, 16, 16))
    gan = gan._replace(critic=gan.critic._replace(nets=jax.tree.map(lambda w: 5 * w, gan.critic.nets)))
    step, settle, bound = jax.jit(recipe.step), jax.jit(critic.settle), jax.jit(critic.bound)
    slopes = jax.jit(lambda state: lengths(critic.field(state, real[0])))
    for number in range(6):
        settled = settle(gan.critic)
        for layer, inputs in zip(settled.nets["f"], shape.inputs(settled.nets["f"]), strict=True):
            assert largest(layer.kernel, inputs) <= 1 + 1e-5
        assert slopes(gan.critic).max() <= bound(gan.critic) * (1 + 1e-5)
        gan, _ = step(gan, real, jax.random.key(number))
