"""Pallas's kernels in a traced step: their names, shapes and FLOPs, and cycles by their schedules."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from tests.training.pods.programs import program
from training.pods.kernels import Kernel, kernels_of, key_of, loaded_sources


def product(x, w, out):
    @pl.when(pl.program_id(0) > 0)
    def _():
        out[...] = jnp.dot(x[...], w[...])


def step(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Four blocks of 8 rows a layer."""
    call = pl.pallas_call(
        product,
        name="block_product",
        grid=(4,),
        in_specs=[pl.BlockSpec((8, 128), lambda i: (i, 0)), pl.BlockSpec((128, 128), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((8, 128), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    )
    return jax.lax.scan(lambda x, w: (jax.checkpoint(call)(x, w), None), x, weights)[0]


KEY = "block_product(bf16[32,128], bf16[128,128])"


COMPILED = program(
    "%x = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)",
    "%w = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(1)",
    "ROOT %block_product.3 = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%x, %w), "
    'custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/while/body/block_product/pallas_call"}',
)


def traced():
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
    return jax.jit(step).trace(shape((32, 128)), shape((6, 128, 128))).jaxpr


def test_a_kernel_is_known_by_name_and_shapes():
    assert kernels_of(traced(), COMPILED, {}) == {KEY: Kernel(flops=2 * 32 * 128 * 128, cycles=None)}


def test_the_same_key_in_the_compiled_program():
    assert key_of(COMPILED.entry.root, COMPILED.entry) == KEY


def test_cycles_are_those_of_its_schedule_as_often_as_its_grid_says():
    assert kernels_of(traced(), COMPILED, {"block_product.3": [5, 90, 100]})[KEY].cycles == 5 + 4 * 100
    assert "training/pods/kernels.py" in {"/".join(file.parts[-3:]) for file in loaded_sources()}
