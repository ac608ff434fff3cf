"""Dropout without a generator: which elements are kept is a hash of their number and a key."""

import math

import jax
import jax.numpy as jnp


@jax.named_scope("dropout")
def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout of any array; none without a key.

    Which elements are kept is an integer hash (MurmurHash3's finaliser, twice) of their number and the key: two orders
    of magnitude faster on a CPU than a random generator, fused into what surrounds it on any device, and the same on
    every mesh. The rate is exact to 2^-32.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate of {rate}: it must be at least 0 and below 1")
    if key is None or rate == 0:
        return x
    seeds = jax.random.bits(key, (2,), jnp.uint32)
    number, sharding = jnp.uint32(0), jax.typeof(x).sharding
    for dimension, stride in enumerate(math.prod(x.shape[d + 1 :]) for d in range(x.ndim)):
        place = jax.lax.broadcasted_iota(jnp.uint32, x.shape, dimension, out_sharding=sharding)
        number = number + place * jnp.uint32(stride % 2**32)

    def finalise(h: jax.Array) -> jax.Array:
        h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
        h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
        return h ^ (h >> jnp.uint32(16))

    kept = finalise(finalise(number + seeds[0]) ^ seeds[1]) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))
