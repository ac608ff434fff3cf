"""The one attention function of the project, and the masks of packed rows.

Letters: B batch, T query length, S key length, N heads, H head size.
"""

import jax
import jax.numpy as jnp

MASKED = -1e9  # finite, so that a query that sees nothing has a uniform distribution and not NaN


def segment_mask(query_segments: jax.Array, key_segments: jax.Array, *, causal: bool = False) -> jax.Array:
    """bool [B, 1, T, S]: may the query see the key? Segments [B, T] and [B, S] number the examples of a row from 1.

    0 is padding: padding sees and is seen by padding alone. `causal` also hides keys right of the query.
    """
    mask = query_segments[:, :, None] == key_segments[:, None, :]
    if causal:
        mask &= jnp.tril(jnp.ones(mask.shape[1:], bool))
    return mask[:, None]


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout of any array; none without a key. The rate is exact to 2^-16."""
    if key is None or rate == 0:
        return x
    bits = jax.random.bits(key, x.shape, jnp.uint16, out_sharding=jax.typeof(x).sharding)
    return jnp.where(bits >= round(rate * 65536), x / (1 - rate), 0)


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

    bias and mask broadcast to [B, N, T, S]. scale is H^-0.5 by default (T5 uses 1). Scores and softmax are float32.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("BTNH,BSNH->BNTS", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_key)
    return jnp.einsum("BNTS,BSNH->BTNH", weights.astype(value.dtype), value)
