"""Relative position buckets of T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.1)."""

import math

import jax
import jax.numpy as jnp
from flax import struct

from training.partition import spec


@struct.dataclass
class RelativeBias:
    """The bias of attention as a value: the form that kernels may take, which need no [1, N, T, S] in memory."""

    table: jax.Array  # [buckets, N]
    bidirectional: bool = struct.field(pytree_node=False)
    max_distance: int = struct.field(pytree_node=False, default=128)
    places: jax.Array | None = None  # [B, T]: where among the keys each query stands; None: query t at key t

    def dense(self, queries: int, keys: int) -> jax.Array:
        """[1, N, T, S], or with places [B, N, T, S]."""
        table, far, both = self.table, self.max_distance, self.bidirectional
        if self.places is None:
            return relative_bias(table, queries, keys, bidirectional=both, max_distance=far)
        offsets = jnp.arange(keys)[None, None] - self.places[:, :, None]
        bucket = relative_bucket(offsets, bidirectional=both, buckets=len(table), max_distance=far)
        return jnp.moveaxis(table.at[bucket].get(out_sharding=spec("batch", None, None, "heads")), -1, 1)

    def range(self) -> tuple[int, int]:
        """The lowest offset and the highest that tell: all beyond share a bucket with them.
        Raises ValueError as `relative_bucket`."""
        half, exact = _sides(len(self.table), self.bidirectional, self.max_distance)
        # From here on distances share the last bucket; the thousandth is more than a float32 logarithm is wrong by.
        last = math.ceil(1.001 * exact * (self.max_distance / exact) ** ((half - exact - 1) / (half - exact)))
        reach = min(max(last, exact), self.max_distance)
        return -reach, reach if self.bidirectional else 0


def relative_bucket(offset: jax.Array, *, bidirectional: bool, buckets: int = 32, max_distance: int = 128) -> jax.Array:
    """The bucket, an int32 in [0, buckets), of each offset = key position - query position.

    Half of the buckets are exact distances, the other half grow logarithmically up to `max_distance`, beyond which all
    distances share the last. Bidirectional: the upper half of the numbers is for keys right of the query. Otherwise
    such keys all fall in bucket 0 (causal attention never sees them).

    Raises ValueError where the formula divides by 0 or by a negative logarithm: without a bucket of an exact distance,
    and for a `max_distance` that is among the exact ones.
    """
    half, exact = _sides(buckets, bidirectional, max_distance)
    side: jax.Array | int = 0
    if bidirectional:
        side, distance = jnp.where(offset > 0, half, 0), jnp.abs(offset)
    else:
        distance = jnp.maximum(-offset, 0)
    log = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(max_distance / exact)
    far = jnp.minimum(exact + (log * (half - exact)).astype(jnp.int32), half - 1)
    return side + jnp.where(distance < exact, distance, far)


def _sides(buckets: int, bidirectional: bool, max_distance: int) -> tuple[int, int]:
    """The buckets of a side, and how many of them are of one distance."""
    half = buckets // 2 if bidirectional else buckets
    exact = half // 2
    if exact < 1 or max_distance <= exact:
        sides = "two sides" if bidirectional else "one side"
        raise ValueError(
            f"{buckets} buckets of {sides} up to distance {max_distance}: {exact} a side are of exact distances, which "
            "must be 1 or more and less than max_distance"
        )
    return half, exact


def relative_bias(
    table: jax.Array, queries: int, keys: int, *, bidirectional: bool, max_distance: int = 128
) -> jax.Array:
    """The attention bias [1, N, T, S] of a table [buckets, N], for queries 0..T-1 and keys 0..S-1.

    Offsets inside a segment do not change when segments are packed into one row, so row positions serve packed rows.
    """
    offsets = jnp.arange(1 - queries, keys)
    return toeplitz(offset_bias(table, offsets, bidirectional=bidirectional, max_distance=max_distance), queries)


def offset_bias(table: jax.Array, offsets: jax.Array, *, bidirectional: bool, max_distance: int = 128) -> jax.Array:
    """The bias [N, O] of each of O offsets = key position - query position, for a table [buckets, N]."""
    bucket = relative_bucket(offsets, bidirectional=bidirectional, buckets=table.shape[0], max_distance=max_distance)
    # A product with one-hot rows, not a gather: its transpose is a product too, and N stays cut over the mesh.
    return jnp.einsum("RN,OR->NO", table, jax.nn.one_hot(bucket, table.shape[0], dtype=table.dtype))


def toeplitz(offsets: jax.Array, queries: int) -> jax.Array:
    """[N, T - 1 + S] for offsets 1-T..S-1 -> [1, N, T, S] with element (t, s) that of offset s - t.

    T copies of the row, one element short each time, drift by one place a row:
    no gather, and no scatter in the transpose.
    """
    heads, width = offsets.shape
    copies = jnp.broadcast_to(jnp.pad(offsets, ((0, 0), (0, 1)))[:, None], (heads, queries, width + 1))
    # All but the last T elements: as rows of T, for of symbolic lengths (jax.export) no product compares with 0.
    same = jax.typeof(copies).sharding
    rows = jax.lax.reshape(copies, (heads, width + 1, queries), out_sharding=same)[:, :width]
    drift = jax.lax.reshape(rows, (heads, queries, width), out_sharding=same)
    return drift[None, :, :, queries - 1 :]
