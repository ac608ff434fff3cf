"""Masked language model: tokens masked and guessed (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

15 % of the tokens are predicted; of these 80 % are replaced by [MASK], 10 % by a random token, and 10 % stay. Whole
words are one token in a vocabulary of words, as RoFormer's is.

Letters: B rows, T positions, M predicted positions, D model, E embedding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rope.encoder.roformer import RoFormer, RoFormerConfig, before_logits, encode, head_of
from rope.layers.cross_entropy import cross_entropy
from training.partition import gather, spec
from training.step import Batch, Sums

PERCENT = 15


class Vocabulary(NamedTuple):
    """What masking knows of a tokenizer."""

    size: int
    mask: int
    specials: int  # ids below are special tokens: neither hidden nor drawn


class Masked(NamedTuple):
    inputs: jax.Array  # [B, T]
    places: jax.Array  # [B, M], of what is to be predicted
    labels: jax.Array  # [B, M]
    weights: jax.Array  # [B, M], 0 where a row has fewer


def mask_tokens(ids: jax.Array, segments: jax.Array, vocabulary: Vocabulary, key: jax.Array) -> Masked:
    """Chooses 15 % of each row's tokens [B, T], never special ones nor padding, and masks them."""
    score_key, kind_key, other_key = jax.random.split(key, 3)
    may = (segments > 0) & (ids >= vocabulary.specials)
    scores = jnp.where(may, _uniform(score_key, ids), -1.0)
    best, places = jax.lax.top_k(scores, masked_of(ids.shape[1]))
    weights = jnp.arange(places.shape[1])[None] < masked_of(jnp.sum(may, 1, keepdims=True))
    # A token is masked where its score is among the best of its row: no scatter, which no mesh cuts well.
    chosen = scores >= jnp.min(jnp.where(weights, best, 2.0), 1, keepdims=True)
    kind, other = _uniform(kind_key, ids), _uniform(other_key, ids)
    drawn = vocabulary.specials + (other * (vocabulary.size - vocabulary.specials)).astype(ids.dtype)
    replaced = jnp.where(kind < 0.8, vocabulary.mask, jnp.where(kind < 0.9, drawn, ids))
    labels = jnp.sum(jnp.where(_onehot(places, ids), ids[:, None], 0), 2)
    return Masked(jnp.where(chosen, replaced, ids), places, labels, weights.astype(jnp.float32))


def masked_of(tokens):
    """How many of so many tokens are predicted; an integer, or an array of them."""
    return -(-tokens * PERCENT // 100)


def _uniform(key: jax.Array, like: jax.Array) -> jax.Array:
    return jax.random.uniform(key, like.shape, out_sharding=spec("batch", None))


def _onehot(places: jax.Array, like: jax.Array) -> jax.Array:
    """bool [B, M, T]."""
    return places[:, :, None] == jnp.arange(like.shape[1])[None, None]


def loss(
    model: RoFormer, batch: Batch, key: jax.Array | None, *, config: RoFormerConfig, vocabulary: Vocabulary
) -> Sums:
    """Sums for the engine: `loss` (minimised), `cross_entropy` and `accuracy` over the masked tokens.

    batch: ids and segments [B, T]. `key` draws what is masked and turns dropout on;
    without it the same is masked each time.
    """
    mask_key, dropout_key = (jax.random.key(0), None) if key is None else jax.random.split(key)
    masked = mask_tokens(batch["ids"], batch["segments"], vocabulary, mask_key)
    return predict(model, masked, batch["segments"], dropout_key, config)


def predict(
    model: RoFormer, masked: Masked, segments: jax.Array, key: jax.Array | None, config: RoFormerConfig
) -> Sums:
    """What `loss` returns, for tokens that are masked already."""
    hidden = encode(model, masked.inputs, segments, config, key=key)
    return guess(model, hidden, masked.places, masked.labels, masked.weights, config)


def guess(
    model: RoFormer,
    hidden: jax.Array,
    places: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    config: RoFormerConfig,
) -> Sums:
    """`loss`, `cross_entropy` and `accuracy` of what the head makes of the hidden states [B, T, D] at places [B, M]."""
    # A product with one-hot rows, not a gather:
    # its transpose is a product too, and costs less than a hundredth of a layer.
    chosen = _onehot(places, hidden).astype(hidden.dtype)
    hidden = before_logits(model, jnp.einsum("BMT,BTD->BMD", chosen, hidden), config)
    table = gather(model.embeddings.word, "vocab", "embed", dtype=hidden.dtype)
    sums = cross_entropy(hidden, (table.T, head_of(model).bias), labels, weights)
    return {name: (s, weights.sum()) for name, s in zip(("loss", "cross_entropy", "accuracy"), sums, strict=True)}


def flops_per_row(config: RoFormerConfig, length: int) -> int:
    """FLOPs of a training step for one row: three times the forward products; a multiply-add is 2.

    Every position counts, the head for those that are predicted; norms, softmax and look-ups do not count.
    """
    c = config
    layer = length * (4 * c.width**2 + 2 * c.width * c.feed_forward) + 2 * length**2 * c.width
    head = masked_of(length) * c.embedding_width * (c.width + c.vocabulary)
    return 6 * (c.layers * layer + head)
