"""Keys and values kept for many steps, as the products of `cached_attention` read them.

The cache of a layer holds the keys of all beams where they were computed. A hypothesis is the `path` of beams that its
tokens came through (int32 [B, K, P]), so beams change places by rewriting the path, never the cache; and what is known
of a prompt exists once a row, not once a beam.

Hypotheses that never change places, as draws do, have a row of the cache each, and read no other's: R = B K rows of
G = 1 beam, where beams have R = B rows of G = K. Their keys lie as values do (Rows).

Letters: B rows, K beams of a row, P positions, N heads, H head size, L layers; R rows of a cache, G beams in each.
"""

from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

LayerCache = tuple[jax.Array, jax.Array]  # keys [R, N, H, P G] and values [R, N, P G, H]
Tree = TypeVar("Tree")


class Rows(NamedTuple):
    """Of hypotheses that have a row each. What a step adds to the keys would else be single numbers in as many lines of
    a processor's cache, 0.3 ms a layer for 100 draws."""

    keys: jax.Array  # [R, N, P, H]
    values: jax.Array  # [R, N, P, H]


Cache = list[LayerCache | Rows]


def laid(key: jax.Array, value: jax.Array) -> LayerCache:
    """Heads [B, T, N, H] of keys and values -> [B, N, H, T] and [B, N, T, H]."""
    return key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)


def empty(layers: int, like: jax.Array, places: int) -> Cache:
    """Zeros for this many places, of the rows, heads and type of keys [B, N, H, S]."""
    keys = jnp.zeros((*like.shape[:3], places), like.dtype)
    return [(keys, keys.swapaxes(2, 3))] * layers


def beside(cache: Cache, path: jax.Array) -> int:
    """How many of the beams of paths [B, K, P] lie side by side in each row of the cache (G)."""
    rows, beams, _ = path.shape
    return rows * beams // cache[0][0].shape[0]  # no len: a length may be a symbol (jax.export)


def append(cache: LayerCache | Rows, key: jax.Array, value: jax.Array, t: jax.Array) -> LayerCache | Rows:
    """The cache with the heads [B, K, N, H] of all beams at position t."""
    rows, heads, _, size = cache[1].shape
    keys, values = laid(*(x.reshape(rows, -1, heads, size) for x in (key, value)))
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=t * values.shape[2])
    if isinstance(cache, Rows):
        return Rows(put(cache.keys, keys.swapaxes(2, 3), axis=2), put(cache.values, values, axis=2))
    return put(cache[0], keys, axis=3), put(cache[1], values, axis=2)


def as_read(cache: LayerCache | Rows) -> LayerCache:
    """As the products read it."""
    return (cache.keys.swapaxes(2, 3), cache.values) if isinstance(cache, Rows) else cache


def in_rows(cache: Cache) -> Cache:
    """The cache of hypotheses that never change places, of a row each."""
    return [Rows(keys.swapaxes(2, 3), values) for keys, values in cache]


def path_mask(path: jax.Array, t: jax.Array, beside: int, first: int = 0) -> jax.Array:
    """bool [B, 1, K, P G], or [1, 1, 1, P] of one beam in a row of the cache: which of what is cached each hypothesis
    sees at position t, for paths [B, K, P]; of positions from `first` on."""
    rows, beams, length = path.shape
    places = jnp.arange(length)
    there = (first <= places) & (places <= t)
    if beside == 1:
        return there[None, None, None]
    of_path = path[..., None] == jnp.arange(beams)[None, None, None]
    return (of_path & there[None, None, :, None]).reshape(rows, 1, beams, length * beams)


def taken(cache: Cache, which: jax.Array, beams: int) -> Cache:
    """The cache of these hypotheses [B, K] of each row's `beams`, in this order, where they have a row of it each; a
    decoder may keep several of each (rows [B, …, K])."""

    def take(x: jax.Array) -> jax.Array:
        rows, kept = which.shape
        of_row = x.reshape(rows, -1, beams, *x.shape[1:])
        return jnp.take_along_axis(of_row, which.reshape(rows, 1, kept, *(1,) * (x.ndim - 1)), 2).reshape(
            -1, *x.shape[1:]
        )

    return jax.tree.map(take, cache)


def unstacked(blocks: Tree, layers: int) -> tuple[Tree, ...]:
    """The layers of a stack (leading axis L) one by one: a slice of a stack in a loop would be a copy a step."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(layers))
