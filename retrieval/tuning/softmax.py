"""An encoder tuned by labelled pairs: a softmax over [u, v, |u - v|] of a pair's vectors (Reimers and Gurevych 2019,
arXiv 1908.10084, section 3), whose labels may be of several groups (RoFormer-Sim-FT, https://kexue.fm/archives/8541).

The columns of other groups than a pair's own are hidden from its softmax, so that "not alike" need not be neutral,
nor contradiction. Letters: B examples, D dimensions, K labels of all groups.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from retrieval.tuning.batches import Form
from retrieval.tuning.contrastive import ITSELF, cross_entropy
from retrieval.tuning.labels import Groups
from retrieval.tuning.program import sentence_vectors
from retrieval.vectors.pooling import Pooling
from rope.encoder import roformer
from rope.encoder.program import count_tokens
from rope.layers.transformer import STD
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import normal
from training.program import Program
from training.step import Batch, Sums, init_state, make_train_step

ENCODER = "encoder"  # the field of a checkpoint's model that is loaded


@struct.dataclass
class Classifier:
    encoder: roformer.RoFormer
    kernel: jax.Array  # [3 D, K]


def init(config: roformer.RoFormerConfig, groups: Groups, key: jax.Array) -> Classifier:
    """Of random parameters."""
    first, second = jax.random.split(key)
    return Classifier(encoder=roformer.init(config, first), kernel=init_kernel(config, groups, second))


def init_kernel(config: roformer.RoFormerConfig, groups: Groups, key: jax.Array) -> jax.Array:
    """N(0, 0.02²), [3 D, K]."""
    return normal(key, (3 * config.width, sum(map(len, groups))), (None, None), STD)


def begin(encoder: roformer.RoFormer, config: roformer.RoFormerConfig, groups: Groups, seed: int) -> Classifier:
    """An encoder that is there, with random columns; arrays of the host."""
    return Classifier(encoder=encoder, kernel=jax.device_get(init_kernel(config, groups, jax.random.key(seed))))


def softmax(kernel: jax.Array, vectors: jax.Array, labels: jax.Array, groups: Groups) -> Sums:
    """Cross entropy and accuracy of the columns `labels` [B] of pairs' vectors [B, 2, D]."""
    u, v = vectors[:, 0], vectors[:, 1]
    logits = jnp.einsum("BF,FK->BK", jnp.concatenate([u, v, jnp.abs(u - v)], -1), kernel)
    group = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    target = labels[:, None] == jnp.arange(len(group))[None]
    own = jnp.einsum("BK,KL->BL", target.astype(jnp.float32), (group[:, None] == group).astype(np.float32)) > 0
    return cross_entropy(jnp.where(own, logits, -ITSELF), target)


def loss(
    model: Classifier,
    batch: Batch,
    key: jax.Array | None,
    *,
    config: roformer.RoFormerConfig,
    groups: Groups,
    pooling: Pooling,
) -> Sums:
    """That of a microbatch of packed pairs (see retrieval.tuning.batches)."""
    vectors = sentence_vectors(model.encoder, batch, config, pooling, key)
    return softmax(model.kernel, vectors, batch["scores"], groups)


def softmax_program(
    model: roformer.RoFormerConfig,
    groups: Groups,
    pooling: Pooling,
    form: Form,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    seed: int,
) -> Program:
    """A pair is compared with no other, so gradients are sums over microbatches. steps: where the schedule ends."""
    tx = make_optimizer(optimizer, steps)

    return Program(
        init=partial(init_state, partial(init, model, groups), tx, seed),
        step=make_train_step(partial(loss, config=model, groups=groups, pooling=pooling), tx),
        shapes=form.shapes,
        dimensions=roformer.sizes(model),
        count=count_tokens,
    )
