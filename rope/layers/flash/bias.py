"""T5's relative bias inside a kernel, which has neither a gather from a table nor room for a bias [N, T, S].

Where query t stands at key t, a bias depends on offset = key - query alone: all tiles of 128 x 128 on a diagonal of
tiles are the same, and from the farthest bucket on all diagonals are. A handful of tiles a head is the whole bias, and
the causal mask with it. Where queries stand elsewhere, row by row (cross-attention in packed rows), 128 neighbouring
offsets are one register, in which each row looks up the offsets that it has.

The functions down to `strip_gradient` are outside the kernel, and differentiable; the others are in it.
Letters: B batch, T query length, S key length, N heads, G diagonals of tiles, W windows of 128 offsets.
"""

import jax
import jax.numpy as jnp

from rope.layers.masks import MASKED
from rope.positions.buckets import RelativeBias, offset_bias, toeplitz

TILE = 128  # lanes of a vector register, and rows and columns of a tile
FUTURE = 2 * MASKED  # added to the scores of keys right of the query, which are MASKED where they are less


def tiles(bias: RelativeBias | None, causal: bool, queries: int, keys: int) -> jax.Array:
    """float32 [N, G, 128, 128]: what is added to scores in the tiles on each diagonal, from the lowest; N is 1 without
    a bias. Tiles further out than the outermost are equal to it."""
    reach = max(abs(end) for end in bias.range()) if bias is not None else 1
    out = min(-(-(reach + TILE - 1) // TILE), -(-max(queries, keys) // TILE) - 1)
    width = (2 * out + 1) * TILE
    offsets = jnp.arange(1 - TILE, width) - out * TILE
    if bias is None:
        values = jnp.zeros((1, len(offsets)), jnp.float32)
    else:
        values = _at(bias, offsets)
    if causal:
        values = values + jnp.where(offsets > 0, FUTURE, 0.0)[None]
    return jnp.stack(jnp.split(toeplitz(values, TILE)[0], 2 * out + 1, axis=-1), axis=1)


def strip(bias: RelativeBias) -> tuple[jax.Array, int]:
    """float32 [N, W, 128], the biases of successive offsets, and the lowest of them; those beyond either end are as the
    ends."""
    low, high = bias.range()
    windows = (high - low) // TILE + 1
    offsets = low + jnp.arange(windows * TILE)
    return jnp.stack(jnp.split(_at(bias, offsets), windows, axis=-1), axis=1), low


def _at(bias: RelativeBias, offsets: jax.Array) -> jax.Array:
    """float32 [N, O], the bias at each of O offsets."""
    table = bias.table.astype(jnp.float32)
    return offset_bias(table, offsets, bidirectional=bias.bidirectional, max_distance=bias.max_distance)


def strip_gradient(sums: jax.Array) -> jax.Array:
    """[N, W, 128] of what `add_places` sums up, [N, W + 2, 8, 128]: the ends have what lies beyond them."""
    windows, below, total = sums[:, :-2].sum(2), sums[:, -2].sum((1, 2)), sums[:, -1].sum((1, 2))
    above = total - below - windows.sum((1, 2))
    return windows.at[:, 0, 0].add(below).at[:, -1, -1].add(above)


def diagonal(ref: jax.Ref, row: jax.Array | int, column: jax.Array | int) -> jax.Array | int:
    """The number, in a head's tiles [G, 128, 128], of the tile in this row and column of tiles."""
    out = ref.shape[1] // 2
    if isinstance(row, int) and isinstance(column, int):
        return min(max(column - row, -out), out) + out
    return jnp.clip(column - row, -out, out) + out


def bias_of_tiles(
    ref: jax.Ref, head: int, shape: tuple[int, ...], row: jax.Array | int, column: jax.Array | int
) -> jax.Array:
    """[rows, columns] of scores whose first tile is this one, out of tiles [N, G, 128, 128]."""
    rows, columns = shape
    return jnp.concatenate(
        [
            jnp.concatenate(
                [
                    ref[min(head, ref.shape[0] - 1), diagonal(ref, row + r, column + c)][: rows - r * TILE]
                    for c in range(columns // TILE)
                ],
                1,
            )
            for r in range(-(-rows // TILE))
        ],
        0,
    )


def add_tiles(ref: jax.Ref, head: int, x: jax.Array, row: jax.Array | int, column: jax.Array | int) -> None:
    """Adds the gradient [rows, columns] of scores to that of their tiles [N, G, 128, 128]."""
    rows, columns = -(-x.shape[0] // TILE), x.shape[1] // TILE
    for d in range(1 - rows, columns):  # all on one diagonal first: the sum is stored once
        on = [(r, r + d) for r in range(rows) if 0 <= r + d < columns]
        whole = [(r, c) for r, c in on if (r + 1) * TILE <= x.shape[0]]
        at = diagonal(ref, row, column + d)
        if whole:
            ref[head, at] += sum(x[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE] for r, c in whole)
        for r, c in set(on) - set(whole):
            ref[head, at, : x.shape[0] - r * TILE] += x[r * TILE :, c * TILE : (c + 1) * TILE]


def lanes_from(start: jax.Array | int, like: jax.Array) -> jax.Array:
    """int32, as large as `like` [rows, 128]: start + lane."""
    return jax.lax.broadcasted_iota(jnp.int32, like.shape, 1) + start


def bias_of_places(
    ref: jax.Ref, head: int, places: jax.Array, low: int, columns: int, first: jax.Array | int
) -> jax.Array:
    """[rows, columns] of scores from column `first` on: out of a strip [N, W, 128] of offsets from `low`, for rows that
    stand at `places` [rows, 128], the same in every lane."""
    windows = ref.shape[1]

    def looked_up(window: int, at: jax.Array) -> jax.Array:
        values = jnp.broadcast_to(ref[head, window][None], at.shape)
        return jnp.take_along_axis(values, at, axis=1, mode="promise_in_bounds")

    def block(c: int) -> jax.Array:
        at = jnp.clip(lanes_from(first + c * TILE - low, places) - places, 0, windows * TILE - 1)
        if windows == 1:
            return looked_up(0, at)
        found = looked_up(0, at & (TILE - 1))
        for window in range(1, windows):
            found = jnp.where(at >> 7 >= window, looked_up(window, at & (TILE - 1)), found)
        return found

    return jnp.concatenate([block(c) for c in range(columns // TILE)], 1)


def add_places(ref: jax.Ref, head: int, x: jax.Array, places: jax.Array, low: int, first: jax.Array | int) -> None:
    """Adds the gradient [rows, columns] of scores to sums [N, W + 2, 8, 128]: of each offset of the W windows; of all
    below; of all. The lanes of a row change places so that each has its offset's."""
    windows = ref.shape[1] - 2
    lowest = lanes_from(low, places) + places  # the column of the first window's offsets
    block, lane = lowest >> 7, lowest & (TILE - 1)
    sums = [jnp.zeros(places.shape, jnp.float32) for _ in range(windows + 2)]
    for c in range(x.shape[1] // TILE):
        part = x[:, c * TILE : (c + 1) * TILE]
        moved = jnp.take_along_axis(part, lane, axis=1, mode="promise_in_bounds")
        for window in range(windows):
            sums[window] += jnp.where(block + window == first // TILE + c, moved, 0)
        sums[-2] += jnp.where(lanes_from(first + c * TILE - low, places) < places, part, 0)
        sums[-1] += part
    for number, value in enumerate(sums):
        ref[head, number] += value.reshape(-1, 8, TILE).sum(0)
