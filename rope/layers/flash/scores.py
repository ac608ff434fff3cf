"""The scores of flash attention, of one block of queries and one chunk of keys.

What is the same in all 128 lanes of [T, 128] is called a column here. Letters: T queries of the block, C keys of a
chunk, W lanes of the group of heads.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rope.layers.dropout import kept
from rope.layers.flash.bias import TILE, bias_of_places, bias_of_tiles
from rope.layers.flash.blocks import Layout, Operands
from rope.layers.masks import MASKED

PADDING = -3e38  # of keys that are not there: even a query that sees nothing gives them nothing
ROWS = (((1,), (1,)), ((), ()))  # a product over both last dimensions


class Block:
    """The scores of a block of queries and one chunk of keys, and what goes into them."""

    def __init__(self, layout: Layout, x: Operands, block: jax.Array, chunk: Any):
        n, self.layout, self.x = layout, layout, x
        self.row = block * (n.queries // TILE) if n.blocks > 1 else 0  # of tiles
        self.column = chunk * (n.chunk // TILE)
        self.keys = pl.ds(pl.multiple_of(chunk * n.chunk, TILE) if n.chunks > 1 else 0, n.chunk)
        self.lane = jax.lax.broadcasted_iota(jnp.int32, (1, n.width), 1)
        self.query = x.query[...] if n.scale == 1 else x.query[...] * jnp.asarray(n.scale, x.query.dtype)
        self.key, self.value = x.key[self.keys, :], x.value[self.keys, :]
        columns = (x.query_segments, x.places, x.rows)
        self.segments, self.places, self.rows = (None if r is None else column_of(r[...], n.queries) for r in columns)

    def scores(self, a: int) -> jax.Array:
        """float32 [T, C] of a head, biased and masked."""
        n, x = self.layout, self.x
        scores = n.product(self.query, self.of_head(a, self.key), ROWS)
        if x.tiles is not None:
            scores += bias_of_tiles(x.tiles, a, scores.shape, self.row, self.column)
        if x.strip is not None and self.places is not None:
            scores += bias_of_places(x.strip, a, self.places, n.low, n.chunk, self.column * TILE)
        if x.key_segments is not None and self.segments is not None:
            mine, theirs = spread(self.segments, n.chunk), x.key_segments[:, self.keys]
            # Of the second head by another comparison: the compiler would keep the first one's result, which costs it
            # more than to compare again.
            if a % 2:
                scores = jnp.where(mine != theirs, MASKED, scores)
            else:
                scores = jnp.where(mine == theirs, scores, MASKED)
        if n.causal:
            scores = jnp.maximum(scores, MASKED)
        if n.real < n.keys:
            place = self.column * TILE + jax.lax.broadcasted_iota(jnp.int32, (1, n.chunk), 1)
            scores += jnp.where(place < n.real, 0.0, PADDING)
        return scores

    def keep(self, a: int) -> jax.Array | None:
        """bool [T, C]: the weights of a head that dropout keeps."""
        if self.rows is None or self.x.columns is None:
            return None
        return kept(spread(self.rows, self.layout.chunk), self.x.columns[a : a + 1, self.keys], self.layout.rate)

    def drop(self, a: int, weights: jax.Array) -> jax.Array:
        """Weights [T, C] of a head, as the product with values takes them."""
        keep = self.keep(a)
        return (weights if keep is None else jnp.where(keep, weights, 0)).astype(self.value.dtype)

    def of_head(self, a: int, x: jax.Array) -> jax.Array:
        """[…, W] with the lanes of other heads zero."""
        if self.layout.heads == 1:
            return x
        begin = a * self.layout.size
        return jnp.where((self.lane >= begin) & (self.lane < begin + self.layout.size), x, jnp.zeros((), x.dtype))

    def lanes(self, of_heads: Sequence[jax.Array]) -> jax.Array:
        """[…, W] whose lanes are each head's own."""
        out, *others = of_heads
        for a, other in enumerate(others, 1):
            out = jnp.where(self.lane >= a * self.layout.size, other, out)
        return out


def column(x: jax.Array) -> jax.Array:
    """[T, 1] as a column."""
    return jnp.broadcast_to(x, (x.shape[0], TILE))


def column_of(row: jax.Array, length: int) -> jax.Array:
    """[1, T or more], a multiple of 128, as a column of T."""
    squares = [jnp.broadcast_to(row[:, n : n + TILE], (TILE, TILE)).T for n in range(0, row.shape[1], TILE)]
    return jnp.concatenate(squares, 0)[:length]


def rows_of(columns: list[jax.Array]) -> jax.Array:
    """Columns of T as [their number, T], with zeros to a multiple of 128: turned together, each in a lane."""
    lane, together = jax.lax.broadcasted_iota(jnp.int32, (1, TILE), 1), columns[0]
    for number, one in enumerate(columns[1:], 1):
        together = jnp.where(lane == number, one, together)
    together = jnp.pad(together, ((0, -len(together) % TILE), (0, 0)))
    turned = [together[n : n + TILE].T for n in range(0, len(together), TILE)]
    return jnp.concatenate([t[: len(columns)] for t in turned], 1)


def spread(x: jax.Array, width: int) -> jax.Array:
    """A column in so many lanes."""
    return jnp.concatenate([x] * (width // TILE), 1) if width % TILE == 0 else x[:, :width]
