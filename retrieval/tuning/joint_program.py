"""SimBERT's and RoFormer-Sim's training: one encoder that finds what is alike and writes it (Su,
https://kexue.fm/archives/8454 and 8541).

Letters: R rows of a microbatch, T positions, B examples, S texts of a row or an example, D dimensions.
"""

from dataclasses import dataclass
from functools import partial

import jax

from retrieval.tuning.contrastive import SCALE, alike, cached_gradients, distillation, sums_of
from retrieval.tuning.program import at_places
from retrieval.tuning.question_batches import QuestionForm
from retrieval.vectors.encoding import texts_of
from retrieval.vectors.pooling import pooled
from rope.encoder import prefix_lm, roformer
from rope.encoder.program import count_tokens
from rope.layers.masks import segment_positions
from training.optimizer import OptimizerConfig, make_optimizer
from training.program import Program
from training.ranges import check_ranges
from training.step import Batch, Sums, init_state, update_step


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised: a sum of means."""

    vectors: float = 1.0
    """Weight of the loss of vectors: each text is to find the other of its pair in the batch, or, with a teacher, all
    cosines are to be its."""
    writing: float = 1.0
    """Weight of the loss of writing the other text."""
    scale: float = SCALE
    """Of the cosines: 1 / temperature."""

    def __post_init__(self):
        check_ranges(self, vectors=0, writing=0, scale=0)
        if not (self.vectors or self.writing) or not self.scale:
            raise ValueError(
                f"weights of vectors {self.vectors:g} and of writing {self.writing:g}, scale {self.scale:g}: one of "
                "the weights, and the scale, must be above 0"
            )


def joint_program(
    model: roformer.RoFormerConfig,
    objective: Objective,
    form: QuestionForm,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    seed: int,
) -> Program:
    """Gradients are those of one batch, whatever the microbatches. steps: where the schedule ends."""
    tx = make_optimizer(optimizer, steps)
    loss = distillation if form.teacher else partial(alike, scale=objective.scale)
    embed, weights = partial(vectors_and_writing, config=model), (objective.vectors, objective.writing)
    return Program(
        init=partial(init_state, partial(roformer.init, model), tx, seed),
        step=update_step(cached_gradients(embed, loss, weights), tx),
        evaluate=lambda arrays, batch: sums_of(embed, loss, weights)(arrays, batch, None),
        shapes=form.shapes,
        dimensions=roformer.sizes(model),
        count=count_tokens,
    )


def vectors_and_writing(
    model: roformer.RoFormer, batch: Batch, key: jax.Array | None, config: roformer.RoFormerConfig
) -> tuple[jax.Array, Sums]:
    """A microbatch of retrieval.tuning.question_batches -> vectors [B, 2, D] of its sources, by the pooler, and the
    language model's sums over its targets, of the same forward pass."""
    ids, segments, types = (batch[name] for name in ("ids", "segments", "types"))
    hidden = prefix_lm.states(model, ids, segments, types, config, key)
    texts = texts_of(ids.shape[1])
    found = pooled(model, hidden, {}, segments, segment_positions(segments), config, ["pooler"], texts)
    own = prefix_lm.loss(model, hidden, batch["targets"], batch["labels"], config)
    return at_places(found, batch["places"]), {name: own[name] for name in ("loss", "accuracy")}
