"""Spherical RoPE: triplets of dimensions are turned on spheres, by one coordinate about one axis and by the other about
another (van de Geijn et al. 2025, arXiv 2511.08368).

Its formula could not be checked: known from the abstract is that its generators do not commute, where those of Mixed
RoPE do, and from another paper of the group (arXiv 2511.11665) that it turns by Euler angles. The order and axes here
are those of Unlu 2023 (arXiv 2310.04454), R(p, q) = R_z(p theta) R_x(q theta):

    cos a   -sin a cos b    sin a sin b
    sin a    cos a cos b   -cos a sin b       a = p theta, b = q theta
    0        sin b          cos b

R(p, q)^T R(p', q') = R_x(-q theta) R_z((p' - p) theta) R_x(q' theta): scores see differences of the first coordinate
alone, and of the second they see both. a and b can be read from R.

Letters: T positions, N heads, G triplets.
"""

import jax
import jax.numpy as jnp

from rope.positions.angles import angles, frequencies
from rope.positions.blocks import BlockRotation


def spherical_frequencies(size: int, theta: str = "100^-t") -> jax.Array:
    """[2, G]: theta_t at t = 0, 1/G, ... for both coordinates alike, of the G triplets that a head of `size` has; one
    or two dimensions may be left. Raises ValueError for a head of less than 3."""
    if size < 3:
        raise ValueError(f"the head size is {size}: spherical positions turn three dimensions at a time")
    return jnp.tile(frequencies(2 * (size // 3), theta), (2, 1))


def spherical_rotation(positions: jax.Array, frequencies: jax.Array) -> BlockRotation:
    """The rotation of positions [..., T, 2] by frequencies [2, G] or [N, 2, G].
    Raises ValueError for another number of coordinates."""
    if positions.shape[-1] != 2 or frequencies.shape[-2] != 2:
        raise ValueError(
            f"positions of shape {positions.shape}, frequencies {frequencies.shape}: spherical ones have 2 coordinates"
        )
    a, b = (angles(positions[..., i : i + 1], frequencies[..., i : i + 1, :]) for i in (0, 1))
    if frequencies.ndim == 2:  # an axis of heads
        a, b = (jnp.expand_dims(x, -2) for x in (a, b))
    (sin_a, cos_a), (sin_b, cos_b) = ((jnp.sin(x), jnp.cos(x)) for x in (a, b))
    rows = (
        (cos_a, -sin_a * cos_b, sin_a * sin_b),
        (sin_a, cos_a * cos_b, -cos_a * sin_b),
        (jnp.zeros_like(a), sin_b, cos_b),
    )
    return BlockRotation(jnp.stack([jnp.stack(row, -1) for row in rows], -2))
