"""The tuning of an encoder by a loss over the vectors of a whole batch."""

from functools import partial

import jax

from retrieval.tuning.batches import Form
from retrieval.tuning.contrastive import LOSSES, Loss, cached_gradients
from retrieval.vectors.encoding import texts_of
from retrieval.vectors.pooling import Pooling, embed
from rope.encoder import roformer
from rope.encoder.program import count_tokens
from rope.positions.angles import rows_of
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import replicate, spec
from training.program import Program
from training.step import Batch, Sums, init_state, update_step


def contrastive_program(
    model: roformer.RoFormerConfig,
    loss: Loss,
    pooling: Pooling,
    form: Form,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    seed: int,
    scale: float,
) -> Program:
    """Gradients are those of one batch, whatever the microbatches: it is no sum over them. steps:
    where the schedule ends."""
    tx = make_optimizer(optimizer, steps)

    def vectors(arrays: roformer.RoFormer, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        return sentence_vectors(arrays, batch, model, pooling, key), {}

    return Program(
        init=partial(init_state, partial(roformer.init, model), tx, seed),
        step=update_step(cached_gradients(vectors, partial(LOSSES[loss], scale=scale)), tx),
        shapes=form.shapes,
        dimensions=roformer.sizes(model),
        count=count_tokens,
    )


def sentence_vectors(
    model: roformer.RoFormer, batch: Batch, config: roformer.RoFormerConfig, pooling: Pooling, key: jax.Array | None
) -> jax.Array:
    """A microbatch's rows [R, T] of packed sentences, and the places [B, S] of each example's -> vectors [B, S, D]."""
    ids, segments, places = (batch[name] for name in ("ids", "segments", "places"))
    texts = texts_of(ids.shape[1])
    return at_places(embed(model, ids, segments, config, [pooling], texts, key), places)


def at_places(found: jax.Array, places: jax.Array) -> jax.Array:
    """Vectors [R, S, 1, D] of all texts of rows -> [B, S, D], the examples', by their places [B, S] among all."""
    flat = jax.lax.reshape(found, (found.shape[0] * found.shape[1], found.shape[-1]), out_sharding=spec("batch", None))
    return rows_of(replicate(flat), places, spec("batch", None, None))
