"""ViT (Dosovitskiy et al. 2021, arXiv 2010.11929), an image's patches as a row of tokens, with a choice of positions.

A patch's position is its coordinates (row, column) in units of patches, whole numbers or not. An image larger than
those trained on needs nothing but more coordinates; a learned table is interpolated.

Letters: B batch, H and W height and width in pixels, T patches of an image, D model, N heads, F pairs of a head.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from rope.layers.dropout import dropout
from rope.layers.primitives import Linear, Norm, init_linear, init_norm, layer_norm, linear
from rope.layers.transformer import STD, Block, TransformerConfig, init_blocks, run_blocks
from rope.positions.angles import axial_frequencies, frequencies, grid, mixed_frequencies, schedule
from rope.positions.rotary import Rotation, rotation
from rope.positions.sinusoidal import sinusoidal
from training.partition import gather, normal, spec
from training.ranges import check_ranges

Positions = Literal["axial", "mixed", "flat", "sinusoidal", "learned", "none"]
ROTARY = ("axial", "mixed", "flat")


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    norm: Literal["post", "pre"] = "pre"
    """LayerNorm before each branch, as ViT has it, and once after the last."""
    epsilon: float = 1e-6
    """LayerNorm's epsilon."""
    patch: int = 16
    """Height and width of a patch in pixels."""
    channels: int = 3
    """Of an image: 1 grey, 3 colours."""
    classes: int = 1000
    """Of the classification."""
    positions: Positions = "axial"
    """axial: rotary, half of a head by row and half by column; mixed: rotary, each pair by a learned direction; flat:
    rotary, by number in reading order; sinusoidal: half of the width by row and half by column, added; learned: a
    table, added; none."""
    theta: str = "100^-t"
    """Frequencies of all but learned ones: 100^-t, 10^-t, … An image has tens of patches a side where a text has
    thousands of tokens, so the base is smaller."""
    grid: tuple[int, int] = (14, 14)
    """learned: rows and columns of the table, in patches; other images interpolate it."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, patch=1, channels=1, classes=1)
        schedule(self.theta)
        if min(self.grid) < 1:
            raise ValueError(f"grid is {self.grid}: it must be 1 x 1 or more")
        if self.positions in ROTARY and self.head_size % 2:
            raise ValueError(f"width / heads is {self.head_size}: {self.positions} positions need an even head size")
        size = {"axial": ("width / heads", self.head_size), "sinusoidal": ("width", self.width)}
        label, value = size.get(self.positions, ("", 0))
        if value % 4:
            raise ValueError(
                f"{label} is {value}: {self.positions} positions need a multiple of 4, pairs for both axes"
            )


@struct.dataclass
class ViT:
    patch: Linear  # [pixels of a patch, D]
    position: jax.Array | None  # learned [rows, columns, D]; mixed: frequencies [N, 2, F], the same for all layers
    blocks: Block
    norm: Norm  # [D]
    head: Linear  # [D, classes]


def init(config: ViTConfig, key: jax.Array) -> ViT:
    """Random parameters: N(0, 0.02²), but patches of unit variance where pixels are; biases 0, norms 1."""
    c, keys = config, iter(jax.random.split(key, 4))
    pixels = c.patch**2 * c.channels
    key = next(keys)
    position = {
        "learned": lambda: normal(key, (*c.grid, c.width), (None, None, "embed"), STD),
        "mixed": lambda: gather(mixed_frequencies(key, c.heads, c.head_size, 2, c.theta), "heads", None, None),
    }
    return ViT(
        patch=init_linear(next(keys), (pixels, c.width), (None, "embed"), pixels**-0.5),
        position=position[c.positions]() if c.positions in position else None,
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
    # From -1 to 1: an empty patch of zeros would be the zero vector, whose norm has a gradient of 1 / sqrt(epsilon).
    x = linear(_cut(2 * images - 1, rows, columns, c), model.patch, (None, "embed"))
    if c.positions == "sinusoidal":
        x = x + sinusoidal(places, axial_frequencies(c.width, 2, c.theta))
    if c.positions == "learned":
        x = x + stretched(gather(position_of(model), None, None, "embed"), places, (rows, columns))
    x = dropout(x, c.dropout, first).astype(c.dtype)
    turned = rotation_of(model, places, columns, c) if c.positions in ROTARY else None
    (x,) = run_blocks(model.blocks, x, c, rotation=turned, key=key)
    return layer_norm(x, model.norm, c.epsilon)


def forward(model: ViT, images: jax.Array, config: ViTConfig, **options: Any) -> jax.Array:
    """As `encode`, options too, then the mean over all patches and the classifier: float32 logits [B, classes]."""
    hidden = encode(model, images, config, **options)
    mean = jnp.mean(hidden, 1, keepdims=True, dtype=jnp.float32)
    return linear(mean, model.head, ("embed", None))[:, 0]


def rotation_of(model: ViT, places: jax.Array, columns: int, config: ViTConfig) -> Rotation:
    """How rotary positions turn patches at places [B, T, 2] of an image that is so many columns of patches wide."""
    c = config
    if c.positions == "flat":
        return rotation(places[..., 0] * columns + places[..., 1], frequencies(c.head_size, c.theta))
    if c.positions == "axial":
        return rotation(places, axial_frequencies(c.head_size, 2, c.theta))
    return rotation(places, position_of(model))


def position_of(model: ViT) -> jax.Array:
    """The learned table, or the mixed frequencies. ValueError without any."""
    if model.position is None:
        raise ValueError("the model has no learned positions")
    return model.position


def stretched(table: jax.Array, places: jax.Array, size: tuple[int, int]) -> jax.Array:
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
