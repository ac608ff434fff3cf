"""What a training is, as a value: all that is compiled, apart from the data, the folder and what is told on the way.

One builder a training (pegasus_zh/t5/program.py, rope/encoder/program.py, retrieval/tuning/program.py, joint_program.py
and softmax.py, retrieval/matching/program.py, gan/program.py) makes it; the run, the plan for a TPU that is not here,
the benchmarks and the tests are made of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from training.mesh import Share
from training.partition import check_divisible
from training.step import Batch, LossFn, Step, Sums, TrainState, init_state, make_train_step

HostBatch = dict[str, np.ndarray]
Shapes = Mapping[str, jax.ShapeDtypeStruct]
Dimensions = Mapping[str, tuple[str, int]]  # what a person calls a dimension -> (its logical name, its size)


@dataclass(frozen=True, kw_only=True)
class Program:
    init: Callable[[], TrainState]  # step 0; traced
    step: Step  # see training.step.make_train_step
    evaluate: Callable[[Any, Batch], Sums] | None = None  # (model, batch) -> sums; None: evaluated by `review` alone
    shapes: Callable[[int], Shapes]  # rows of a microbatch -> its arrays
    dimensions: Dimensions  # of the model, that a mesh cuts
    flops_per_row: int = 0  # of a training step, by the model's own convention
    count: Callable[[HostBatch], tuple[int, int]] | None = None  # host batch -> (real tokens, positions)

    def check(self, mesh: jax.sharding.Mesh, rows: int) -> None:
        """Raises ValueError for a dimension, or `rows` of a microbatch, that the mesh cannot cut evenly."""
        check_divisible(mesh, {"batch_size / accumulate": ("batch", rows), **self.dimensions})


def program_of_loss(
    init: Callable[[jax.Array], Any],
    loss: LossFn,
    tx: optax.GradientTransformation,
    seed: int,
    dtype: jnp.dtype | None = None,
    **rest: Any,
) -> Program:
    """The usual one: `init` makes the model of a key, and optax minimises `loss`, which takes the weights in `dtype`
    (see training.step). rest: the other fields."""
    return Program(
        init=lambda: init_state(init, tx, seed),
        step=make_train_step(loss, tx, dtype),
        evaluate=lambda model, batch: loss(model, batch, None),
        **rest,
    )


def int32(**shapes: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch by name, all int32."""
    return {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}


@dataclass(frozen=True, kw_only=True)
class Data:
    """Batches by step number, this process's rows of each, so that the position in the data is the step number."""

    train: Callable[[int, Share], Iterator[HostBatch]]  # (first step, share) -> that batch and all later
    heldout: Callable[[Share], Iterable[HostBatch]] = lambda share: ()  # the held-out batches
    identity: Mapping[str, Any]  # of data and start: what may not change when a run is resumed
