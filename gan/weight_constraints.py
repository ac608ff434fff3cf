"""Constraints on weights under which a network is 1-Lipschitz in l2, given activations that are.

A convolution's norm is that of the linear map it is, with rows of zeros around; the singular values of its kernel as a
matrix are another thing. `spectral_norm` approaches the norm from below and is for training; `norm_bound` is never
below it and is for what is said of a critic.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from gan.metric import FLOOR
from gan.networks import Layer, blocks, convolve


def clip(layers: Sequence[Layer], bound: float) -> list[Layer]:
    """Every weight in [-bound, bound] (Arjovsky et al. 2017, arXiv 1701.07875);
    biases as they are, as the benchmark has it."""
    return [replace(layer, kernel=jnp.clip(layer.kernel, -bound, bound)) for layer in layers]


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x), FLOOR))


def spectral_norm(kernel: jax.Array, vector: jax.Array, iterations: int) -> tuple[jax.Array, jax.Array]:
    """(largest singular value, the vector to go on from) by power iteration from an input `vector`: [in], or an image
    of the layer's inputs. The gradient goes through the value and not through the vectors
    (Miyato et al. 2018, arXiv 1802.05957)."""
    forward = (lambda v: convolve(v[None], kernel)[0]) if kernel.ndim == 4 else (lambda v: v @ kernel)
    fixed = jax.lax.stop_gradient(kernel)
    there = (lambda v: convolve(v[None], fixed)[0]) if kernel.ndim == 4 else (lambda v: v @ fixed)
    back = jax.linear_transpose(there, vector)
    v = jax.lax.stop_gradient(vector)
    v, _ = jax.lax.scan(lambda v, _: (_unit(back(there(v))[0]), None), v, length=iterations)
    out = forward(v)
    return jnp.sum(_unit(jax.lax.stop_gradient(out)) * out), v


def spectral(
    layers: Sequence[Layer], vectors: Sequence[jax.Array], iterations: int, detached: bool = False
) -> tuple[list[Layer], list[jax.Array]]:
    """(layers whose kernels are divided by their spectral norms, the vectors to go on from).

    detached: no gradient through the norm, which is how the published benchmark computes it; see gan.objectives.
    """
    made = []
    for layer, vector in zip(layers, vectors, strict=True):
        norm, vector = spectral_norm(layer.kernel, vector, iterations)
        norm = jax.lax.stop_gradient(norm) if detached else norm
        made.append((replace(layer, kernel=layer.kernel / jnp.maximum(norm, FLOOR)), vector))
    kernels, vectors = zip(*made, strict=True)
    return list(kernels), list(vectors)


def norm_bound(kernel: jax.Array, inputs: Sequence[int], squarings: int = 12) -> jax.Array:
    """No less than the largest singular value of a layer's map, but for float32's rounding, and quick on any device.

    inputs: the shape of one point's inputs, [in] or [height, width, in]. By Gram iteration (Delattre et al. 2023,
    arXiv 2305.16173): |A| <= |(A* A)^k|_F^(1 / 2k), here at most n^(1 / 16,384) times |A| for n inputs or outputs,
    whichever are fewer.

    A convolution of stride 2 is one of stride 1 and 2 x 2 taps over blocks of 2 x 2 pixels. With zeros around it is a
    part of the one over a torus of as many blocks, whose norm is the largest over frequencies (Sedghi, Gupta, Long
    2019, arXiv 1805.10408): some hundredths above its own.
    """
    maps = kernel
    if kernel.ndim == 4:
        rows, columns = inputs[0] // 2 + 1, inputs[1] // 2 + 1  # blocks, with the zeros
        taps = blocks(kernel)
        along, across = (
            jnp.exp(2j * jnp.pi * jnp.arange(n) / side) for n, side in ((rows, rows), (columns // 2 + 1, columns))
        )
        near = taps[0][None] + along[:, None, None, None] * taps[1][None]  # [rows, 2, in, out]
        maps = near[:, None, 0] + across[None, :, None, None] * near[:, None, 1]  # the other columns' are conjugate
    if maps.shape[-2] < maps.shape[-1]:
        maps = maps.swapaxes(-1, -2)
    scale = jnp.maximum(jnp.max(jnp.abs(maps)), FLOOR)  # whose squares neither overflow nor vanish
    maps = maps / scale
    gram = maps.conj().swapaxes(-1, -2) @ maps

    def square(carry: tuple[jax.Array, jax.Array], number: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        gram, log = carry
        length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.abs(gram) ** 2, (-2, -1), keepdims=True), FLOOR))
        gram = gram / length
        return (gram @ gram, log + jnp.log(length) / 2**number), None

    start = gram, jnp.zeros((*gram.shape[:-2], 1, 1), jnp.float32)
    (_, log), _ = jax.lax.scan(square, start, jnp.arange(squarings + 1, dtype=jnp.float32))
    return scale * jnp.exp(jnp.max(log) / 2)


def within_bounds(layers: Sequence[Layer], inputs: Sequence[Sequence[int]]) -> list[Layer]:
    """Kernels divided by bounds of their norms, so that the network is 1-Lipschitz."""
    bounds = [norm_bound(layer.kernel, shape) for layer, shape in zip(layers, inputs, strict=True)]
    return [
        replace(layer, kernel=layer.kernel / jnp.maximum(bound, FLOOR))
        for layer, bound in zip(layers, bounds, strict=True)
    ]


def short(tx: optax.GradientTransformation, most: float) -> optax.GradientTransformation:
    """`tx`, with no matrix's update longer than `most`, in the Frobenius norm and so in the spectral one."""

    def one(change: jax.Array) -> jax.Array:
        if change.ndim < 2:
            return change
        length = jnp.sqrt(jnp.maximum(jnp.sum(change**2, (-2, -1), keepdims=True), FLOOR))
        return change * jnp.minimum(1, most / length)

    def update(
        gradient: optax.Updates, state: optax.OptState, weights: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        changes, state = tx.update(gradient, state, weights)
        return jax.tree.map(one, changes), state

    return optax.GradientTransformation(tx.init, update)


def orthonormal(kernel: jax.Array, iterations: int, bounded: bool = True) -> jax.Array:
    """The nearest matrix with orthonormal rows or columns, whichever are fewer (Björck, Bowie 1971):
    W <- W (3 - W^T W) / 2.

    It converges where no singular value is above sqrt(3), and is NaN in the end where one is above sqrt(5): W is first
    divided by a bound, sqrt(|W|_1 |W|_inf). That is far above the norm: a matrix that is known to be near an
    orthonormal one (within sqrt(3) - 1) needs no bound, and few iterations. From any W within sqrt(3) no singular value
    is above 1 after one.
    """
    wide = kernel.shape[0] < kernel.shape[1]
    w = kernel.T if wide else kernel  # [more, fewer]: the products are of the smaller size
    if bounded:
        w = w / jnp.maximum(jnp.sqrt(jnp.max(jnp.sum(jnp.abs(w), 0)) * jnp.max(jnp.sum(jnp.abs(w), 1))), FLOOR)

    def step(w: jax.Array, _: None) -> tuple[jax.Array, None]:
        return 1.5 * w - 0.5 * w @ (w.T @ w), None

    w, _ = jax.lax.scan(step, w, length=iterations, unroll=iterations <= 3)
    return w.T if wide else w
