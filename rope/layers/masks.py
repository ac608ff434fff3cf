"""Which keys a query may see.

Tokens of a row bear the number of their segment: examples packed side by side are numbered from 1, and 0 is padding,
which sees and is seen by padding alone.

Letters: B batch, T query length, S key length.
"""

import jax
import jax.numpy as jnp
from flax import struct

MASKED = -1e9  # the score of what is hidden: finite, so that a query that sees nothing sees all alike, and not NaN


@struct.dataclass
class Segments:
    """Equal segments see each other; `causal` hides the keys right of the query too.
    The form that flash kernels take."""

    query: jax.Array  # [B, T]
    key: jax.Array  # [B, S]
    causal: bool = struct.field(pytree_node=False, default=False)

    def dense(self) -> jax.Array:
        """bool [B, 1, T, S]."""
        return segment_mask(self.query, self.key, causal=self.causal)


def segment_mask(query_segments: jax.Array, key_segments: jax.Array, *, causal: bool = False) -> jax.Array:
    """bool [B, 1, T, S]: may the query see the key? Of segments [B, T] and [B, S];
    `causal` also hides keys right of it."""
    mask = query_segments[:, :, None] == key_segments[:, None, :]
    if causal:
        mask &= jnp.tril(jnp.ones((1, *mask.shape[1:]), bool))
    return mask[:, None]


def unilm_mask(segments: jax.Array, types: jax.Array) -> jax.Array:
    """bool [B, 1, T, T]: a source (type 0) sees itself, a target (type 1) after it the source and what precedes it.

    UniLM's sequence to sequence mask (Dong et al. 2019, arXiv 1905.03197), in the segments [B, T] of packed rows.
    """
    order = jnp.cumsum(types, axis=1, dtype=jnp.int32)
    return segment_mask(segments, segments) & (order[:, None, None, :] <= order[:, None, :, None])


def segment_positions(segments: jax.Array) -> jax.Array:
    """int32 [B, T]: the position of each token in its segment, from 0, where segments [B, T] lie side by side."""
    places = jax.lax.broadcasted_iota(jnp.int32, segments.shape, 1, out_sharding=jax.typeof(segments).sharding)
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return places - jax.lax.cummax(jnp.where(begins, places, 0), axis=1)


def segment_lengths(segments: jax.Array) -> jax.Array:
    """int32 [B, T]: of how many tokens each token's segment is, where segments [B, T] lie side by side."""
    return segment_positions(segments) + segment_positions(segments[:, ::-1])[:, ::-1] + 1


def segment_places(query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
    """int32 [B, T]: where among the keys [B, S] each query [B, T] stands, if it is to stand as far from the first key
    of its segment as it is from the segment's first query."""
    first = jnp.argmax(query_segments[:, :, None] == key_segments[:, None, :], axis=-1)
    return segment_positions(query_segments) + first.astype(jnp.int32)
