"""One step of flash attention: a block of queries of one row and a group of heads, and all keys.

The heads of a group lie side by side in the lanes of a register. A product of all lanes with keys of which only one
head's lanes are not zero is that head's, and takes the matrix unit no longer: its 128 rows are there in any case.
Products sum in float32. Where keys are few (`CHUNK`), a row of scores is whole; else they come in chunks and the
softmax is mended as they come (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).

Letters: T queries of the block, C keys of a chunk, W lanes of the group.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rope.layers.flash.bias import TILE, add_places, add_tiles
from rope.layers.flash.blocks import Angles, Gradients, Kept, Layout, Operands, Running, Sums, Turned
from rope.layers.flash.scores import PADDING, ROWS, Block, column, column_of, rows_of, spread
from rope.layers.masks import MASKED

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
        top = column(scores.max(axis=1, keepdims=True))
        weights = jnp.exp(scores - spread(top, n.chunk))
        total = column(weights.sum(axis=1, keepdims=True))
        return top, total, n.product(block.drop(a, weights), block.value, PLAIN)

    def finish(block: Block, tops: list[jax.Array], totals: list[jax.Array], mixed: list[jax.Array]) -> None:
        inverses = [_inverse((1 - n.rate) * total if n.rate else total, n) for total in totals]
        shares = [spread(inverse, n.width) for inverse in inverses]
        out[...] = block.lanes([m * share for m, share in zip(mixed, shares, strict=True)]).astype(out.dtype)
        rows = rows_of([*tops, *totals])
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
            running.mixed[a] = running.mixed[a] * spread(old, n.width) + mixed * spread(new, n.width)

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

    def chunk(c: Any) -> jax.Array:
        block = Block(n, x, i, c)
        of_query, of_key, of_value = (
            block.lanes(f)
            for f in zip(*(_gradients(block, a, cotangent, saved, to) for a in range(n.heads)), strict=True)
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


def _gradients(
    block: Block, a: int, cotangent: jax.Ref, saved: Kept, to: Gradients
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of a head's queries [T, W], and of keys and values [C, W], those of biases added up; lanes of other heads mean
    nothing."""
    n, x = block.layout, block.x
    top, inverse = (column_of(saved.statistics[k : k + 1], n.queries) for k in (a, n.heads + a))
    plain = cotangent[...].astype(jnp.float32)
    given = seen = plain * (1 / (1 - n.rate)) if n.rate else plain
    if x.key_segments is not None:
        # Masked scores are constant: where a query sees nothing but them, no gradient goes further.
        alive = spread(top, n.width) > MASKED / 2
        given, seen = jnp.where(alive, given, given * spread(inverse, n.width)), jnp.where(alive, given, 0)
    given = given.astype(block.key.dtype)
    weights = jnp.exp(block.scores(a) - spread(top, n.chunk))
    of_weights = n.product(seen.astype(block.key.dtype), block.of_head(a, block.value), ROWS)
    keep, dropped = block.keep(a), weights
    if keep is not None:
        dropped, of_weights = jnp.where(keep, weights, 0), jnp.where(keep, of_weights, 0)
    mean = (block.of_head(a, seen) * saved.out[...].astype(jnp.float32)).sum(axis=1, keepdims=True) * (1 - n.rate)
    of_scores = weights * (of_weights - spread(column(mean), n.chunk))
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
