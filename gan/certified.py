"""Critics that cannot be steeper than 1, of perceptrons and of convolutions: gan.lipschitz has the proofs' sources."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from gan import lipschitz
from gan.critic import Critic, Shape, above, adam, critic_of, kr_alone
from gan.networks import Layer, blocks, convolve, init_mlp, linear, strided
from gan.weight_constraints import orthonormal, short

Near = Callable[[jax.Array], jax.Array]  # a matrix [..., in, out] -> one with orthonormal rows or columns


def _near(iterations: int, bounded: bool = False) -> Near:
    def near(kernel: jax.Array) -> jax.Array:
        run = partial(orthonormal, iterations=iterations, bounded=bounded)
        return jax.vmap(run)(kernel) if kernel.ndim == 3 else run(kernel)

    return near


# Kernels stay orthonormal, so that an update takes them little away: three iterations bring them back, and the
# gradient through two is that along the orthonormal ones. From anywhere it takes 30, with the gradient through all.
# Little is within Björck's region, sqrt(3) - 1: the first updates of kernels of a million numbers, all alike in length,
# would be far out of it, those of 128 x 128 are a third of it.
MOST = 0.7
FROM_ANYWHERE, BACK, ALONG = _near(30, bounded=True), _near(3), _near(2)


@struct.dataclass
class Turned:
    """An orthogonal 4 x 4 convolution of stride 2: gan.lipschitz.orthogonal of blocks of 2 x 2."""

    kernel: jax.Array  # [4 in, out]
    turns: jax.Array  # [2, out, out / 2]
    bias: jax.Array  # [out]


Weights = TypeVar("Weights", bound=Layer | Turned)


def _orthonormal(layer: Weights, near: Near) -> Weights:
    layer = replace(layer, kernel=near(layer.kernel))
    return replace(layer, turns=near(layer.turns)) if isinstance(layer, Turned) else layer


def _all(layers: Sequence[Weights], near: Near) -> list[Weights]:
    return [_orthonormal(layer, near) for layer in layers]


def whole(layers: Sequence[Layer | Turned]) -> list[Layer]:
    """What the critic ortho's f is computed with."""

    def one(layer: Layer | Turned) -> Layer:
        if isinstance(layer, Layer):
            return layer
        return Layer(strided(lipschitz.orthogonal(layer.kernel, layer.turns)), layer.bias)

    return [one(layer) for layer in _all(layers, ALONG)]


def orthogonal(shape: Shape, rate: float = 2e-3) -> Critic:
    """[SO] Anil, Lucas, Grosse 2019 (arXiv 1811.05381): orthonormal kernels by Björck's iteration, and activations that
    keep the gradient's length: groups sorted (the benchmark sorts all, at a rate of 2e-4). Convolutions are those of
    Boissin et al. 2025 (arXiv 2501.07930). Raises ValueError for widths that no two features share."""
    if odd := [width for width in shape.hidden if width % 2]:
        raise ValueError(f"hidden layers of {odd[0]} features: the critic ortho sorts groups of even layers")
    above(rate=rate)

    def begin(key: jax.Array) -> list[Layer | Turned]:
        first, second = jax.random.split(key)
        layers: list[Layer | Turned] = []
        for number, layer in enumerate(shape.init(first)):
            if layer.kernel.ndim == 2:
                layers.append(layer)
                continue
            inputs, outputs = layer.kernel.shape[2:]
            now = jax.random.fold_in(second, number)
            turns = jax.random.normal(now, (2, outputs, outputs // 2))
            layers.append(Turned(blocks(layer.kernel)[0, 0], turns, layer.bias))
        return _all(layers, FROM_ANYWHERE)

    return critic_of(
        shape,
        kr_alone,
        activation="groupsort",
        constraint="certified" if shape.bounded else "none",
        tx=short(adam(rate, 0.9, 0.999), MOST),
        begin=begin,
        project=partial(_all, near=BACK),
        constrain=lambda layers, memory: (whole(layers), memory),
    )


def almost_orthogonal(shape: Shape, rate: float = 2e-3) -> Critic:
    """Kernels divided by sums of their own products, which needs no iteration, and groups sorted (AOL of Prach, Lampert
    2022, arXiv 2208.03160)."""
    above(rate=rate)

    def one(layer: Layer) -> Layer:
        if layer.kernel.ndim == 2:
            return replace(layer, kernel=lipschitz.almost_orthogonal(layer.kernel[None, None])[0, 0])
        return replace(layer, kernel=strided(lipschitz.almost_orthogonal(blocks(layer.kernel))))

    def constrain(layers, memory):
        return [one(layer) for layer in layers], memory

    return critic_of(
        shape,
        kr_alone,
        activation="groupsort",
        constraint="certified" if shape.bounded else "none",
        tx=adam(rate, 0.9, 0.999),
        constrain=constrain,
    )


@struct.dataclass
class Stage:
    """A layer with orthonormal rows or columns, which changes sides and features, and a residual one."""

    change: Layer  # of blocks of 2 x 2, or of points
    kernel: jax.Array  # [k, k, out, out]
    bias: jax.Array  # [out]
    weights: jax.Array  # [out], logarithms


@struct.dataclass
class Residuals:
    stages: list[Stage]
    last: Layer


def residual(shape: Shape, rate: float = 2e-3, down: Literal["stride", "mean", "norm"] = "stride") -> Critic:
    """Residual layers under the bound of gan.lipschitz.residual, and before each a product that changes the features
    (SLL of Araujo et al. 2023, arXiv 2303.03169).

    Of images sides are halved by products of blocks of 2 x 2 (stride), or by pooling after products: half of the sum
    of a block's values, or their length; odd ones are rounded up. Raises ValueError for perceptrons over patches.
    """
    above(rate=rate)
    if down not in (choices := ("stride", "mean", "norm")):
        raise ValueError(f"down is {down!r}: it must be one of {', '.join(choices)}")
    if shape.patch:
        raise ValueError("the critic sll has residual layers of whole images, or of points: no network of patches")
    image, side = (shape.image, 3) if shape.image else ((1, 1, shape.size), 1)
    features = shape.features
    in_blocks = down == "stride" and shape.image is not None

    def begin(key: jax.Array) -> Residuals:
        stages: list[Stage] = []
        height, width, inputs = image
        for number, outputs in enumerate(features):
            first, second = jax.random.split(jax.random.fold_in(key, number))
            (change,) = init_mlp(first, (4 * inputs if in_blocks else inputs, outputs))
            (dense,) = init_mlp(second, (side * side * outputs, outputs))
            kernel = dense.kernel.reshape(side, side, outputs, outputs)
            stages.append(Stage(change, kernel, dense.bias, jnp.zeros(outputs)))
            height, width, inputs = -(-height // 2), -(-width // 2), outputs
        (last,) = init_mlp(jax.random.fold_in(key, len(features)), (height * width * inputs, 1))
        return project(Residuals(stages, last), FROM_ANYWHERE)

    def project(net: Residuals, near: Near = BACK) -> Residuals:
        stages = [replace(stage, change=_orthonormal(stage.change, near)) for stage in net.stages]
        return Residuals(stages, _orthonormal(net.last, near))

    def forward(net: Residuals, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, *image)
        for stage in net.stages:
            kernel = stage.change.kernel[None, None]
            x = convolve(x, strided(kernel) if in_blocks else kernel) + stage.change.bias[None, None, None]
            if down != "stride" and shape.image:
                x = lipschitz.pool(x, down)
            x = lipschitz.residual(x, stage.kernel, stage.bias, stage.weights)
        return linear(net.last, x.reshape(len(x), -1))[:, 0]

    return critic_of(
        shape,
        kr_alone,
        forward=forward,
        constraint="certified",
        bound=lambda net: jnp.ones(()),  # by construction
        tx=short(adam(rate, 0.9, 0.999), MOST),
        begin=begin,
        project=project,
        constrain=lambda net, memory: (project(net, ALONG), memory),
    )
