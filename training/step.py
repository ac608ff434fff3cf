"""The training step: gradients of `loss_fn(model, batch, key)`, accumulated, given to optax, in one compiled program.

A loss function returns `{name: (sum, weight)}`, `loss` being what is minimised: sums, not means, so that
accumulated microbatches, shards and evaluation batches of unequal weight all add up to the same mean.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from training.adversarial import Adversary
from training.at_rest import as_accumulated, collect, spread
from training.partition import on_one_cpu, spec

Batch = dict[str, jax.Array]
Sums = dict[str, tuple[jax.Array, jax.Array]]
LossFn = Callable[[Any, Batch, jax.Array | None], Sums]  # (model, batch, key), dropout without a key is off


@struct.dataclass
class TrainState:
    """Everything that a resumed run needs: its step number is also its position in the data."""

    step: jax.Array
    model: Any
    optimizer: Any
    key: jax.Array


def init_state(init: Callable[[jax.Array], Any], tx: optax.GradientTransformation, seed: int) -> TrainState:
    """Step 0, each array born in its shards; call it under `jax.jit` (or `jax.eval_shape`) and a mesh."""
    # rbg: threefry takes a tenth of a CPU step and more of a TPU's; rbg gives the same bits on every mesh too.
    init_key, dropout_key = jax.random.split(jax.random.key(seed, impl="rbg"))
    model = spread(init(init_key))
    state = TrainState(step=jnp.zeros((), jnp.int32), model=model, optimizer=tx.init(model), key=dropout_key)
    if spec() is None:
        return state
    # Counters made without a mesh have another type than those a step returns: the step would compile twice.
    return jax.tree.map(lambda x: x if x.ndim else jax.reshard(x, spec()), state)


Step = Callable[[TrainState, Batch], tuple[TrainState, Sums]]
Gradients = Callable[
    [Any, Batch, jax.Array], tuple[Sums, Any]
]  # (model, batch of microbatches, a key for each) -> sums, their gradient


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    dtype: jnp.dtype | None = None,
    adversary: Adversary | None = None,
) -> Step:
    """The step over a batch of shape (microbatches, rows, ...): one update from the mean over all of it.

    dtype: in which the loss function takes the weights, by default their own; one that casts them all to it anyway is
    spared that in every layer and pass. adversary: gradients at the model that it has moved are added, microbatch by
    microbatch. Returns the new state and the sums of the loss function, with the norms of gradient and update under
    `gradient_norm` and `update_norm`.
    """

    def one(model: Any, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        def objective(model):
            sums = loss_fn(model, batch, key)
            return sums["loss"][0], sums

        (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(model)
        if adversary:
            against, _ = jax.grad(objective, has_aux=True)(adversary.moved(model, grads))
            grads = jax.tree.map(jnp.add, grads, against)
        return sums, as_accumulated(grads)

    def accumulated(model: Any, batch: Batch, keys: jax.Array) -> tuple[Sums, Any]:
        first = jax.tree.map(lambda x: x[0], (batch, keys))
        if len(keys) == 1:
            return one(model, *first)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, model, *first))
        add = lambda total, part: (jax.tree.map(jnp.add, total, one(model, *part)), None)  # noqa: E731
        return jax.lax.scan(add, zeros, (batch, keys))[0]

    return update_step(accumulated, tx, dtype)


def update_step(gradients: Gradients, tx: optax.GradientTransformation, dtype: jnp.dtype | None = None) -> Step:
    """The step of `make_train_step` for gradients that are no sum over microbatches."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), len(next(iter(batch.values()))))
        sums, grads = gradients(collect(state.model, dtype), batch, keys)
        weight = jnp.maximum(sums["loss"][1], 1)
        # Those of make_train_step are so already, each microbatch as it is added; others are as their maker left them.
        grads = jax.tree.map(lambda g: g / weight, as_accumulated(grads))
        with jax.named_scope("optimizer"):
            updates, optimizer = tx.update(grads, state.optimizer, state.model)
            sums["gradient_norm"], sums["update_norm"] = ((optax.tree.norm(x), jnp.ones(())) for x in (grads, updates))
            model = optax.apply_updates(state.model, updates)
        return replace(state, step=state.step + 1, model=model, optimizer=optimizer), sums

    return step


def skipping(step: Step, spike: float | None = None) -> Step:
    """The same step, but that one whose sums are not all numbers, or whose gradient's norm is above `spike`, leaves
    model and optimizer as they were: its number is gone by, and so are its data. `skipped` among the sums says so.

    The norms of gradient and update are among those sums, so no array need be looked through.
    """

    def guarded(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        after, sums = step(state, batch)
        sound = functools.reduce(jnp.logical_and, (jnp.isfinite(total) for total, _ in sums.values()))
        if spike is not None and "gradient_norm" in sums:
            sound &= sums["gradient_norm"][0] <= spike
        before = replace(state, step=after.step)
        after = jax.tree.map(lambda new, old: jax.lax.select(sound, new, old), after, before)
        return after, sums | {"skipped": (1.0 - sound.astype(jnp.float32), jnp.ones(()))}

    return guarded


def compile_step(
    step: Step, state: TrainState, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> jax.stages.Compiled:
    """The step compiled for this state and batch (arrays, or their shapes and shardings); it donates the state.

    Compiled ahead, so a second shape is an error rather than a second compilation.
    """
    return trace_step(step, state, batch).lower().compile(compiler_options=compiler_options())


def trace_step(
    step: Step, state: TrainState, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> jax.stages.Traced:
    """What `compile_step` compiles, once it is lowered."""
    return jax.jit(step, donate_argnums=0).trace(state, batch)


def compiler_options() -> dict[str, str | bool]:
    """For what is computed where the current mesh is.

    On one CPU without XLA's YNNPACK fusions: they sum the bias gradient over a batch 30 times slower than plain XLA
    (jax 0.10.2 and 0.12).
    """
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if on_one_cpu() else {}
