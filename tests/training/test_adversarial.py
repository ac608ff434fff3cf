"""A step against an adversary: its gradient is that at the model and that at the moved one, whatever the microbatches
and the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from training.adversarial import Adversary
from training.optimizer import OptimizerConfig, make_optimizer
from training.step import init_state, make_train_step

# Moves by the gradient, but for a factor.
PLAIN = OptimizerConfig(learning_rate=1e5, epsilon=1e5, warmup=1, weight_decay=0.0, clip=0)


def stepped(adversary: Adversary | None, microbatches: int = 1) -> tuple[dict, dict]:
    """The model before a step, and after it."""
    tx = make_optimizer(PLAIN, 10)
    state = jax.jit(lambda: init_state(toy.init, tx, 0))()
    batch = {name: jnp.asarray(x.reshape(microbatches, -1, *x.shape[1:])) for name, x in toy.batch(8, 0).items()}
    after, _ = jax.jit(make_train_step(toy.loss, tx, adversary=adversary))(state, batch)
    return jax.device_get(state.model), jax.device_get(after.model)


def names(model) -> list[str]:
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(model)]


def test_the_model_is_moved_along_its_gradient_by_epsilon_in_one_array():
    model = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([3.0])}
    moved = Adversary("a", 0.5).moved(model, {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([5.0])})
    np.testing.assert_allclose(moved["a"], [[1.3, 2.4]], rtol=1e-6)
    np.testing.assert_array_equal(moved["b"], [3.0])


def test_a_gradient_of_nothing_moves_nothing():
    model = {"a": jnp.ones(2)}
    np.testing.assert_array_equal(Adversary("a", 0.5).moved(model, {"a": jnp.zeros(2)})["a"], [1, 1])


def test_its_step_is_of_both_gradients():
    before, plain = stepped(None)
    name = names(before)[0]
    _, found = stepped(Adversary(name, 0.5))
    first = jax.tree.map(np.subtract, plain, before)
    # What the gradient of the moved model adds: computed by a step from there.
    gradient = jax.tree.map(lambda x: -x, first)
    tx = make_optimizer(PLAIN, 10)
    state = jax.jit(lambda: init_state(toy.init, tx, 0))()
    there = state.replace(model=Adversary(name, 0.5).moved(state.model, jax.tree.map(jnp.asarray, gradient)))
    batch = {key: jnp.asarray(x)[None] for key, x in toy.batch(8, 0).items()}
    after, _ = jax.jit(make_train_step(toy.loss, tx))(there, batch)
    second = jax.tree.map(np.subtract, jax.device_get(after.model), jax.device_get(there.model))
    wanted = jax.tree.map(np.add, first, second)
    got = jax.tree.map(np.subtract, found, before)
    assert max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)) > 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), got, wanted)


def test_an_unknown_parameter_is_refused_by_name():
    with pytest.raises(ValueError, match="adversary of 'nothing': the model has"):
        stepped(Adversary("nothing", 0.5))
