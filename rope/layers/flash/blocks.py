"""Which part of each array a step of a flash kernel's grid has.

The grid is (group of heads, row of the batch, block of queries), the last the quickest. Keys and values are whole in
vector memory, for all blocks of queries of their row and heads.

Letters: B batch, T query length, S key length, N heads, H head size, G groups of heads, W lanes of a group.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.experimental import pallas as pl

from rope.layers.flash.bias import TILE

CHUNK = 1024  # keys at once; so many at the most, and no softmax has to be mended
AREA = 512 * CHUNK  # scores of one head at a time
# MiB of a core, by the device's kind, as jax.experimental.pallas.tpu.get_tpu_info has it.
VECTOR_MEMORY = {"TPU v5": 64, "TPU v5p": 64, "TPU v5 lite": 128, "TPU v5e": 128, "TPU v6 lite": 128, "TPU v6e": 128}
MOST = 100 * 2**20  # bytes of it that are asked for, lest nothing be left for what runs beside
BLOCKS = 8 * 2**20  # bytes that a step has in use, besides what is of all keys: tests/tpu/test_flash.py


@dataclass(frozen=True)
class Layout:
    """How a call is cut into blocks; the numbers of a kernel."""

    scale: float
    rate: float  # of dropout
    heads: int  # in a group: side by side in the lanes of a block
    size: int  # lanes of a head
    flat: bool  # arrays are [B, T, N H], whose blocks are G groups of 128 lanes or more; else [B, N, T, H]
    queries: int  # in a block
    blocks: int  # of queries
    keys: int  # of them all, a multiple of 128 ...
    real: int  # ... of which these are no padding
    chunk: int  # keys whose scores are made at once
    causal: bool
    low: int  # the lowest offset of a strip of biases
    learned: bool  # the tiles have a gradient
    interpreted: bool  # by XLA, where there is no TPU: as exact, and slow

    @property
    def width(self) -> int:
        return self.heads * self.size

    @property
    def chunks(self) -> int:
        return self.keys // self.chunk

    def product(self, left: jax.Array, right: jax.Array, over: Any) -> jax.Array:
        """Of blocks, summed in float32; of float32 as exact as it is."""
        exact = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
        return jax.lax.dot_general(left, right, over, precision=exact, preferred_element_type=jnp.float32)


Part = Any  # an array, its shape, its BlockSpec or, in the kernel, its reference


@struct.dataclass
class Angles:
    """Of positions, by which queries and keys x are turned: x cos + (x swap) sin."""

    cos: Part  # float32 [B or 1, G or 1, S, W]
    sin: Part
    swap: Part  # [W, W], a signed permutation: of a pair (a, b) it makes (-b, a)


@struct.dataclass
class Operands:
    """What is multiplied, biased, masked and dropped; of what is None there is none."""

    query: Part  # [B, T, N H] or [B, N, T, H], as are key and value
    key: Part
    value: Part
    query_segments: Part | None = None  # int32 [B, 1, T]
    key_segments: Part | None = None  # int32 [B, 1, S]
    tiles: Part | None = None  # float32 [N or 1, diagonals, 128, 128]
    strip: Part | None = None  # float32 [N, windows, 128]
    places: Part | None = None  # int32 [B, 1, T]
    rows: Part | None = None  # int32 [B, 1, T] of a WeightDropout
    columns: Part | None = None  # int32 [B, G, heads of a group, S]
    angles: Angles | None = None


@struct.dataclass
class Running:
    """What is known of a softmax after some chunks of keys: float32, maxima and sums as columns."""

    top: Part  # [heads, T, 128]
    total: Part  # [heads, T, 128]
    mixed: Part  # [heads, T, W]


@struct.dataclass
class Turned:
    """Queries of a block and all keys of a row and its heads, turned by their positions."""

    query: Part  # [T, W]
    key: Part  # [S, W]


@struct.dataclass
class Kept:
    """What the backward pass needs of the forward one."""

    out: Part
    statistics: Part


@struct.dataclass
class Gradients:
    query: Part
    key: Part
    value: Part
    tiles: Part | None  # as the tiles
    strip: Part | None  # float32 [N, windows + 2, 8, 128], see bias.add_places


@struct.dataclass
class Sums:
    """float32 in vector memory, where a gradient comes of several steps; else None."""

    query: Part  # [T, W], of several chunks
    key: Part  # [S, W], of several blocks
    value: Part


def room(device_kind: str) -> int:
    """Bytes of a core's vector memory that the kernels may have: of a kind that is not known the least of any TPU's,
    and where they are interpreted as if on a v5e."""
    capacity = VECTOR_MEMORY.get(device_kind, 16 if device_kind.startswith("TPU") else 128) * 2**20
    return min(capacity, MOST)


def needed(keys: int, size: int, itemsize: int, *, turned: bool) -> int:
    """Bytes of it that the backward pass, the larger one, takes at most for keys of heads of this size.

    Of every key and lane: keys, values and their gradients, each twice, as a block comes while another is worked on;
    the gradients' float32 sums; and where keys are turned, cosines and sines, twice too, and the turned keys. Queries,
    scores and biases are of blocks: BLOCKS.
    """
    a_lane = 8 * itemsize + 2 * 4 + (4 * 4 + itemsize if turned else 0)
    return BLOCKS + rounded(keys, TILE) * rounded(size, TILE) * a_lane


def rounded(length: int, to: int) -> int:
    return -(-length // to) * to


def lengths(queries: int, keys: int) -> tuple[int, int, int, int]:
    """Queries in a block, queries with their padding, keys in a chunk, keys with their padding."""
    chunks = -(-keys // CHUNK)
    chunk = rounded(-(-keys // chunks), TILE)
    most = max(AREA // chunk, TILE)
    if queries <= most:
        block = rounded(queries, 16)  # registers of bfloat16 have 16 rows
        return block, block, chunk, chunks * chunk
    number = -(-queries // most)
    block = rounded(-(-queries // number), TILE)
    return block, number * block, chunk, chunks * chunk


def halved(layout: Layout) -> Layout:
    """For the backward pass, whose steps have 2.5 times the products: half as many keys at once, if they are many."""
    if layout.queries * layout.chunk <= AREA // 2 or layout.chunk % (2 * TILE):
        return layout
    return replace(layout, chunk=layout.chunk // 2)


def groups(heads: int, size: int) -> tuple[int, bool]:
    """Heads in a group, and whether they lie side by side in the lanes of [B, T, N H]: no array is turned then."""
    if size % TILE == 0:
        return 1, True
    if TILE % size == 0 and heads % (TILE // size) == 0:
        return TILE // size, True
    return 1, False


def by_query(layout: Layout) -> pl.BlockSpec:
    """Of queries and what is like them."""
    return _of_heads(layout, layout.queries, lambda i: i)


def by_key(layout: Layout) -> pl.BlockSpec:
    """Of keys and values and what is like them: whole."""
    return _of_heads(layout, layout.keys, lambda i: 0)


def of_angles(angles: Angles) -> Angles:
    """Whole, as keys are, and the same for all rows or groups where there is one."""
    rows, groups, *rest = angles.cos.shape
    one = pl.BlockSpec((None, None, *rest), lambda g, b, i: (0 if rows == 1 else b, 0 if groups == 1 else g, 0, 0))
    return Angles(cos=one, sin=one, swap=pl.BlockSpec(angles.swap.shape, lambda g, b, i: (0, 0)))


def whole(array: Part, heads: int) -> pl.BlockSpec:
    """Of arrays [N, …] of biases: those of a group's heads (heads = 1 of 1: the same for all), for all rows and blocks,
    so that a sum over these never leaves vector memory."""
    rest, same = array.shape[1:], array.shape[0] == 1
    return pl.BlockSpec((1 if same else heads, *rest), lambda g, b, i: (0 if same else g, *(0 for _ in rest)))


def operands(x: Operands, layout: Layout) -> Operands:
    """The BlockSpecs of them all."""
    row_of_queries = pl.BlockSpec((None, 1, rounded(layout.queries, TILE)), lambda g, b, i: (b, 0, i))
    made: dict[str, Callable[[Any], Any]] = {
        "query": lambda _: by_query(layout),
        "key": lambda _: by_key(layout),
        "value": lambda _: by_key(layout),
        "query_segments": lambda _: row_of_queries,
        "key_segments": lambda _: pl.BlockSpec((None, 1, layout.keys), lambda g, b, i: (b, 0, 0)),
        "tiles": lambda array: whole(array, layout.heads),
        "strip": lambda array: whole(array, layout.heads),
        "places": lambda _: row_of_queries,
        "rows": lambda _: row_of_queries,
        "columns": lambda _: pl.BlockSpec((None, None, layout.heads, layout.keys), lambda g, b, i: (b, g, 0, 0)),
        "angles": of_angles,
    }
    return Operands(**{n: None if (a := getattr(x, n)) is None else spec(a) for n, spec in made.items()})


def kept_statistics(layout: Layout) -> pl.BlockSpec:
    """Of two numbers that make weights of a query's and head's scores, [B, G, 2 x heads of a group, T]."""
    length = rounded(layout.queries, TILE)
    return pl.BlockSpec((None, None, 2 * layout.heads, length), lambda g, b, i: (b, g, 0, i))


def size_of_grid(x: Operands, layout: Layout) -> tuple[int, int, int]:
    number = x.query.shape[2] // layout.width if layout.flat else x.query.shape[1]
    return number, x.query.shape[0], layout.blocks


def _of_heads(layout: Layout, length: int, block: Callable) -> pl.BlockSpec:
    if layout.flat:
        return pl.BlockSpec((None, length, layout.width), lambda g, b, i: (b, block(i), g))
    return pl.BlockSpec((None, None, length, layout.size), lambda g, b, i: (b, g, block(i), 0))
