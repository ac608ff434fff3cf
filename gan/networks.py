"""Critics' and generators' networks as pytrees and pure functions.

Letters: B batch, D dimensions, F features.
"""

import functools
import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

Activation = Literal["relu", "leaky", "groupsort"]


@struct.dataclass
class Layer:
    kernel: jax.Array  # [in, out]; of a convolution [rows, columns, in, out], which its transpose takes from out to in
    bias: jax.Array  # [out]


GROUP = 16  # of 16 sorted features f comes within 0.5 % of |x| in 16 dimensions, of pairs within 7 %


def activate(x: jax.Array, name: Activation) -> jax.Array:
    """groupsort sorts groups of features, and keeps the gradient's length,
    as ReLU does not (Anil et al. 2019, arXiv 1811.05381)."""
    match name:
        case "relu":
            return jax.nn.relu(x)
        case "leaky":
            return jax.nn.leaky_relu(x, 0.2)
    features = x.shape[-1]
    return sort_groups(x.reshape(-1, features), math.gcd(features, GROUP)).reshape(x.shape)


@partial(jax.jit, static_argnames="size")  # operation by operation it would hold all comparisons
def sort_groups(x: jax.Array, size: int) -> jax.Array:
    """[B, F], each `size` neighbours sorted, by their ranks: how many of the others come before each. So many
    comparisons more than a sorting network's stay in registers, and the gradient is one sum by the same ranks: together
    a fourteenth of the network's time on a CPU, whose every stage goes through memory."""
    groups = x.reshape(len(x), -1, size)
    place = jnp.arange(size)
    earlier = (place[:, None] < place[None])[None, None]  # of equal ones the first comes first
    fixed = jax.lax.stop_gradient(groups)
    other, one = fixed[..., :, None], fixed[..., None, :]
    ranks = jnp.sum((other < one) | ((other == one) & earlier), -2, dtype=jnp.int32)
    return _placed(groups, ranks).reshape(x.shape)


@jax.custom_jvp
def _placed(groups: jax.Array, ranks: jax.Array) -> jax.Array:
    """[..., n], each value where its rank says. Term by term: compiled with YNNPACK, as what is not of our programs is,
    one sum would have all comparisons in memory."""
    place = jnp.arange(groups.shape[-1])[None, None]
    terms = (jnp.where(ranks[..., n : n + 1] == place, groups[..., n : n + 1], 0) for n in range(groups.shape[-1]))
    return functools.reduce(jnp.add, terms)


@_placed.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The same as one sum, whose transpose is one too; that of terms would be as many passes of pads."""
    (groups, ranks), (change, _) = primals, tangents
    there = ranks[..., :, None] == jnp.arange(groups.shape[-1])[None, None, None]
    return _placed(groups, ranks), jnp.sum(jnp.where(there, change[..., :, None], 0), -2)


def init_mlp(key: jax.Array, sizes: Sequence[int]) -> list[Layer]:
    """Kernels and biases uniform in ±1/sqrt(inputs), as torch begins: the scale of a clipped critic depends on it."""
    layers = []
    for now, rows, columns in zip(jax.random.split(key, len(sizes) - 1), sizes, sizes[1:], strict=False):
        drawn = jax.random.uniform(now, (rows + 1, columns), minval=-(rows**-0.5), maxval=rows**-0.5)
        layers.append(Layer(drawn[:-1], drawn[-1]))
    return layers


def linear(layer: Layer, x: jax.Array) -> jax.Array:
    return x @ layer.kernel + layer.bias[None]


def mlp(layers: Sequence[Layer], x: jax.Array, activation: Activation = "relu") -> jax.Array:
    """[B, D] -> [B, out]."""
    for layer in layers[:-1]:
        x = activate(linear(layer, x), activation)
    return linear(layers[-1], x)


def halvings(image: tuple[int, int, int], most: int = 3) -> int:
    """How often both sides of an image can be halved."""
    return next((n for n in range(most, 0, -1) if image[0] % 2**n == image[1] % 2**n == 0), 0)


def _checked(image: tuple[int, int, int], times: int) -> int:
    if times != halvings(image, times) or not times:
        raise ValueError(
            f"images of {image[0]} x {image[1]}: {times or 1} convolutions of stride 2 need multiples of "
            f"{2 ** (times or 1)}; give fewer features, or another network"
        )
    return times


def init_convolutions(key: jax.Array, shape: tuple[int, int, int], features: Sequence[int]) -> list[Layer]:
    """DCGAN's critic without its batch norm: 4 x 4 convolutions of stride 2, then one product over what is left.

    shape: (height, width, channels) of an image. Raises ValueError where a side cannot be halved so often.
    """
    height, width, channels = shape
    times = _checked(shape, len(features))
    layers, counts = [], [channels, *features]
    for inputs, outputs in zip(counts, counts[1:], strict=False):
        key, first = jax.random.split(key)
        (dense,) = init_mlp(first, (16 * inputs, outputs))
        layers.append(Layer(dense.kernel.reshape(4, 4, inputs, outputs), dense.bias))
    rest = (height >> times) * (width >> times) * counts[-1]
    return layers + init_mlp(key, [rest, 1])


def init_transposed(key: jax.Array, inputs: int, shape: tuple[int, int, int], features: Sequence[int]) -> list[Layer]:
    """DCGAN's generator without its batch norm: a product, then 4 x 4 transposed convolutions that double the sides.

    Raises ValueError where a side cannot be halved so often.
    """
    height, width, channels = shape
    times = _checked(shape, len(features))
    key, first = jax.random.split(key)
    layers, counts = (
        init_mlp(first, (inputs, (height >> times) * (width >> times) * features[0])),
        [*features, channels],
    )
    for before, after in zip(counts, counts[1:], strict=False):
        key, first = jax.random.split(key)
        bound = (4 * before) ** -0.5  # four of the sixteen taps meet a place
        layers.append(
            Layer(jax.random.uniform(first, (4, 4, after, before), minval=-bound, maxval=bound), jnp.zeros(after))
        )
    return layers


def transposed(layers: Sequence[Layer], x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """[B, in] -> [B, D], of images of `shape`."""
    times = len(layers) - 1
    x = jax.nn.relu(linear(layers[0], x)).reshape(len(x), shape[0] >> times, shape[1] >> times, -1)
    for number, layer in enumerate(layers[1:], 1):
        count, height, width, _ = x.shape
        larger = jax.ShapeDtypeStruct((count, 2 * height, 2 * width, len(layer.bias)), x.dtype)
        (x,) = jax.linear_transpose(partial(convolve, kernel=layer.kernel), larger)(x)
        x = x + layer.bias[None, None, None]
        x = x if number == times else jax.nn.relu(x)
    return x.reshape(len(x), -1)


def blocks(kernel: jax.Array) -> jax.Array:
    """A kernel [2 k, 2 k, in, out] of stride 2 as one of stride 1, [k, k, 4 in, out], over blocks of 2 x 2."""
    half, inputs = kernel.shape[0] // 2, kernel.shape[2]
    return kernel.reshape(half, 2, half, 2, inputs, -1).swapaxes(1, 2).reshape(half, half, 4 * inputs, -1)


def strided(kernel: jax.Array) -> jax.Array:
    """`blocks` the other way round."""
    half, inputs = kernel.shape[0], kernel.shape[2] // 4
    return kernel.reshape(half, half, 2, 2, inputs, -1).swapaxes(1, 2).reshape(2 * half, 2 * half, inputs, -1)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, height, width, in] -> [B, height', width', out] by kernel [k, k, in, out], zeros around: an odd k keeps the
    sides; an even one has stride 2, and halves them, odd ones rounded up."""
    count, height, width, inputs = x.shape
    side = kernel.shape[0]
    stride, before = 2 - side % 2, (side - 1) // 2
    around = [(before, before + size % stride) for size in (height, width)]
    if jax.default_backend() != "cpu":
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=numbers)
    # XLA's convolutions take 5 times as long on a CPU, differentiated twice, as one product over patches: of each of
    # their rows of pixels as it lies, in pairs where the stride is 2.
    times = side // stride
    rows, columns = -(-height // stride), -(-width // stride)
    x = jnp.pad(x, ((0, 0), *around, (0, 0)))
    x = x.reshape(count, x.shape[1], columns + times - 1, stride * inputs)
    last = stride * (rows - 1) + 1
    parts = [x[:, i : i + last : stride, j : j + columns] for i in range(side) for j in range(times)]
    patches = jnp.stack(parts, 3).reshape(-1, side * side * inputs)
    # Of kernels that are turned first: XLA would write the gradient as patches.T @ change, which takes 2.5 times as
    # long on a core as change.T @ patches.
    turned = jax.lax.optimization_barrier(kernel.reshape(side * side * inputs, -1).T)
    return (patches @ turned.T).reshape(count, rows, columns, -1)


def convolutions(layers: Sequence[Layer], x: jax.Array, activation: Activation = "leaky") -> jax.Array:
    """[B, height, width, channels] -> [B, 1]."""
    for layer in layers[:-1]:
        x = activate(convolve(x, layer.kernel) + layer.bias[None, None, None], activation)
    return linear(layers[-1], x.reshape(len(x), -1))


def over_patches(layers: Sequence[Layer], x: jax.Array, side: int, activation: Activation = "leaky") -> jax.Array:
    """[B, height, width, channels] -> [B]: a perceptron's mean over all patches, a function of how often each occurs. A
    pixel is in side^2 of them at most: where there are as many patches or more, the mean is 1-Lipschitz if the
    perceptron is."""
    height, width = (size - side + 1 for size in x.shape[1:3])
    corners = [x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    patches = jnp.concatenate(corners, -1)
    return jnp.mean(mlp(layers, patches.reshape(-1, patches.shape[-1]), activation).reshape(len(x), -1), 1)
