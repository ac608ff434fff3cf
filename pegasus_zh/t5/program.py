"""The training of an mT5 on packed rows of (source, target):
pretraining, fine-tuning, and what is planned or measured of them."""

from functools import partial

import jax.numpy as jnp

from pegasus_zh.t5 import mt5
from pegasus_zh.t5.objective import batch_shapes, count_tokens, loss
from training.optimizer import OptimizerConfig, make_optimizer
from training.program import Program, int32, program_of_loss


def t5_program(
    model: mt5.MT5Config,
    shape: tuple[int, int],
    optimizer: OptimizerConfig,
    *,
    steps: int,
    seed: int = 0,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Program:
    """Rows of shape (S, T). steps: where the learning rate's schedule ends."""
    return program_of_loss(
        partial(mt5.init, model),
        partial(loss, config=model, smoothing=smoothing, z_loss=z_loss),
        make_optimizer(optimizer, steps),
        seed,
        jnp.dtype(model.dtype),
        shapes=lambda rows: int32(**batch_shapes(rows, *shape)),
        dimensions=mt5.sizes(model),
        flops_per_row=mt5.flops_per_row(model, *shape),
        count=count_tokens,
    )
