"""No weights make a certified layer steeper than 1: each map as a matrix, by its singular values."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan import lipschitz
from gan.certified import FROM_ANYWHERE, almost_orthogonal, orthogonal, residual, whole
from gan.critic import Shape
from gan.metric import lengths
from gan.networks import blocks, convolve, strided
from gan.transport import exact_w1

KERNELS = 20  # of random entries, to each shape
SCALES = (1e-3, 1.0, 1e3)
SHAPES = ((5, 3, 2, 7), (4, 6, 6, 3), (1, 1, 3, 4), (7, 2, 1, 6))  # height, width, in, out


def norms(layer: Callable[[jax.Array, jax.Array], jax.Array], weights: jax.Array, image: tuple[int, ...]) -> np.ndarray:
    """The largest singular value of each linear map of images, layer(x, weights)."""
    size = int(np.prod(image))
    eye = jnp.eye(size).reshape(size, *image)
    matrices = jax.jit(jax.vmap(lambda weights: layer(eye, weights).reshape(size, -1)))(weights)
    return np.linalg.svd(np.asarray(matrices, np.float64), compute_uv=False).max(-1)


def drawn(*shape: int, key: int = 0) -> jax.Array:
    """Kernels of entries of very different sizes, some of them 0."""
    first, second = jax.random.split(jax.random.key(key))
    entries = jax.random.normal(first, (KERNELS, *shape)) ** 3
    return entries * (jax.random.uniform(second, entries.shape) > 0.3)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_almost_orthogonal_convolutions(shape, side):
    height, width, inputs, outputs = shape

    def layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if side % 2:
            return convolve(x, lipschitz.almost_orthogonal(kernel))
        return convolve(x, strided(lipschitz.almost_orthogonal(blocks(kernel))))

    kernels = drawn(side, side, inputs, outputs)
    found = norms(layer, jnp.concatenate([scale * kernels for scale in SCALES]), (height, width, inputs))
    assert (found <= 1 + 1e-5).all() and (found.reshape(len(SCALES), KERNELS).max(-1) > 0.1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_convolutions(shape):
    """At each frequency the kernel's transform keeps lengths:
    so does the map of endless images, and none is steeper."""
    height, width, inputs, outputs = shape

    @jax.jit
    @jax.vmap
    def made(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        turns = FROM_ANYWHERE(jax.random.normal(second, (2, outputs, outputs // 2)))
        return lipschitz.orthogonal(FROM_ANYWHERE(jax.random.normal(first, (4 * inputs, outputs))), turns)

    kernels = made(jax.random.split(jax.random.key(0), KERNELS))
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (2, 10))
    along = np.exp(1j * angles[:, :, None] * np.arange(2))
    transforms = np.einsum("fa,fb,nabio->nfio", *along, np.asarray(kernels, np.float64))
    np.testing.assert_allclose(np.linalg.svd(transforms, compute_uv=False), 1, atol=1e-3)
    np.testing.assert_array_equal(blocks(strided(kernels[0])), kernels[0])
    found = norms(lambda x, kernel: convolve(x, strided(kernel)), kernels, (height, width, inputs))
    assert (found <= 1 + 1e-3).all()


def test_large_images_by_power_iteration():
    """An odd size that is no small matrix; the orthogonal one is at its bound, the almost orthogonal one below."""
    first, second, third = jax.random.split(jax.random.key(0), 3)
    turns = FROM_ANYWHERE(jax.random.normal(second, (2, 16, 8)))
    kernels = {
        "orthogonal": lipschitz.orthogonal(FROM_ANYWHERE(jax.random.normal(first, (12, 16))), turns),
        "almost": lipschitz.almost_orthogonal(blocks(jax.random.normal(third, (4, 4, 3, 16)))),
    }

    def largest(kernel: jax.Array) -> jax.Array:
        there = partial(convolve, kernel=strided(kernel))
        back = jax.linear_transpose(there, jnp.zeros((1, 33, 25, 3)))

        def once(_, v: jax.Array) -> jax.Array:
            (v,) = back(there(v))
            return v / jnp.linalg.norm(v)

        v = jax.lax.fori_loop(0, 100, once, jax.random.normal(jax.random.key(1), (1, 33, 25, 3)))
        return jnp.linalg.norm(there(v / jnp.linalg.norm(v)))

    found = {name: float(jax.jit(largest)(kernel)) for name, kernel in kernels.items()}
    assert found["orthogonal"] == pytest.approx(1, abs=1e-3) and 0.3 < found["almost"] < 1


@pytest.mark.parametrize(("side", "height", "width", "features"), [(3, 5, 3, 4), (1, 1, 1, 9), (3, 4, 4, 1)])
def test_residual_layers(side, height, width, features):
    """The Jacobian at points where some units are on and others off."""

    @jax.jit
    @jax.vmap
    def jacobian(kernel: jax.Array, key: jax.Array, spread: jax.Array) -> jax.Array:
        one, two, three = jax.random.split(key, 3)
        bias, weights = jax.random.normal(one, (features,)), spread * jax.random.normal(two, (features,))
        x = jax.random.normal(three, (height, width, features))
        slopes = jax.jacobian(lambda x: lipschitz.residual(x[None], kernel, bias, weights)[0])(x)
        return slopes.reshape(x.size, x.size)

    keys, spread = jax.random.split(jax.random.key(0), KERNELS), jnp.linspace(0, 3, KERNELS)
    for scale in SCALES:
        matrices = jacobian(scale * drawn(side, side, features, features), keys, spread)
        found = np.linalg.svd(np.asarray(matrices, np.float64), compute_uv=False).max(-1)
        assert (found <= 1 + 1e-4).all() and found.max() > 0.5


@pytest.mark.parametrize("kind", ["mean", "norm"])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3), (1, 1)])
def test_pooling(kind, height, width):
    """Of images some of whose blocks are 0."""
    x = drawn(height, width, 2)
    x = x.at[0].set(0)
    jacobian = jax.jit(jax.vmap(jax.jacobian(lambda x: lipschitz.pool(x[None], kind)[0])))(x)
    found = np.linalg.svd(np.asarray(jacobian, np.float64).reshape(KERNELS, -1, x[0].size), compute_uv=False).max(-1)
    assert (found <= 1 + 1e-5).all() and found.max() > 0.4


def test_pooling_does_not_jump_where_a_block_is_empty():
    for value in (1e-3, 1e-6, 1e-7, 1e-9):
        still, moved = (lipschitz.pool(jnp.zeros((1, 2, 2, 1)).at[0, 0, 0].set(x), "norm").sum() for x in (0.0, value))
        assert 0 <= float(still) < 1e-9 and float(moved) - float(still) <= value


@pytest.mark.parametrize("side", [1, 2, 3])
def test_row_sums_are_those_of_the_whole_map(side):
    """Of an image large enough, at its middle."""
    kernel = jax.random.normal(jax.random.key(side), (side, side, 3, 4))
    weights = jnp.arange(1.0, 5)
    places = 9
    numbers = ("NHWC", "HWIO", "NHWC")
    around = jax.jit(lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers))
    matrix = np.asarray(around(jnp.eye(places**2 * 3).reshape(-1, places, places, 3)).reshape(places**2 * 3, -1))
    products = np.abs(matrix.T @ matrix).reshape(places**2, 4, places**2, 4)[places**2 // 2]
    wanted = np.einsum("opn,n->o", products, weights) / weights
    np.testing.assert_allclose(lipschitz.row_sums(kernel, weights), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "hidden"),
    [
        (orthogonal, (6, 4)),
        (almost_orthogonal, (5, 3)),
        (residual, (5, 3)),
        (partial(residual, down="mean"), (6,)),
        (partial(residual, down="norm"), (4, 4)),
    ],
)
def test_critics_on_images(make, hidden):
    """Where steps a hundred times longer than usual lead: f is no steeper than 1 between any two images, and never
    above the exact distance of a batch."""
    critic = make(Shape(size=128, image=(8, 8, 2), hidden=hidden), rate=0.2)
    assert critic.certified

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, y = jax.random.uniform(key, (2, 16, 128))
        return x, 3 * y

    x, y = draw(jax.random.key(9))
    step = jax.jit(lambda state, key: critic.step(state, draw, key))
    read = jax.jit(
        lambda state: (critic.read(state, x, y)["kr"], lengths(critic.field(state, jnp.concatenate([x, y]))))
    )
    kernels = jax.jit(lambda state: [layer.kernel for layer in whole(state.nets["f"])])
    state = jax.jit(critic.init)(jax.random.key(0))
    for number in range(8):
        said, slopes = read(state)
        assert said <= exact_w1(x, y) + 1e-4 and slopes.max() <= 1 + 1e-3
        if make is orthogonal:
            for kernel, image in zip(kernels(state), ((8, 8, 2), (4, 4, 6), None), strict=True):
                found = norms(convolve, kernel[None], image) if image else np.linalg.norm(kernel, 2)
                assert found <= 1 + 1e-3
        state, _ = step(state, jax.random.key(number))
