"""Dropout without a generator: which elements are kept is a hash of their number and a key.

Letters: B batch, T query length, S key length, N heads.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec


@jax.named_scope("dropout")
def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout of any array [..., D]; none without a key. Raises ValueError for a rate outside [0, 1).

    Which elements are kept is as in WeightDropout: a row is a place of the leading dimensions in the whole array, a
    column one of the last. One multiplication an element, where a generator takes a hundred, the same on every mesh,
    and nothing is saved for the backward pass but the numbers of rows and columns.
    """
    _check(rate)
    if key is None or rate == 0:
        return x
    sharding = jax.typeof(x).sharding
    cut = tuple(sharding.spec) if sharding.spec else (None,) * x.ndim
    seeds = jax.random.bits(key, (4,), jnp.uint32)
    rows = _odd(_hash(x.shape[:-1], NamedSharding(sharding.mesh, PartitionSpec(*cut[:-1])), seeds[:2]))
    columns = _signed(_hash(x.shape[-1:], NamedSharding(sharding.mesh, PartitionSpec(*cut[-1:])), seeds[2:]))
    return _dropped(x, rows, columns, rate)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _dropped(x: jax.Array, rows: jax.Array, columns: jax.Array, rate: float) -> jax.Array:
    return jnp.where(
        kept(rows[..., None], jnp.expand_dims(columns, range(x.ndim - 1)), rate), x / (1 - rate), jnp.zeros((), x.dtype)
    )


def _dropped_forward(x: jax.Array, rows: jax.Array, columns: jax.Array, rate: float) -> tuple:
    return _dropped(x, rows, columns, rate), (rows, columns)


@jax.named_scope("dropout")
def _dropped_backward(rate: float, numbers: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple:
    return _dropped(cotangent, *numbers, rate), None, None


_dropped.defvjp(_dropped_forward, _dropped_backward)


@struct.dataclass
class WeightDropout:
    """Which weights of an attention are kept, as a value that kernels may take: no [B, N, T, S] need be in memory.

    A weight is kept where the product of its row's number and its column's, modulo 2^32, is large: one multiplication
    a weight. The numbers are hashes of places in the whole batch, so the mask is the same in every kernel, for any
    size of its blocks, and on every mesh.
    """

    rows: jax.Array  # int32 [B, T], odd: times a uniform number it is uniform
    columns: jax.Array  # int32 [B, N, S], uniform
    rate: float = struct.field(pytree_node=False)

    def dense(self) -> jax.Array:
        """bool [B, N, T, S]: True where a weight is kept, and divided by 1 - rate."""
        return kept(self.rows[:, None, :, None], self.columns[:, :, None, :], self.rate)


def attention_dropout(rate: float, key: jax.Array | None, query: jax.Array, keys: int) -> WeightDropout | None:
    """Of the weights of queries [B, T, N, H] for S = `keys` keys; None without a key, or at a rate of 0.
    Raises ValueError for a rate outside [0, 1)."""
    _check(rate)
    if key is None or rate == 0:
        return None
    (rows, queries, heads, _), sharding = query.shape, jax.typeof(query).sharding
    batch, length, head, _ = sharding.spec if sharding.spec else (None,) * 4
    seeds = jax.random.bits(key, (4,), jnp.uint32)
    of_rows = _hash((rows, queries), NamedSharding(sharding.mesh, PartitionSpec(batch, length)), seeds[:2])
    of_columns = _hash((rows, heads, keys), NamedSharding(sharding.mesh, PartitionSpec(batch, head, None)), seeds[2:])
    return WeightDropout(_odd(of_rows), _signed(of_columns), rate)


def kept(rows: jax.Array, columns: jax.Array, rate: float) -> jax.Array:
    """bool: are weights of these rows and columns of a WeightDropout kept? The two broadcast."""
    return rows * columns >= _threshold(rate) - 2**31  # as unsigned numbers, 2^31 further


def _odd(numbers: jax.Array) -> jax.Array:
    return _signed(numbers | jnp.uint32(1))


def _signed(numbers: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(numbers, jnp.int32)


def _hash(shape: tuple[int, ...], sharding: jax.sharding.Sharding, seeds: jax.Array) -> jax.Array:
    """uint32 of this shape: two rounds of MurmurHash3's finaliser on each element's number and two seeds."""
    number = jnp.uint32(0)
    for dimension, stride in enumerate(math.prod(shape[d + 1 :]) for d in range(len(shape))):
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, dimension, out_sharding=sharding)
        number = number + place * jnp.uint32(stride % 2**32)

    def finalise(h: jax.Array) -> jax.Array:
        h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
        h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
        return h ^ (h >> jnp.uint32(16))

    return finalise(finalise(number + seeds[0]) ^ seeds[1])


def _threshold(rate: float) -> int:
    return min(round(rate * 2**32), 2**32 - 1)


def _check(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate of {rate}: it must be at least 0 and below 1")
