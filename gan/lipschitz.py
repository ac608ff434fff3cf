"""Layers that no weights make steeper than 1 in l2: convolutions that are almost orthogonal or orthogonal, residual
layers, pooling.

Kernels are [k, k, in, out], those of products [1, 1, in, out]; sides as gan.networks.convolve has them. What is proved
of images without an end holds of finite ones with zeros around them: their map is a part of the endless one's.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from gan.metric import FLOOR
from gan.networks import convolve


def row_sums(kernel: jax.Array, weights: jax.Array | float = 1.0) -> jax.Array:
    """[out]: sums over all o' and all places apart of |K K^T|_(o o') w_o' / w_o, K the map of stride 1.

    Whatever the positive weights [out], K with each output divided by the root of its sum has no singular value above 1
    (Prach, Lampert 2022, arXiv 2208.03160, theorem 1; with weights: Araujo et al. 2023, arXiv 2303.03169).
    """
    side, features = kernel.shape[0], kernel.shape[-1]
    weights = jnp.broadcast_to(weights, (features,))
    total = jnp.zeros(features)
    for i in range(side):
        for j in range(1 - side if i else 0, side):  # the other half of the places apart are these transposed
            here = kernel[: side - i, max(0, -j) : side - max(0, j)]
            there = kernel[i:, max(0, j) : side + min(0, j)]
            products = jnp.abs(jnp.einsum("abco,abcn->on", here, there))
            total += products @ weights
            total += products.T @ weights if (i, j) != (0, 0) else 0.0
    return total / weights


def _inverse_root(sums: jax.Array) -> jax.Array:
    return jnp.where(sums > 0, jax.lax.rsqrt(jnp.maximum(sums, FLOOR)), 0.0)


def almost_orthogonal(kernel: jax.Array) -> jax.Array:
    """A kernel of stride 1 with each input scaled, or each output where they are fewer (Prach, Lampert, ibid.)."""
    if kernel.shape[-2] <= kernel.shape[-1]:  # of the transposed map: a kernel that is turned round has the same sums
        return kernel * _inverse_root(row_sums(kernel.swapaxes(2, 3)))[None, None, :, None]
    return kernel * _inverse_root(row_sums(kernel))[None, None, None]


def orthogonal(first: jax.Array, turns: jax.Array) -> jax.Array:
    """[2, 2, in, out] out of a matrix [in, out] with orthonormal rows or columns and two [out, half], with orthonormal
    columns: a map of stride 1 that keeps lengths, of its inputs or of its transpose's.

    Behind the matrix, P z_n + (I - P) z_(n + 1) along each axis, P = A A^T: what A spans stays, and the rest moves by
    one (Li et al. 2019, arXiv 1911.00937, BCOP). With stride 2, as a 4 x 4 kernel over blocks of 2 x 2: Boissin et al.
    2025, arXiv 2501.07930.
    """

    def parts(z: jax.Array, turn: jax.Array) -> jax.Array:
        stays = jnp.matmul(jnp.matmul(z, turn), turn.T)
        return jnp.stack([stays, z - stays])

    return parts(parts(first, turns[0]), turns[1]).swapaxes(0, 1)


def residual(x: jax.Array, kernel: jax.Array, bias: jax.Array, weights: jax.Array) -> jax.Array:
    """x - 2 K^T T^-1 relu(K x + b), T the row sums of K, [B, height, width, in]; kernel [k, k, in, out] of an odd k
    (SLL of Araujo et al. 2023, ibid., theorem 3). `weights` [out] are logarithms."""
    scale = _inverse_root(row_sums(kernel, jnp.exp(weights))) ** 2
    inner = jax.nn.relu(convolve(x, kernel) + bias[None, None, None]) * scale[None, None, None]
    return x - 2 * convolve(inner, kernel[::-1, ::-1].swapaxes(2, 3))


def pool(x: jax.Array, kind: Literal["mean", "norm"]) -> jax.Array:
    """[B, height, width, F] -> [B, height / 2, width / 2, F], an odd side's last one for itself: half the sum of each
    block of 2 x 2, or its length."""
    count, height, width, features = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    x = x.reshape(count, (height + 1) // 2, 2, (width + 1) // 2, 2, features)
    if kind == "mean":
        return jnp.sum(x, (2, 4)) / 2
    # Smooth at 0, where a length has no derivative, and no steeper than it.
    return jnp.sqrt(jnp.sum(x * x, (2, 4)) + FLOOR) - FLOOR**0.5
