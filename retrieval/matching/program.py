"""The training of a matching encoder: hidden tokens and the label's word, by one softmax over the vocabulary."""

from functools import partial

import jax
import jax.numpy as jnp

from pegasus_zh.text.tokenizers import BERT_LAYOUT, MASK, SEP
from pegasus_zh.text.wordpieces import UNK
from retrieval.matching.alphabet import NO, YES
from retrieval.matching.batches import MatchingForm
from rope.encoder import roformer
from rope.encoder.firsts import encode_firsts
from rope.encoder.mlm import guess
from rope.encoder.program import count_tokens
from training.adversarial import Adversary
from training.optimizer import OptimizerConfig, make_optimizer
from training.program import Program
from training.step import Batch, Sums, init_state, make_train_step


def shared(ids: jax.Array, segments: jax.Array) -> jax.Array:
    """Ids and segments [R, T] of packed pairs -> int32 [R, T]: 1 where the other text of the pair has the same id.
    Marks, hidden ids and the unknown one are shared with nothing."""
    side = (ids == BERT_LAYOUT[SEP]).cumsum(1)
    pair, text, number = (x[:, :, None] == x[:, None] for x in (segments, side, ids))
    names = (ids > 0) & ((ids < BERT_LAYOUT[UNK]) | (ids > BERT_LAYOUT[MASK]))
    return ((pair & ~text & number).any(2) & names).astype(jnp.int32)


def loss(
    model: roformer.RoFormer,
    batch: Batch,
    key: jax.Array | None,
    *,
    config: roformer.RoFormerConfig,
    types: bool = False,
    pairs: int = 0,
) -> Sums:
    """Cross-entropy and accuracy of what is guessed, of a batch of retrieval.matching.batches. types: those of `shared`
    are the token types. pairs: of a row, at most, where labels alone are guessed, so that of the last layer only [CLS]
    is computed; 0: anything is guessed."""
    ids, segments, places = batch["ids"], batch["segments"], batch["places"]
    kinds = shared(ids, segments) if types else None
    if pairs:
        hidden = encode_firsts(model, ids, segments, config, pairs, types=kinds, key=key)
        of = jnp.take_along_axis(segments, jnp.maximum(places, 0), 1)
        places = jnp.where(places < 0, places, of - 1)
    else:
        hidden = roformer.encode(model, ids, segments, config, types=kinds, key=key)
    return guess(model, hidden, places, batch["labels"], batch["weights"], config)


def matching_program(
    model: roformer.RoFormerConfig,
    form: MatchingForm,
    optimizer: OptimizerConfig,
    adversary: Adversary | None = None,
    *,
    types: bool = False,
    steps: int,
    seed: int,
) -> Program:
    """types: as of `loss`. steps: where the learning rate's schedule ends."""
    tx = make_optimizer(optimizer, steps)
    return Program(
        init=partial(init_state, partial(roformer.init, model), tx, seed),
        step=make_train_step(
            partial(loss, config=model, types=types, pairs=0 if form.hidden else form.pairs), tx, adversary=adversary
        ),
        shapes=form.shapes,
        dimensions=roformer.sizes(model),
        count=count_tokens,
    )


def alike(
    model: roformer.RoFormer,
    ids: jax.Array,
    segments: jax.Array,
    config: roformer.RoFormerConfig,
    pairs: int,
    types: bool = False,
) -> jax.Array:
    """Rows [R, T] of packed pairs -> log-odds [R, pairs] of the label's words at each one's [CLS]; of a pair that is
    not there, any number."""
    kinds = shared(ids, segments) if types else None
    first = encode_firsts(model, ids, segments, config, pairs, types=kinds)
    hidden = roformer.before_logits(model, first, config).astype(jnp.float32)
    words, bias = model.embeddings.word, roformer.head_of(model).bias
    return hidden @ (words[YES] - words[NO]) + (bias[YES] - bias[NO])
