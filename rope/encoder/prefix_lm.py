"""Prefix language model: a source is read in both directions, and a target after it written from left to right, by
UniLM's sequence to sequence mask (Dong et al. 2019, arXiv 1905.03197). rope/encoder/prefix_decoder.py writes so.

A source's states do not depend on its target, so [CLS] before it is a vector of the source alone. Examples lie side by
side in rows: segments number them from 1, types are 0 in a source and 1 in its target, and positions restart in each.

Letters: B rows, T positions, M predicted positions, D model.
"""

import jax

from rope.encoder.mlm import guess
from rope.encoder.roformer import RoFormer, RoFormerConfig, encode
from rope.layers.masks import unilm_mask
from training.step import Sums


def states(
    model: RoFormer,
    ids: jax.Array,
    segments: jax.Array,
    types: jax.Array,
    config: RoFormerConfig,
    key: jax.Array | None = None,
) -> jax.Array:
    """Ids, segments and types [B, T] -> the last hidden states [B, T, D]. `key` turns dropout on."""
    return encode(model, ids, segments, config, types=types, mask=unilm_mask(segments, types), key=key)


def loss(model: RoFormer, hidden: jax.Array, places: jax.Array, labels: jax.Array, config: RoFormerConfig) -> Sums:
    """`loss`, `cross_entropy` and `accuracy` of the tokens of the targets.

    places [B, M] of hidden states [B, T, D] that predict what comes next, labels [B, M]; -1 for none.
    """
    return guess(model, hidden, places, labels, (places >= 0).astype("float32"), config)
