"""Rotary positions (Su et al. 2021, arXiv 2104.09864):
each pair of dimensions of a query or key is turned by its angle.

Scores then depend on the difference of the positions alone: R(p)^T R(q) = R(q - p). Two and more axes are a matter of
the frequencies (rope/positions/angles.py), not of this file.

Letters: T positions of a row, N heads, H head size, F = H/2 pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rope.positions.angles import Layout, angles, check_layout, join
from training.partition import device_kind


class Rotation(NamedTuple):
    """Of each position, head (one for all, where they turn alike) and pair: [..., T, 1 or N, F]. Computed once, used by
    all layers; `jax.tree.map(lambda x: lookup(x, positions), table)` takes rows of a cached one."""

    cos: jax.Array
    sin: jax.Array


def rotation(positions: jax.Array, frequencies: jax.Array, *, magnitude: float = 1.0) -> Rotation:
    """The rotation of positions [..., T] by frequencies [F], or of [..., T, A] by [A, F] or [N, A, F].

    `magnitude` lengthens what is turned, as YaRN does (rope/positions/extension.py).
    Raises ValueError as `angles` does.
    """
    x = angles(positions, frequencies)
    x = x if frequencies.ndim == 3 else jnp.expand_dims(x, -2)
    return Rotation(jnp.cos(x) * magnitude, jnp.sin(x) * magnitude)


def rotate(x: jax.Array, by: Rotation, layout: Layout = "interleaved") -> jax.Array:
    """Queries or keys [..., T, N, H] turned by their positions; in x's type, computed in the rotation's (float32).

    interleaved: the pairs are dimensions (0, 1), (2, 3), ... as in RoFormer; half: (0, F), (1, F + 1), ... as in
    GPT-NeoX and Llama. Raises ValueError for another layout, and where the rotation is of another head size.
    """
    cos, sin = (jnp.expand_dims(c, range(x.ndim - c.ndim)) for c in of_dimensions(by, x.shape[-1], layout))
    partners = _partners_by_product if device_kind().startswith("TPU") else _partners
    return (x.astype(cos.dtype) * cos + partners(x, layout).astype(cos.dtype) * sin).astype(x.dtype)


def of_dimensions(by: Rotation, size: int, layout: Layout) -> Rotation:
    """[..., T, 1 or N, H], of each dimension: x is turned as x cos + partners sin. Raises ValueError as `rotate`."""
    check_layout(layout)
    if size != 2 * by.cos.shape[-1]:
        raise ValueError(f"a rotation of {2 * by.cos.shape[-1]} dimensions cannot turn a head of {size}")
    return Rotation(*(join(c, c, layout) for c in by))


def _partners(x: jax.Array, layout: Layout) -> jax.Array:
    """Of every pair (a, b) the pair (-b, a): [..., H]."""
    if layout == "half":
        first, second = jnp.split(x, 2, -1)
    else:
        pairs = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
        first, second = pairs[..., 0], pairs[..., 1]
    return join(-second, first, layout)


def _partners_by_product(x: jax.Array, layout: Layout) -> jax.Array:
    """The same by a signed permutation [H, H]: a TPU moves single lanes by writing its registers out, while a product
    by ones is exact and next to nothing. Bytes that a layer moves for the rotation fall to a tenth (half: a half)."""
    swap = swapping(x.shape[-1], layout, x.dtype)
    return jnp.einsum("...H,HG->...G", x, swap, precision=jax.lax.Precision.HIGHEST)


def swapping(size: int, layout: Layout, dtype: jnp.dtype) -> jax.Array:
    """The signed permutation [H, H] by which dimensions of a head, as a row, become their pairs' partners."""
    return _partners(jnp.eye(size, dtype=dtype), layout)


def to_half(x: jax.Array, heads: int) -> jax.Array:
    """The last dimension [..., N H] of a query's or key's kernel or bias, from interleaved to half.

    Scores stay what they were where query and key are both converted. Raises ValueError for an odd head size.
    """
    return _swap(x, heads, lambda pairs: pairs.swapaxes(-1, -2), lambda size: (size // 2, 2))


def to_interleaved(x: jax.Array, heads: int) -> jax.Array:
    """The inverse of `to_half`."""
    return _swap(x, heads, lambda halves: halves.swapaxes(-1, -2), lambda size: (2, size // 2))


def _swap(x, heads, swap, shape):
    size, rest = divmod(x.shape[-1], heads)
    if rest or size % 2:
        raise ValueError(f"a last dimension of {x.shape[-1]} is not {heads} heads of an even size")
    return swap(x.reshape(*x.shape[:-1], heads, *shape(size))).reshape(x.shape)
