"""JAX's default generator, Threefry-2x32 with 20 rounds
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), for CPUs.

jax.random computes it on a CPU in a loop over rounds, each of which goes through memory, and keeps one of the two words
that a counter gives. Here the rounds are one fused kernel and both words are kept: a quarter of the time, and of the
time to compile. The streams differ from jax.random's; their quality is the same.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
Words = tuple[jax.Array, jax.Array]


def threefry(key: Words, counter: Words) -> Words:
    """The block function, of uint32 words."""
    keys = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for number in range(5):
        for turn in ROTATIONS[number % 2]:
            x = x + y
            y = x ^ (y << np.uint32(turn) | y >> np.uint32(32 - turn))
        x, y = x + keys[(number + 1) % 3], y + keys[(number + 2) % 3] + np.uint32(number + 1)
    return x, y


def _seed(seed: jax.Array) -> jax.Array:
    return jnp.stack([jnp.uint32(0), jnp.asarray(seed).astype(jnp.uint32)])


def _words(key: jax.Array, count: int, stream: int) -> jax.Array:
    """[2, count]; streams of one key never meet: bits are drawn from 0, keys from 1."""
    numbers = jax.lax.iota(np.uint32, count)
    return jnp.stack(threefry((key[0], key[1]), (jnp.full_like(numbers, stream), numbers)))


def _bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    size, words = math.prod(shape), max(width // 32, 1)
    drawn = _words(key, -(-size * words // 2), 0).reshape(-1)[: size * words]
    if width > 32:
        return jax.lax.bitcast_convert_type(drawn.reshape(*shape, words), f"uint{width}")
    return (drawn >> np.uint32(32 - width)).astype(f"uint{width}").reshape(shape)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return _words(key, math.prod(shape), 1).T.reshape(*shape, 2)


def _fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
    return jnp.stack(threefry((key[0], key[1]), (jnp.uint32(2), jnp.asarray(data).astype(jnp.uint32))))


THREEFRY = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="threefry fused", tag="fused"
)


def key_of(seed: int | jax.Array) -> jax.Array:
    return jax.random.key(seed, impl=THREEFRY)
