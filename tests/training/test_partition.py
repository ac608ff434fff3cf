"""Parameters and the optimizer's moments lie on the devices as the table says."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from pegasus_zh.t5 import mt5
from tests.training import toy
from training.loop import LoopConfig
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import abstract, gather, normal, on_one_cpu, ones, spec, weights

MODEL = mt5.MT5Config(vocabulary=512, width=128, feed_forward=256, heads=4, head_size=64, layers=2)
WHOLE = {"query": 3, "key": 3, "value": 3, "gate": 3, "linear": 3}


def expected(name: str) -> tuple:
    """How a T5 parameter of this name is cut:
    model dimension over `fsdp`, heads, feed-forward, vocabulary over `tensor`, the first that divides over `data`."""
    last = name.rsplit("/", 1)[-1]
    if "norm" in last:
        return (None,) * (1 if last == "final_norm" else 2)
    if last in ("query", "key", "value", "gate", "linear"):
        return ("data", "fsdp", "tensor")
    return {
        "output": ("data", "tensor", "fsdp"),
        "relative_bias": (None, "tensor"),
        "embedding": (("tensor", "data"), "fsdp"),
        "head": (("fsdp", "data"), "tensor"),
    }[last]


def leaves(tree) -> dict[str, jax.Array]:
    paths = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}


def state_of(optimizer: str):
    tx = make_optimizer(OptimizerConfig(optimizer=optimizer), 10)
    program = toy.training(LoopConfig(), tx, init=partial(mt5.init, MODEL)).program
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        return jax.jit(program.init)(), abstract(program.init)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_parameters_and_moments_are_cut_as_the_table_says(optimizer):
    state, abstract = state_of(optimizer)
    names = leaves(abstract.model)
    for name, x in leaves(state.model).items():
        assert x.sharding.spec == PartitionSpec(*expected(name)), name
        assert x.sharding == names[name].sharding
        parts = 2 ** sum(len(axes) if isinstance(axes, tuple) else axes is not None for axes in expected(name))
        assert {shard.data.size for shard in x.addressable_shards} == {x.size // parts}, name
    moments = 0
    for name, x in leaves(state.optimizer).items():
        owner = next((p for p in names if name.endswith(p)), None)
        if owner and x.shape == names[owner].shape:
            assert x.sharding.spec == PartitionSpec(*expected(owner)), name
            moments += x.size
        elif x.ndim == 0:
            assert x.sharding.is_fully_replicated
    total = sum(x.size for x in names.values())
    assert moments == 2 * total if optimizer == "adamw" else moments < 0.05 * total


def test_values_do_not_depend_on_the_mesh():
    draw = lambda: normal(jax.random.key(3, impl="rbg"), (8, 16), ("vocab", "embed"), 0.5)  # noqa: E731
    alone = jax.jit(draw)()
    for sizes in [(2, 2, 2), (1, 2, 4)]:
        with jax.set_mesh(make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))))):
            cut = jax.jit(draw)()
        assert cut.sharding.spec == PartitionSpec("tensor", "fsdp")
        np.testing.assert_array_equal(alone, cut)


def test_gather_makes_the_model_dimension_whole_and_its_transpose_scatters_the_gradient():
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=4, tensor=2))):
        weight = jax.jit(lambda: normal(jax.random.key(0, impl="rbg"), (8, 16), ("embed", "mlp"), 1.0))()
        gathered = jax.jit(lambda w: gather(w, "embed", "mlp", dtype=jax.numpy.bfloat16))(weight)
        assert gathered.sharding.spec == PartitionSpec(None, "tensor") and gathered.dtype == jax.numpy.bfloat16
        gradient = jax.jit(jax.grad(lambda w: (gather(w, "embed", "mlp") ** 2).sum()))(weight)
        assert gradient.sharding == weight.sharding
        np.testing.assert_allclose(gradient, 2 * np.asarray(weight), rtol=1e-6)
        assert ones((3, 4)).sharding.is_fully_replicated


def test_norms_and_biases_are_no_weights():
    names = {"kernel": 0, "self_norm": 0, "relative_bias": 0, "blocks": {"gate": 0, "final_norm": 0}}
    expected = {
        "kernel": True,
        "self_norm": False,
        "relative_bias": False,
        "blocks": {"gate": True, "final_norm": False},
    }
    assert weights(names) == expected


def test_without_a_mesh_nothing_is_moved():
    assert spec("batch", None) is None and on_one_cpu()
    weight = normal(jax.random.key(0, impl="rbg"), (8, 16), ("embed", "mlp"), 1.0)
    assert gather(weight, "embed", "mlp") is weight
    with jax.set_mesh(make_mesh(MeshConfig())):
        assert spec("batch", None) == PartitionSpec(("data", "fsdp"), None) and not on_one_cpu()


def test_two_dimensions_of_one_array_are_not_cut_along_one_axis():
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        assert spec("vocab", "embed") == jax.P("tensor", "fsdp")
        for names, message in (
            (("batch", "embed"), "batch and embed .* along fsdp"),
            (("heads", "mlp"), "heads and mlp"),
        ):
            with pytest.raises(ValueError, match=message):
                spec(*names)
