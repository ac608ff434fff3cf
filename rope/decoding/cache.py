"""Keys and values kept for many steps, as the products of `cached_attention` read them.

The cache of a layer holds the keys of all beams where they were computed. A hypothesis is the `path` of beams that its
tokens came through (int32 [B, K, P]), so beams change places by rewriting the path, never the cache; and what is known
of a prompt exists once a row, not once a beam.

Letters: B rows, K beams of a row, P positions, N heads, H head size, L layers.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

LayerCache = tuple[jax.Array, jax.Array]  # keys [B, N, H, P K] and values [B, N, P K, H]
Cache = list[LayerCache]
Tree = TypeVar("Tree")


def laid(key: jax.Array, value: jax.Array) -> LayerCache:
    """Heads [B, T, N, H] of keys and values -> [B, N, H, T] and [B, N, T, H]."""
    return key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)


def empty(layers: int, like: jax.Array, places: int) -> Cache:
    """Zeros for this many places, of the rows, heads and type of keys [B, N, H, S]."""
    keys = jnp.zeros((*like.shape[:3], places), like.dtype)
    return [(keys, keys.swapaxes(2, 3))] * layers


def append(cache: LayerCache, key: jax.Array, value: jax.Array, place: jax.Array) -> LayerCache:
    """The cache with the heads [B, K, N, H] of all beams from this place on."""
    keys, values = laid(key, value)
    return (
        jax.lax.dynamic_update_slice_in_dim(cache[0], keys, place, 3),
        jax.lax.dynamic_update_slice_in_dim(cache[1], values, place, 2),
    )


def path_mask(path: jax.Array, t: jax.Array) -> jax.Array:
    """bool [B, 1, K, P K]: which of what is cached each hypothesis sees at position t, for paths [B, K, P]."""
    rows, beams, length = path.shape
    of_path = path[..., None] == jnp.arange(beams)[None, None, None]
    return (of_path & (jnp.arange(length) <= t)[None, None, :, None]).reshape(rows, 1, beams, length * beams)


def unstacked(blocks: Tree, layers: int) -> tuple[Tree, ...]:
    """The layers of a stack (leading axis L) one by one: a slice of a stack in a loop would be a copy a step."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(layers))
