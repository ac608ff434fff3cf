"""Constraints on weights under which a network is 1-Lipschitz in l2, given activations that are.

A convolution's bound is that of the linear map it is, found by power iteration with the convolution and its transpose;
the singular values of its kernel as a matrix are another thing.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from gan.metric import FLOOR
from gan.networks import Layer, convolve


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


def orthonormal(kernel: jax.Array, iterations: int, bounded: bool = True) -> jax.Array:
    """The nearest matrix with orthonormal rows or columns, whichever are fewer (Björck, Bowie 1971):
    W <- W (3 - W^T W) / 2.

    It converges where no singular value is above sqrt(3): W is first divided by a bound, sqrt(|W|_1 |W|_inf). That is
    far above the norm: a matrix that is nearly orthonormal needs no bound, and few iterations.
    """
    wide = kernel.shape[0] < kernel.shape[1]
    w = kernel.T if wide else kernel  # [more, fewer]: the products are of the smaller size
    if bounded:
        w = w / jnp.maximum(jnp.sqrt(jnp.max(jnp.sum(jnp.abs(w), 0)) * jnp.max(jnp.sum(jnp.abs(w), 1))), FLOOR)

    def step(w: jax.Array, _: None) -> tuple[jax.Array, None]:
        return 1.5 * w - 0.5 * w @ (w.T @ w), None

    w, _ = jax.lax.scan(step, w, length=iterations, unroll=iterations <= 3)
    return w.T if wide else w


def orthogonal(layers: Sequence[Layer], iterations: int, bounded: bool = True) -> list[Layer]:
    """Products alone, with orthonormal kernels."""
    return [replace(layer, kernel=orthonormal(layer.kernel, iterations, bounded)) for layer in layers]
