"""Coordinates as parts of their image, and their augmentation in training: DINOv3 (Siméoni et al. 2025,
arXiv 2508.10104), whose axial frequencies turn by 2 pi theta_i a unit.

An image of any size spans [-1, 1], so one that is enlarged has the angles that it had, and a larger canvas brings its
patches closer together. Within an image scores see differences alone; between sizes they do not.
"""

import math

import jax
import jax.numpy as jnp

TURN = 2 * math.pi  # the angle of a unit at frequency 1


def normalised(places: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[..., T, 2] from places [..., T, 2] in patches of an image of `size` patches: the centres of patches, where the
    image's edges are -1 and 1 on each axis by itself."""
    scale = 2 / jnp.array(size, jnp.float32)
    return (places + 0.5) * jnp.expand_dims(scale, range(places.ndim - 1)) - 1


def augmented(
    coordinates: jax.Array, key: jax.Array, *, shift: float = 0.0, jitter: float = 1.0, rescale: float = 1.0
) -> jax.Array:
    """Coordinates [..., A] changed at random, all alike: c jitter_a rescale + shift_a jitter_a rescale.

    shift_a, of each axis, is uniform in [-shift, shift]; jitter_a, of each axis, and rescale, of all, are log-uniform
    in [1 / jitter, jitter] and [1 / rescale, rescale]. At 0, 1 and 1 nothing changes; DINOv3's rescale is 2.
    """
    axes = coordinates.shape[-1]
    moves, stretches, scale = jax.random.split(key, 3)
    moved = jax.random.uniform(moves, (axes,), minval=-shift, maxval=shift)
    by = jax.random.uniform(stretches, (axes,), minval=-1, maxval=1) * math.log(jitter)
    by = jnp.exp(by + jax.random.uniform(scale, (1,), minval=-1, maxval=1) * math.log(rescale))
    moved, by = (jnp.expand_dims(x, range(coordinates.ndim - 1)) for x in (moved, by))
    return (coordinates + moved) * by
