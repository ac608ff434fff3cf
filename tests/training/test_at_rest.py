"""Weights at rest lie cut along `data` too, and a step takes them whole."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import test_mesh, toy
from training.at_rest import as_accumulated, collect, spread
from training.checkpoints import Checkpoints
from training.loop import LoopConfig, to_mesh, train
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import abstract, normal, ones
from training.step import init_state, trace_step


def model(shape: tuple[int, ...] = (4, 16, 8)) -> dict[str, jax.Array]:
    names = (None,) * (len(shape) - 2) + ("embed", "mlp")
    return {"kernel": normal(jax.random.key(0), shape, names, 1.0), "norm": ones((4, 8))}


@pytest.mark.parametrize(
    ("sizes", "shape", "spec"),
    [
        ((4, 1, 2), (4, 16, 8), ("data", "fsdp", "tensor")),
        ((8, 1, 1), (4, 16, 8), (None, ("fsdp", "data"), "tensor")),  # eight do not divide four layers
        ((4, 2, 1), (3, 16, 8), (None, ("fsdp", "data"), "tensor")),
        ((8, 1, 1), (3, 12, 8), (None, "fsdp", ("tensor", "data"))),  # the last dimension, for want of another
        ((8, 1, 1), (3, 12, 12), (None, "fsdp", "tensor")),  # none
        ((1, 2, 4), (4, 16, 8), (None, "fsdp", "tensor")),
        ((2, 2, 1, 2), (4, 16, 8), ("data", "fsdp", "tensor")),  # each replica has all of it
    ],
)
def test_a_weight_is_cut_along_its_first_dimension_that_divides(sizes, shape, spec):
    with jax.set_mesh(test_mesh.mesh_of(*sizes)):
        made = jax.jit(lambda: model(shape))()
        rest = jax.jit(spread)(made)
        assert rest["kernel"].sharding.spec == jax.P(*spec)
        assert rest["norm"].sharding.is_fully_replicated
        assert jax.jit(spread)(rest)["kernel"].sharding == rest["kernel"].sharding
        back = jax.jit(collect)(rest)
    for name, x in back.items():
        assert x.sharding == made[name].sharding
        np.testing.assert_array_equal(x, made[name])


def test_weights_are_collected_in_the_type_of_products_and_norms_in_their_own():
    made = model()
    with jax.set_mesh(test_mesh.mesh_of(4, 2, 1)):
        rest = jax.jit(lambda: spread(model()))()
        found = jax.jit(lambda x: collect(x, jnp.bfloat16))
        text = found.lower(rest).as_text()
        types = {name: x.dtype for name, x in found(rest).items()}
    assert types == {name: x.dtype for name, x in collect(made, jnp.bfloat16).items()}
    assert types == {"kernel": jnp.bfloat16, "norm": jnp.float32}
    assert collect(made) == made and spread(made) == made  # without a mesh
    cast, gathered = (re.search(what, text) for what in (r"stablehlo\.convert", r"sdy\.sharding_constraint .*bf16"))
    assert cast and gathered and cast.start() < gathered.start()


def test_gradients_add_up_in_float32_each_devices_part():
    with jax.set_mesh(test_mesh.mesh_of(4, 2, 1)):
        once = jax.jit(lambda: as_accumulated(collect(model(), jnp.bfloat16)))()
        twice = jax.jit(as_accumulated)(once)
        like = jax.jit(lambda: spread(model()))()
    for name, x in once.items():
        assert x.dtype == jnp.float32 and x.sharding == like[name].sharding == twice[name].sharding
        np.testing.assert_array_equal(x, twice[name])


def test_every_part_of_the_state_is_as_small_as_its_devices_are_many():
    tx = make_optimizer(OptimizerConfig(), 10)
    with jax.set_mesh(test_mesh.mesh_of(4, 2, 1)):
        state = abstract(lambda: init_state(toy.init, tx, 0))
    for x in [x for x in jax.tree.leaves(state) if x.size >= toy.WIDTH * toy.INNER]:
        assert np.prod(x.sharding.shard_shape(x.shape)) == x.size // 8


def test_a_step_returns_what_it_was_given():
    """Else it would be compiled a second time."""
    tx = make_optimizer(OptimizerConfig(), 10)
    program, mesh = toy.training(LoopConfig(batch_size=16), tx).program, test_mesh.mesh_of(4, 2, 1)
    with jax.set_mesh(mesh):
        state = abstract(program.init)
        traced = trace_step(program.step, state, to_mesh(toy.batch(16, 0), mesh, 2))
    found = [x.aval if hasattr(x, "aval") else x for x in jax.tree.leaves(traced.out_info[0])]
    for given, made in zip(jax.tree.leaves(state), found, strict=True):
        assert (given.shape, given.dtype, given.sharding.spec) == (made.shape, made.dtype, made.sharding.spec)


@pytest.mark.parametrize("first", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 1, 2)])
def test_a_run_goes_on_on_another_mesh(tmp_path, first):
    """What lay cut on one mesh lies as another has it, and the model that is returned is whole."""
    tx = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup=1), 4)

    def run(steps: int, sizes: tuple[int, ...], folder: str):
        config = LoopConfig(batch_size=16, steps=steps, eval_every=10, save_every=10)
        return train(toy.training(config, tx), config, test_mesh.mesh_of(*sizes), tmp_path / folder).state

    run(2, first, "moved")
    moved, alone = run(4, (2, 2, 2), "moved"), run(4, (1, 1, 1), "alone")
    assert all("data" not in str(x.sharding.spec) for x in jax.tree.leaves(moved.model))
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # noqa: E731
    jax.tree.map(same, jax.tree.map(np.asarray, moved.model), jax.tree.map(np.asarray, alone.model))
    with Checkpoints(tmp_path / "moved" / "checkpoints", keep=None) as kept:
        assert kept.steps == [2, 4]
