"""The one attention function of the project, with the masks of packed rows and the dropout that goes with it.

Letters: B batch, T query length, S key length, N heads, H head size.
"""

import math

import jax
import jax.numpy as jnp

MASKED = -1e9  # finite, so that a query that sees nothing has a uniform distribution and not NaN


def segment_mask(query_segments: jax.Array, key_segments: jax.Array, *, causal: bool = False) -> jax.Array:
    """bool [B, 1, T, S]: may the query see the key? Segments [B, T] and [B, S] number the examples of a row from 1.

    0 is padding: padding sees and is seen by padding alone. `causal` also hides keys right of the query.
    """
    mask = query_segments[:, :, None] == key_segments[:, None, :]
    if causal:
        mask &= jnp.tril(jnp.ones((1, *mask.shape[1:]), bool))
    return mask[:, None]


def segment_positions(segments: jax.Array) -> jax.Array:
    """int32 [B, T]: the position of each token in its segment, from 0, where segments [B, T] lie side by side."""
    places = jax.lax.broadcasted_iota(jnp.int32, segments.shape, 1, out_sharding=jax.typeof(segments).sharding)
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return places - jax.lax.cummax(jnp.where(begins, places, 0), axis=1)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout of any array; none without a key.

    Which elements are kept is an integer hash (MurmurHash3's finaliser, twice) of their number and the key: two orders
    of magnitude faster on a CPU than a random generator, fused into what surrounds it on any device, and the same on
    every mesh. The rate is exact to 2^-32.
    """
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


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """softmax(scale * query key^T + bias, where mask) value: [B, T, N, H] from query [B, T, N, H], key and value [B, S, N, H].

    bias and mask broadcast to [B, N, T, S]. scale is H^-0.5 by default (T5 uses 1). Scores and softmax are
    float32.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("BTNH,BSNH->BNTS", query * scale, key, preferred_element_type=jnp.float32)
    weights = dropout(_weights(scores, bias, mask), dropout_rate, dropout_key)
    return jnp.einsum("BNTS,BSNH->BTNH", weights.astype(value.dtype), value)


def cached_attention(
    query: jax.Array, keys: jax.Array, values: jax.Array, *, bias=None, mask=None, scale: float | None = None
) -> jax.Array:
    """`attention` for a few queries [B, T, N, H] over keys [B, N, H, S] and values [B, N, S, H] kept for many steps.

    The products read keys and values as they lie there, and the second one's result is turned after it: of `attention`'s own
    order XLA would make a copy a step, and on a CPU a naive loop of the second product.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("BTNH,BNHS->BNTS", query * scale, keys, preferred_element_type=jnp.float32)
    mixed = jnp.einsum("BNTS,BNSH->BNTH", _weights(scores, bias, mask).astype(values.dtype), values)
    return mixed.swapaxes(1, 2)


def _weights(scores: jax.Array, bias: jax.Array | None, mask: jax.Array | None) -> jax.Array:
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    return jax.nn.softmax(scores, axis=-1)
