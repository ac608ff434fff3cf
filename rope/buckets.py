"""Relative position buckets of T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.1)."""

import math

import jax
import jax.numpy as jnp


def relative_bucket(offset: jax.Array, *, bidirectional: bool, buckets: int = 32, max_distance: int = 128) -> jax.Array:
    """The bucket, an int32 in [0, buckets), of each offset = key position - query position.

    Half of the buckets are exact distances, the other half grow logarithmically up to `max_distance`, beyond which all
    distances share the last. Bidirectional: the upper half of the numbers is for keys right of the query. Otherwise such
    keys all fall in bucket 0 (causal attention never sees them).
    """
    if bidirectional:
        buckets //= 2
        side, distance = jnp.where(offset > 0, buckets, 0), jnp.abs(offset)
    else:
        side, distance = 0, jnp.maximum(-offset, 0)
    exact = buckets // 2
    log = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(max_distance / exact)
    far = jnp.minimum(exact + (log * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return side + jnp.where(distance < exact, distance, far)


def relative_bias(
    table: jax.Array, query_positions: jax.Array, key_positions: jax.Array, *, bidirectional: bool, max_distance: int = 128
) -> jax.Array:
    """The attention bias [1, N, T, S] of a table [buckets, N], for positions [T] and [S].

    Offsets inside a segment do not change when segments are packed into one row, so row positions serve packed rows.
    """
    offset = key_positions[None, :] - query_positions[:, None]
    bucket = relative_bucket(offset, bidirectional=bidirectional, buckets=table.shape[0], max_distance=max_distance)
    # One-hot product, not a gather: its transpose is a product too, and it keeps N cut over the mesh.
    onehot = jax.nn.one_hot(bucket, table.shape[0], dtype=table.dtype)
    return jnp.einsum("TSR,RN->NTS", onehot, table)[None]
