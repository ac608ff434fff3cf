"""What tells a ViT where a patch is: a table of kinds, each with what is learned and what turns or is added.

Letters: T patches of an image, D model, L layers, N heads, F pairs of a head.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rope.layers.transformer import STD
from rope.positions.angles import axial_frequencies, frequencies, mixed_frequencies
from rope.positions.blocks import BlockRotation
from rope.positions.golden import golden_frequencies
from rope.positions.lie import lie_parameters, lie_rotation
from rope.positions.normalised import TURN, augmented, normalised
from rope.positions.rotary import Rotation, rotation
from rope.positions.sinusoidal import sinusoidal
from rope.positions.spherical import spherical_frequencies, spherical_rotation
from rope.vit.config import ViTConfig
from training.partition import gather, normal

Size = tuple[int, int]  # rows and columns of an image, in patches


class Kind(NamedTuple):
    """Functions of the config, of what is learned (None where nothing is), and of places [1 or B, T, 2]."""

    learned: Callable[[ViTConfig, jax.Array], jax.Array] | None = None  # drawn by a key
    turns: Callable[[ViTConfig, Any, jax.Array, Size], Rotation | BlockRotation] | None = None
    added: Callable[[ViTConfig, Any, jax.Array, Size], jax.Array] | None = None  # [..., T, D]
    layered: bool = False  # rotations have a leading axis L


def stretched(table: jax.Array, places: jax.Array, size: Size) -> jax.Array:
    """The rows [..., T, D] of a table [rows, columns, D], stretched over an image of `size` patches,
    at places [..., T, 2].

    Bilinear, between the centres of patches: as fine-tuning at a higher resolution does it
    (Dosovitskiy et al. 2021, section 3.2), because a table says nothing of places it never had. It reads positions as
    parts of the image, so that the upper left corner keeps its row of the table, and the distance between two
    neighbours shrinks. At the table's own size it is exact.
    """

    def hats(axis: int) -> jax.Array:
        """How much each row (or column) of the table has in each place: [..., T, rows]."""
        cells = table.shape[axis]
        at = jnp.clip((places[..., axis] + 0.5) * (cells / size[axis]) - 0.5, 0, cells - 1)[..., None]
        cell = jnp.arange(cells, dtype=jnp.float32)
        return jnp.maximum(0, 1 - jnp.abs(at - jnp.expand_dims(cell, range(at.ndim - 1))))

    shares = hats(0)[..., :, None] * hats(1)[..., None, :]
    flat = shares.reshape(*shares.shape[:-2], -1)
    return jnp.matmul(flat, table.reshape(-1, table.shape[-1]), precision=jax.lax.Precision.HIGHEST)


def _mixed(c: ViTConfig, key: jax.Array) -> jax.Array:
    return gather(mixed_frequencies(key, c.heads, c.head_size, 2, c.theta), "heads", None, None)


def _mixed_of_layers(c: ViTConfig, key: jax.Array) -> jax.Array:
    drawn = jax.vmap(lambda key: mixed_frequencies(key, c.heads, c.head_size, 2, c.theta))
    return gather(drawn(jax.random.split(key, c.layers)), None, "heads", None, None)


def _spherical(c: ViTConfig, key: jax.Array) -> jax.Array:
    theta = spherical_frequencies(c.head_size, c.theta)
    return gather(jnp.broadcast_to(theta, (c.heads, *theta.shape)), "heads", None, None)


def _lie(c: ViTConfig, key: jax.Array) -> jax.Array:
    return gather(lie_parameters(key, c.heads, c.head_size), "heads", *[None] * 4)


def _flat(places: jax.Array, size: Size) -> jax.Array:
    """By number in reading order."""
    return places[..., 0] * size[1] + places[..., 1]


KINDS: dict[str, Kind] = {
    "axial": Kind(turns=lambda c, _, p, size: rotation(p, axial_frequencies(c.head_size, 2, c.theta))),
    "mixed": Kind(_mixed, lambda c, theta, p, size: rotation(p, theta)),
    "mixed-layers": Kind(
        _mixed_of_layers,
        lambda c, theta, p, size: jax.vmap(lambda of_layer: rotation(p, of_layer))(theta),
        layered=True,
    ),
    "golden": Kind(turns=lambda c, _, p, size: rotation(p, golden_frequencies(c.heads, c.head_size, 2, c.theta))),
    "normalised": Kind(turns=lambda c, _, p, size: rotation(TURN * p, axial_frequencies(c.head_size, 2, c.theta))),
    "spherical": Kind(_spherical, lambda c, theta, p, size: spherical_rotation(p, theta)),
    "lie": Kind(_lie, lambda c, by, p, size: lie_rotation(p, by)),
    "flat": Kind(turns=lambda c, _, p, size: rotation(_flat(p, size), frequencies(c.head_size, c.theta))),
    "sinusoidal": Kind(added=lambda c, _, p, size: sinusoidal(p, axial_frequencies(c.width, 2, c.theta))),
    "learned": Kind(
        lambda c, key: normal(key, (*c.grid, c.width), (None, None, "embed"), STD),
        added=lambda c, table, p, size: stretched(gather(table, None, None, "embed"), p, size),
    ),
    "none": Kind(),
}


def placed(c: ViTConfig, places: jax.Array, size: Size, key: jax.Array | None) -> jax.Array:
    """The coordinates that the kind reads of places in patches; with a key, changed as in training."""
    if c.positions != "normalised":
        return places
    found = normalised(places, size)
    return found if key is None else augmented(found, key, shift=c.shift, jitter=c.jitter, rescale=c.rescale)
