"""One step of flash attention: a block of queries of one row and a group of heads, and all keys.

The heads of a group lie side by side in the lanes of a register. A product of all lanes with keys of which only one
head's lanes are not zero is that head's, and takes the matrix unit no longer: its 128 rows are there in any case.
Products sum in float32. Where keys are few (`CHUNK`), a row of scores is whole; else they come in chunks and the
softmax is mended as they come (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).

What is the same in all 128 lanes of [T, 128] is called a column here. Letters: T queries of the block, C keys of a
chunk, W lanes of the group.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rope.layers.dropout import kept
from rope.layers.flash.bias import TILE, add_places, add_tiles, bias_of_places, bias_of_tiles
from rope.layers.flash.blocks import Angles, Gradients, Kept, Layout, Operands, Running, Sums, Turned
from rope.layers.masks import MASKED

PADDING = -3e38  # of keys that are not there: even a query that sees nothing gives them nothing
ROWS = (((1,), (1,)), ((), ()))  # a product over both last dimensions
PLAIN = (((1,), (0,)), ((), ()))
COLUMNS = (((0,), (0,)), ((), ()))  # over both first dimensions


def forward(
    layout: Layout,
    x: Operands,
    out: jax.Ref,
    statistics: jax.Ref,
    scratch: tuple[Running | None, Turned | None],
) -> None:
    """Attention [T, W], and statistics [2 x heads, T]: of each head the number that makes weights of scores,
    exp(score - number), and what weights are to be multiplied by where all scores are masked, else 1."""
    n, i = layout, pl.program_id(2)
    running, to = scratch
    x = _turned(n, x, i, to)

    def head(block: Block, a: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maximum and sum, as columns, and the product [T, W] of a head and the keys of a chunk."""
        scores = block.scores(a)
        top = _column(scores.max(axis=1, keepdims=True))
        weights = jnp.exp(scores - _spread(top, n.chunk))
        total = _column(weights.sum(axis=1, keepdims=True))
        return top, total, n.product(block.drop(a, weights), block.value, PLAIN)

    def finish(block: Block, tops: list[jax.Array], totals: list[jax.Array], mixed: list[jax.Array]) -> None:
        inverses = [_inverse((1 - n.rate) * total if n.rate else total, n) for total in totals]
        shares = [_spread(inverse, n.width) for inverse in inverses]
        out[...] = block.lanes([m * share for m, share in zip(mixed, shares, strict=True)]).astype(out.dtype)
        rows = _rows([*tops, *totals])
        top, total = rows[: n.heads], rows[n.heads :]
        alive = top > MASKED / 2  # beside which a logarithm is nothing
        statistics[: n.heads] = jnp.where(alive, top + jnp.log(total), top)
        statistics[n.heads :] = jnp.where(alive, 1, 1 / total)

    if running is None:
        block = Block(n, x, i, 0)
        found = [head(block, a) for a in range(n.heads)]
        return finish(block, *(list(f) for f in zip(*found, strict=True)))
    running.top[...] = jnp.full_like(running.top, PADDING)
    running.total[...], running.mixed[...] = jnp.zeros_like(running.total), jnp.zeros_like(running.mixed)

    def chunk(c: jax.Array, _: None) -> None:
        block = Block(n, x, i, c)
        for a in range(n.heads):
            top, total, mixed = head(block, a)
            both = jnp.maximum(running.top[a], top)
            old, new = jnp.exp(running.top[a] - both), jnp.exp(top - both)
            running.top[a], running.total[a] = both, running.total[a] * old + total * new
            running.mixed[a] = running.mixed[a] * _spread(old, n.width) + mixed * _spread(new, n.width)

    jax.lax.fori_loop(0, n.chunks, chunk, None)
    finish(
        Block(n, x, i, 0), *([ref[a] for a in range(n.heads)] for ref in (running.top, running.total, running.mixed))
    )


def backward(
    layout: Layout,
    x: Operands,
    cotangent: jax.Ref,
    saved: Kept,
    to: Gradients,
    scratch: tuple[Sums, Turned | None],
) -> None:
    """The gradients of what `forward` computes; those of biases add up over rows and blocks, those of keys and values
    over blocks of queries."""
    n, last = layout, layout.blocks - 1
    b, i = pl.program_id(1), pl.program_id(2)
    sums, turned = scratch
    x = _turned(n, x, i, turned)

    def back(gradient: jax.Array, at: Any) -> jax.Array:
        """The gradient of what was turned, from that of what it became."""
        gradient = gradient.astype(to.query.dtype)
        return gradient if x.angles is None else _turn(n, x.angles, gradient, at, -1)

    for biases in (to.tiles, to.strip):
        if biases is not None:
            pl.when((b == 0) & (i == 0))(partial(_zero, biases))

    def head(block: Block, a: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of queries [T, W], and of keys and values [C, W]; lanes of other heads mean nothing."""
        top, inverse = (_column_of(saved.statistics[k : k + 1], n.queries) for k in (a, n.heads + a))
        plain = cotangent[...].astype(jnp.float32)
        given = seen = plain * (1 / (1 - n.rate)) if n.rate else plain
        if x.key_segments is not None:
            # Masked scores are constant: where a query sees nothing but them, no gradient goes further.
            alive = _spread(top, n.width) > MASKED / 2
            given, seen = jnp.where(alive, given, given * _spread(inverse, n.width)), jnp.where(alive, given, 0)
        given = given.astype(block.key.dtype)
        weights = jnp.exp(block.scores(a) - _spread(top, n.chunk))
        of_weights = n.product(seen.astype(block.key.dtype), block.of_head(a, block.value), ROWS)
        keep, dropped = block.keep(a), weights
        if keep is not None:
            dropped, of_weights = jnp.where(keep, weights, 0), jnp.where(keep, of_weights, 0)
        mean = (block.of_head(a, seen) * saved.out[...].astype(jnp.float32)).sum(axis=1, keepdims=True) * (1 - n.rate)
        of_scores = weights * (of_weights - _spread(_column(mean), n.chunk))
        if to.tiles is not None:
            add_tiles(to.tiles, a, of_scores, block.row, block.column)
        if to.strip is not None and block.places is not None:
            add_places(to.strip, a, of_scores, block.places, n.low, block.column * TILE)
        of_scores = of_scores.astype(block.key.dtype)
        return (
            n.product(of_scores, block.key, PLAIN),
            n.product(of_scores, block.query, COLUMNS),
            n.product(dropped.astype(block.key.dtype), given, COLUMNS),
        )

    def chunk(c: Any) -> jax.Array:
        block = Block(n, x, i, c)
        of_query, of_key, of_value = (
            block.lanes(f) for f in zip(*(head(block, a) for a in range(n.heads)), strict=True)
        )
        if sums.key is None or sums.value is None:
            to.key[block.keys, :], to.value[block.keys, :] = back(of_key, block.keys), of_value.astype(to.key.dtype)
        else:
            sums.key[block.keys, :] += of_key
            sums.value[block.keys, :] += of_value
        return of_query * n.scale

    if sums.key is not None and sums.value is not None:
        pl.when(i == 0)(partial(_zero, sums.key, sums.value))
    if sums.query is None:
        to.query[...] = back(chunk(0), _of_block(n, i))
    else:
        _zero(sums.query)

        def step(c: jax.Array, _: None) -> None:
            sums.query[...] += chunk(c)

        jax.lax.fori_loop(0, n.chunks, step, None)
        to.query[...] = back(sums.query[...], _of_block(n, i))
    if sums.key is not None and sums.value is not None:

        @pl.when(i == last)
        def _() -> None:
            to.value[...] = sums.value[...].astype(to.value.dtype)
            for at in _chunks(n):
                to.key[at, :] = back(sums.key[at, :], at)


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
        self.segments, self.places, self.rows = (None if r is None else _column_of(r[...], n.queries) for r in columns)

    def scores(self, a: int) -> jax.Array:
        """float32 [T, C] of a head, biased and masked."""
        n, x = self.layout, self.x
        scores = n.product(self.query, self.of_head(a, self.key), ROWS)
        if x.tiles is not None:
            scores += bias_of_tiles(x.tiles, a, scores.shape, self.row, self.column)
        if x.strip is not None and self.places is not None:
            scores += bias_of_places(x.strip, a, self.places, n.low, n.chunk, self.column * TILE)
        if x.key_segments is not None and self.segments is not None:
            mine, theirs = _spread(self.segments, n.chunk), x.key_segments[:, self.keys]
            # Of the second head by another comparison: the compiler would keep the first one's result, which costs it
            # more than to compare again (of a forward step 2,711 cycles for 2,672).
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
        return kept(_spread(self.rows, self.layout.chunk), self.x.columns[a : a + 1, self.keys], self.layout.rate)

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


def _turned(n: Layout, x: Operands, i: jax.Array, to: Turned | None) -> Operands:
    """The operands with queries and keys turned by their positions: keys once, for all blocks of queries."""
    angles = x.angles
    if to is None or angles is None:
        return x

    def keys() -> None:
        for at in _chunks(n):
            to.key[at, :] = _turn(n, angles, x.key[at, :], at)

    pl.when(i == 0)(keys) if n.blocks > 1 else keys()
    to.query[...] = _turn(n, angles, x.query[...], _of_block(n, i))
    return replace(x, query=to.query, key=to.key)


def _turn(n: Layout, by: Angles, rows: jax.Array, at: Any, sign: int = 1) -> jax.Array:
    """Rows of queries or keys [T, W] at these positions turned, or with sign -1 turned back; as `rotate` rounds."""
    partners = n.product(rows, by.swap[...], PLAIN)
    return (rows.astype(jnp.float32) * by.cos[at, :] + sign * partners * by.sin[at, :]).astype(rows.dtype)


def _of_block(n: Layout, i: jax.Array) -> Any:
    """The positions of a block of queries."""
    return pl.ds(pl.multiple_of(i * n.queries, TILE) if n.blocks > 1 else 0, n.queries)


def _chunks(n: Layout) -> list[Any]:
    return [pl.ds(c * n.chunk, n.chunk) for c in range(n.chunks)]


def _zero(*refs: jax.Ref) -> None:
    for ref in refs:
        ref[...] = jnp.zeros_like(ref)


def _inverse(x: jax.Array, layout: Layout) -> jax.Array:
    """1 / x as exact as division, in a third of its operations: those for 0 and infinity are left out."""
    estimate = 1 / x if layout.interpreted else pl.reciprocal(x, approx=True)  # whose interpretation is of 8 bits
    return estimate * (2 - x * estimate)


def _column(x: jax.Array) -> jax.Array:
    """[T, 1] as a column."""
    return jnp.broadcast_to(x, (x.shape[0], TILE))


def _column_of(row: jax.Array, length: int) -> jax.Array:
    """[1, T or more], a multiple of 128, as a column of T."""
    squares = [jnp.broadcast_to(row[:, n : n + TILE], (TILE, TILE)).T for n in range(0, row.shape[1], TILE)]
    return jnp.concatenate(squares, 0)[:length]


def _rows(columns: list[jax.Array]) -> jax.Array:
    """Columns of T as [their number, T], with zeros to a multiple of 128: turned together, each in a lane."""
    lane, together = jax.lax.broadcasted_iota(jnp.int32, (1, TILE), 1), columns[0]
    for number, column in enumerate(columns[1:], 1):
        together = jnp.where(lane == number, column, together)
    together = jnp.pad(together, ((0, -len(together) % TILE), (0, 0)))
    turned = [together[n : n + TILE].T for n in range(0, len(together), TILE)]
    return jnp.concatenate([t[: len(columns)] for t in turned], 1)


def _spread(column: jax.Array, width: int) -> jax.Array:
    """A column in so many lanes."""
    return jnp.concatenate([column] * (width // TILE), 1) if width % TILE == 0 else column[:, :width]
