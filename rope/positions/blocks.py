"""Rotations of more than pairs: groups of a head's dimensions, each turned by a matrix of its own.

Pairs turned by angles commute, whence scores of differences alone (rope/positions/rotary.py); rotations of three and
more dimensions do not (rope/positions/spherical.py, rope/positions/lie.py).

Letters: T positions of a row, N heads, H head size, G groups of S dimensions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class BlockRotation(NamedTuple):
    """Of each position, head (one for all, where they turn alike) and group."""

    matrix: jax.Array  # [..., T, 1 or N, G, S, S]


def turn_blocks(x: jax.Array, by: BlockRotation) -> jax.Array:
    """Queries or keys [..., T, N, H] turned by their positions; in x's type, computed in the matrices' (float32).

    The first G S dimensions of a head are G groups of S neighbours; what is left of a head stays as it is. Raises
    ValueError where the groups are more than the head.
    """
    groups, size = by.matrix.shape[-3:-1]
    turned = groups * size
    if turned > x.shape[-1]:
        raise ValueError(f"{groups} groups of {size} dimensions cannot turn a head of {x.shape[-1]}")
    matrix = jnp.expand_dims(by.matrix, range(x.ndim + 2 - by.matrix.ndim))
    grouped = x[..., :turned].reshape(*x.shape[:-1], groups, size).astype(matrix.dtype)
    out = jnp.einsum("...ij,...j->...i", matrix, grouped, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([out.reshape(*x.shape[:-1], turned).astype(x.dtype), x[..., turned:]], -1)
