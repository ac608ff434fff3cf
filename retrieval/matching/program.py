"""The training of a matching encoder: hidden tokens and the label's word, by one softmax over the vocabulary."""

from functools import partial

import jax
import jax.numpy as jnp

from retrieval.matching.alphabet import NO, YES
from retrieval.matching.batches import MatchingForm
from retrieval.vectors.pooling import embed
from rope.encoder import roformer
from rope.encoder.mlm import guess
from rope.encoder.program import count_tokens
from training.adversarial import Adversary
from training.optimizer import OptimizerConfig, make_optimizer
from training.program import Program
from training.step import Batch, Sums, init_state, make_train_step


def loss(model: roformer.RoFormer, batch: Batch, key: jax.Array | None, *, config: roformer.RoFormerConfig) -> Sums:
    """Cross-entropy and accuracy of what is guessed, of a batch of retrieval.matching.batches."""
    hidden = roformer.encode(model, batch["ids"], batch["segments"], config, key=key)
    return guess(model, hidden, batch["places"], batch["labels"], batch["weights"], config)


def matching_program(
    model: roformer.RoFormerConfig,
    form: MatchingForm,
    optimizer: OptimizerConfig,
    adversary: Adversary | None = None,
    *,
    steps: int,
    seed: int,
) -> Program:
    """steps: where the learning rate's schedule ends."""
    tx = make_optimizer(optimizer, steps)
    return Program(
        init=partial(init_state, partial(roformer.init, model), tx, seed),
        step=make_train_step(partial(loss, config=model), tx, adversary=adversary),
        shapes=form.shapes,
        dimensions=roformer.sizes(model),
        count=count_tokens,
    )


def alike(
    model: roformer.RoFormer, ids: jax.Array, segments: jax.Array, config: roformer.RoFormerConfig, pairs: int
) -> jax.Array:
    """Rows [R, T] of packed pairs -> log-odds [R, pairs] of the label's words at each one's [CLS]; of a pair that is
    not there, any number."""
    first = embed(model, ids, segments, config, ["cls"], pairs)[:, :, 0].astype(config.dtype)
    hidden = roformer.before_logits(model, first, config).astype(jnp.float32)
    words, bias = model.embeddings.word, roformer.head_of(model).bias
    return hidden @ (words[YES] - words[NO]) + (bias[YES] - bias[NO])
