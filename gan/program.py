"""A GAN as a program of the engine: one step is `n_critic` updates of the critic and one of the generator,
over a mesh."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gan.critic import precise
from gan.trainer import Gan, Recipe
from training.partition import spec
from training.program import Program
from training.step import Batch, Sums, TrainState


def gan_program(recipe: Recipe, seed: int) -> Program:
    """Batches are {"images": float32 [rows, n_critic + 1, D]}, a row of them for each update.
    Weights are whole on each device."""
    shape = (recipe.n_critic + 1, recipe.generator.size)
    return Program(
        init=partial(init, recipe, seed),
        step=partial(step, recipe),
        evaluate=partial(evaluate, recipe),
        shapes=lambda rows: {"images": jax.ShapeDtypeStruct((rows, *shape), np.float32)},
        dimensions={},
    )


@precise
def init(recipe: Recipe, seed: int) -> TrainState:
    first, second = jax.random.split(jax.random.key(seed, impl="rbg"))
    return TrainState(step=jnp.zeros((), jnp.int32), model=recipe.init(first), optimizer=(), key=second)


def by_compiler(run: Callable) -> Callable:
    """Convolutions, sorting and transports over the batch are no place to write shardings: the compiler finds them."""
    return run if spec() is None else jax.sharding.auto_axes(run, out_sharding=PartitionSpec())


@precise
def step(recipe: Recipe, state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
    """One of the generator and n_critic of the critic; batch [1, rows, updates, D]."""

    def run(gan: Gan, real: jax.Array, key: jax.Array) -> tuple[Gan, Sums]:
        gan, readings = recipe.step(gan, real[0].swapaxes(0, 1), key)
        loss = readings.get("objective", readings["kr"])
        return gan, {"loss": (loss, jnp.ones(())), "kr": (readings["kr"], jnp.ones(()))}

    key = jax.random.fold_in(state.key, state.step)
    gan, sums = by_compiler(run)(state.model, batch["images"], key)
    return replace(state, step=state.step + 1, model=gan), sums


@precise
def evaluate(recipe: Recipe, gan: Gan, batch: Batch) -> Sums:
    """What the critic takes for the distance between held-out images and generated ones."""

    def run(gan: Gan, real: jax.Array) -> Sums:
        made = recipe.generator.sample(gan.average, jax.random.key(0), len(real))
        readings = recipe.critic.read(recipe.critic.settle(gan.critic), real, made)
        return {"loss": (readings.get("objective", readings["kr"]), jnp.ones(()))}

    return by_compiler(run)(gan, batch["images"])
