"""The step: no hidden promotions; a finite mean whatever the weights."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pegasus_zh.t5 import mt5, objective
from tests.training import test_mesh, toy
from training.optimizer import OptimizerConfig, make_optimizer
from training.step import TrainState, compile_step, init_state, make_train_step


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_promotes_no_type_silently(dtype):
    """Everything a loss computes has the type that its code says
    (optax does rely on promotion, and is not part of this)."""
    config = replace(test_mesh.MODEL, dtype=dtype)
    loss = partial(objective.loss, config=config, smoothing=0.1, z_loss=1e-4)
    batch = jax.tree.map(jnp.asarray, test_mesh.t5_batch(0))
    with jax.numpy_dtype_promotion("strict"):
        model = jax.eval_shape(partial(mt5.init, config), jax.random.key(0))
        gradients = jax.eval_shape(jax.grad(lambda m, key: loss(m, batch, key)["loss"][0]), model, jax.random.key(1))
        jax.eval_shape(lambda m: loss(m, batch, None), model)
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


def test_another_shape_is_an_error_rather_than_a_second_compilation():
    state, step = compiled()
    with pytest.raises(TypeError, match="for which this computation was compiled"):
        step(state, {name: x[:, :2] for name, x in microbatches(toy.batch(4, 0)).items()})


def test_a_batch_without_weight_moves_nothing_but_the_step():
    """An epoch's rows may all be empty in one microbatch, or in all."""
    state, step = compiled()
    before = jax.tree.map(np.asarray, state.model)
    batch = toy.batch(4, 0)
    after, sums = step(state, microbatches(batch | {"weights": np.zeros_like(batch["weights"])}))
    assert int(after.step) == 1 and float(sums["gradient_norm"][0]) == 0
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, after.model), before)


def microbatches(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(x)[None] for name, x in batch.items()}


def compiled() -> tuple[TrainState, jax.stages.Compiled]:
    """The toy's step on one device, without a mesh."""
    tx = make_optimizer(OptimizerConfig(weight_decay=0.0), 10)
    state = jax.jit(lambda: init_state(toy.init, tx, 0))()
    return state, compile_step(make_train_step(toy.loss, tx), state, microbatches(toy.batch(4, 0)))
