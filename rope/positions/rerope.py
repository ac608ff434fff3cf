"""ReRoPE: distances beyond a window count as the window, so a model never meets one that it was not trained on
(https://kexue.fm/archives/9708); leaky: beyond it they grow by 1/factor a position (https://kexue.fm/archives/9728).

A distance d counts as w + (|d| - w)/k with the sign of d, where |d| >= w. For keys on one side that is again a
difference of two positions, p/k ± w(1 - 1/k) of the query and p/k of the key: three products of rotated vectors hold
all scores.

Letters: B batch, T length, N heads, H head size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rope.positions.angles import Layout
from rope.positions.rotary import Rotation, rotate, rotation


class LongRotation(NamedTuple):
    """Of the positions of a row, which are queries and keys both."""

    positions: jax.Array  # [..., T]
    window: float
    near: Rotation
    left: Rotation  # of the queries, for keys at least a window to their left
    right: Rotation  # of the queries, for keys at least a window to their right
    far: Rotation  # of the keys outside of the window


def long_rotation(positions: jax.Array, frequencies: jax.Array, window: float, factor: float | None) -> LongRotation:
    """For positions [..., T] and frequencies [F]; factor None is ReRoPE, a number leaky ReRoPE."""
    positions = jnp.asarray(positions, jnp.float32)
    leak = 0.0 if factor is None else 1 / factor
    slow, shift = positions * leak, window * (1 - leak)
    turns = (positions, slow + shift, slow - shift, slow)
    return LongRotation(positions, window, *(rotation(p, frequencies) for p in turns))


def long_scores(query: jax.Array, key: jax.Array, by: LongRotation, layout: Layout) -> jax.Array:
    """float32 [B, N, T, T] from unrotated queries and keys [B, T, N, H]."""

    def scores(queries: Rotation, keys: Rotation) -> jax.Array:
        turned = rotate(query, queries, layout), rotate(key, keys, layout)
        return jnp.einsum("BTNH,BSNH->BNTS", *turned, preferred_element_type=jnp.float32)

    distance = (by.positions[..., :, None] - by.positions[..., None, :])[..., None, :, :]
    distance = distance.reshape((1,) * (4 - distance.ndim) + distance.shape)
    far = jnp.where(distance > 0, scores(by.left, by.far), scores(by.right, by.far))
    return jnp.where(jnp.abs(distance) < by.window, scores(by.near, by.near), far)
