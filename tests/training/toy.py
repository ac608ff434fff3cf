"""A small model with everything the engine treats in its own way, and data that is a function of the step.

Its matrices are just large enough for Adafactor to factor their moments. Each token is to give the next token of a
fixed permutation of the vocabulary: learnable within tens of steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from rope.layers.dropout import dropout
from training.loop import LoopConfig, Training
from training.mesh import Share
from training.partition import gather, normal, ones, spec
from training.program import Data, HostBatch, Program, int32
from training.step import Batch, Sums, init_state, make_train_step

VOCABULARY, WIDTH, INNER, LAYERS, LENGTH = 128, 128, 128, 3, 6


@struct.dataclass
class Block:
    norm: jax.Array  # [L, D]
    up: jax.Array  # [L, D, F]
    down: jax.Array  # [L, F, D]


@struct.dataclass
class Toy:
    embedding: jax.Array  # [V, D]
    blocks: Block
    bias: jax.Array  # [V]


def init(key: jax.Array) -> Toy:
    embedding, up, down, bias = jax.random.split(key, 4)
    return Toy(
        embedding=normal(embedding, (VOCABULARY, WIDTH), ("vocab", "embed"), 0.3),
        blocks=Block(
            norm=ones((LAYERS, WIDTH)),
            up=normal(up, (LAYERS, WIDTH, INNER), (None, "embed", "mlp"), WIDTH**-0.5),
            down=normal(down, (LAYERS, INNER, WIDTH), (None, "mlp", "embed"), INNER**-0.5),
        ),
        bias=normal(bias, (VOCABULARY,), ("vocab",), 0.1),
    )


def loss(model: Toy, batch: Batch, key: jax.Array | None, *, rate: float = 0.1) -> Sums:
    table = gather(model.embedding, "vocab", "embed")
    x = table.at[batch["ids"]].get(out_sharding=spec("batch", None, None))

    def layer(x, inputs):
        block, key = inputs
        hidden = jnp.einsum("BTD,DF->BTF", x * block.norm[None, None], gather(block.up, "embed", "mlp"))
        out = dropout(jax.nn.gelu(hidden), rate, key)
        down = gather(block.down, "mlp", "embed")
        return x + jnp.einsum("BTF,FD->BTD", out, down, out_sharding=spec("batch", None, None)), None

    keys = jax.random.split(key, LAYERS) if key is not None else None
    x, _ = jax.lax.scan(layer, x, (model.blocks, keys))
    logits = jnp.einsum("BTD,VD->BTV", x, table) + model.bias[None, None]
    onehot = jax.nn.one_hot(batch["labels"], VOCABULARY, dtype=jnp.float32)
    logits = jax.reshard(logits, spec("batch", None, None)) if spec() is not None else logits
    entropy = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(logits * onehot, axis=-1)
    weights = batch["weights"]
    total = jnp.sum(entropy * weights)
    return {"loss": (total, weights.sum()), "cross_entropy": (total, weights.sum())}


def batch(size: int, step: int, seed: int = 0) -> HostBatch:
    """Rows of weights 0 and 1, so that microbatches weigh differently."""
    random = np.random.default_rng((seed, step))
    ids = random.integers(0, VOCABULARY, (size, LENGTH), dtype=np.int32)
    weights = (random.random((size, LENGTH)) < random.random((size, 1))).astype(np.float32)
    return {"ids": ids, "labels": (ids * 5 + 3) % VOCABULARY, "weights": weights}


@dataclass(frozen=True)
class Rows:
    """Batches of `size` rows, of which this process gets its share; counts how often they were asked for."""

    size: int
    asked: list[int]

    def share(self, step: int, share: Share) -> HostBatch:
        return {name: share.of(x) for name, x in batch(self.size, step).items()}

    def train(self, first: int, share: Share) -> Iterator[HostBatch]:
        self.asked.append(first)
        while True:
            yield self.share(first, share)
            first += 1

    def held_out(self, share: Share) -> list[HostBatch]:
        return [self.share(10**6 + n, share) for n in range(2)]


def training(config: LoopConfig, tx: optax.GradientTransformation, *, init=init, loss=loss, **changes) -> Training:
    """changes: of any field of the training, its program or its data."""
    rows = Rows(config.batch_size, [])
    program = {
        "init": partial(init_state, init, tx, config.seed),
        "step": make_train_step(loss, tx),
        "evaluate": lambda model, batch: loss(model, batch, None),
        "shapes": lambda rows: int32(ids=(rows, LENGTH), labels=(rows, LENGTH)),
        "dimensions": {"inner": ("mlp", INNER)},
        "count": lambda host: (np.count_nonzero(host["weights"]), host["weights"].size),
        "flops_per_row": 1000,
    }
    data = {"train": rows.train, "heldout": rows.held_out, "identity": {"data": "toy"}}
    of = [{name: changes.pop(name) for name in part if name in changes} for part in (program, data)]
    return Training(
        program=Program(**program | of[0]), data=Data(**data | of[1]), **{"about": {"model": "toy"}} | changes
    )
