"""ViT (Dosovitskiy et al. 2021, arXiv 2010.11929), an image's patches as a row of tokens, with a choice of positions.

A patch's position is its coordinates (row, column) in units of patches, whole numbers or not. An image larger than
those trained on needs nothing but more coordinates; a learned table is interpolated.

Letters: B batch, H and W height and width in pixels, T patches of an image, D model, N heads, F pairs of a head.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from rope.layers.dropout import dropout
from rope.layers.primitives import Linear, Norm, init_linear, init_norm, layer_norm, linear
from rope.layers.transformer import STD, Block, init_blocks, run_blocks
from rope.positions.angles import grid
from rope.positions.blocks import BlockRotation
from rope.positions.rotary import Rotation
from rope.vit.config import ViTConfig
from rope.vit.positions import KINDS, placed
from training.partition import spec


@struct.dataclass
class ViT:
    patch: Linear  # [pixels of a patch, D]
    position: jax.Array | None  # what is learned of positions: learned [rows, columns, D], mixed [N, 2, F], …
    blocks: Block
    norm: Norm  # [D]
    head: Linear  # [D, classes]


def init(config: ViTConfig, key: jax.Array) -> ViT:
    """Random parameters: N(0, 0.02²), but patches of unit variance where pixels are; biases 0, norms 1."""
    c, keys = config, iter(jax.random.split(key, 4))
    pixels = c.patch**2 * c.channels
    key, learned = next(keys), KINDS[c.positions].learned
    return ViT(
        patch=init_linear(next(keys), (pixels, c.width), (None, "embed"), pixels**-0.5),
        position=None if learned is None else learned(c, key),
        blocks=init_blocks(c, next(keys)),
        norm=init_norm((c.width,)),
        head=init_linear(next(keys), (c.width, c.classes), ("embed", None), STD),
    )


def encode(
    model: ViT,
    images: jax.Array,
    config: ViTConfig,
    *,
    coordinates: jax.Array | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """Images [B, H, W, channels], pixels from 0 to 1, of any size in whole patches -> hidden states [B, T, D].

    Patches go row by row. Their coordinates, (row, column) from 0 unless given, are [T, 2] or [B, T, 2]. `key` turns
    dropout on. Raises ValueError for images that are not whole patches or have other channels.
    """
    c = config
    rows, columns = _patches_of(images, c)
    places = (grid(rows, columns) if coordinates is None else coordinates).astype(jnp.float32)
    if places.shape[-2:] != (rows * columns, 2) or places.ndim > 3:
        raise ValueError(f"coordinates of shape {places.shape}: [{rows * columns}, 2], or one set an image, are needed")
    places = places if places.ndim == 3 else places[None]
    first, key = jax.random.split(key) if key is not None else (None, None)
    kind, size = KINDS[c.positions], (rows, columns)
    # From -1 to 1: an empty patch of zeros would be the zero vector, whose norm has a gradient of 1 / sqrt(epsilon).
    x = linear(_cut(2 * images - 1, rows, columns, c), model.patch, (None, "embed"))
    if kind.added is not None:
        x = x + kind.added(c, model.position, places, size)
    x = dropout(x, c.dropout, first).astype(c.dtype)
    stretch = None if first is None else jax.random.fold_in(first, 1)
    turned = rotation_of(model, places, size, c, key=stretch)
    one, each = (None, turned) if kind.layered else (turned, None)
    (x,) = run_blocks(model.blocks, x, c, rotation=one, rotations=each, key=key)
    return layer_norm(x, model.norm, c.epsilon)


def forward(model: ViT, images: jax.Array, config: ViTConfig, **options: Any) -> jax.Array:
    """As `encode`, options too, then the mean over all patches and the classifier: float32 logits [B, classes]."""
    hidden = encode(model, images, config, **options)
    mean = jnp.mean(hidden, 1, keepdims=True, dtype=jnp.float32)
    return linear(mean, model.head, ("embed", None))[:, 0]


def rotation_of(
    model: ViT, places: jax.Array, size: tuple[int, int], config: ViTConfig, *, key: jax.Array | None = None
) -> Rotation | BlockRotation | None:
    """How patches at places [B, T, 2] of an image of `size` patches are turned, if they are; where every layer turns
    them otherwise, with a leading axis L. `key`: in training, where normalised coordinates are stretched."""
    turns = KINDS[config.positions].turns
    return None if turns is None else turns(config, model.position, placed(config, places, size, key), size)


def _patches_of(images: jax.Array, c: ViTConfig) -> tuple[int, int]:
    if images.ndim != 4 or images.shape[3] != c.channels:
        raise ValueError(f"images of shape {images.shape}: the model reads [batch, height, width, {c.channels}]")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images of {images.dtype}: pixels are numbers from 0 to 1; divide by 255")
    _, height, width, _ = images.shape
    if not height or not width or height % c.patch or width % c.patch:
        raise ValueError(f"images of {height} x {width} pixels: both must be multiples of the patch, {c.patch}")
    return height // c.patch, width // c.patch


def _cut(images: jax.Array, rows: int, columns: int, c: ViTConfig) -> jax.Array:
    """[B, H, W, channels] -> [B, T, pixels of a patch]."""

    def reshape(x: jax.Array, *shape: int) -> jax.Array:
        return jax.lax.reshape(x, (len(x), *shape), out_sharding=spec("batch", *(None for _ in shape)))

    x = reshape(images, rows, c.patch, columns, c.patch, c.channels).swapaxes(2, 3)
    return reshape(x, rows * columns, c.patch**2 * c.channels)
