"""The training of an encoder by masked language model, over rows of ids."""

from functools import partial

import numpy as np

from rope.encoder import mlm, roformer
from training.optimizer import OptimizerConfig, make_optimizer
from training.program import HostBatch, Program, int32, program_of_loss


def mlm_program(
    model: roformer.RoFormerConfig,
    vocabulary: mlm.Vocabulary,
    length: int,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    seed: int = 0,
) -> Program:
    """Rows of `length`. steps: where the learning rate's schedule ends."""
    return program_of_loss(
        partial(roformer.init, model),
        partial(mlm.loss, config=model, vocabulary=vocabulary),
        make_optimizer(optimizer, steps),
        seed,
        shapes=lambda rows: int32(ids=(rows, length), segments=(rows, length)),
        dimensions=roformer.sizes(model),
        flops_per_row=mlm.flops_per_row(model, length),
        count=count_tokens,
    )


def count_tokens(batch: HostBatch) -> tuple[int, int]:
    """(real tokens, positions) of a batch."""
    return int(np.count_nonzero(batch["segments"])), batch["segments"].size
