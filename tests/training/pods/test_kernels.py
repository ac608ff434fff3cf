"""Pallas's kernels in a traced step: their names, shapes and FLOPs, and cycles by their schedules."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from tests.training.pods.programs import program
from training.pods.bundles import Block, Schedule
from training.pods.kernels import Kernel, kernels_of, key_of


def product(x, w, out):
    @pl.when(pl.program_id(0) > 0)
    def _():
        out[...] = jnp.dot(x[...], w[...])


def step(kernel, x: jax.Array, weights: jax.Array) -> jax.Array:
    """Four blocks of 8 rows a layer."""
    call = pl.pallas_call(
        kernel,
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


def traced(*kernels):
    """Six layers of each."""

    def run(x, weights):
        for kernel in kernels or (product,):
            x = step(kernel, x, weights)
        return x

    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
    return jax.jit(run).trace(shape((32, 128)), shape((6, 128, 128))).jaxpr


KERNEL = Kernel(name="block_product", flops=2 * 32 * 128 * 128, steps=4)


def schedule(*loops: int) -> Schedule:
    return Schedule(Block(5, 5, 0), Block(90, 100, 7), [Block(n, n, 1) for n in loops])


def test_a_kernel_is_known_by_name_and_shapes():
    assert kernels_of(traced(), COMPILED, {}) == {"block_product.3": KERNEL}
    assert KERNEL.cycles is None


def test_the_same_key_in_the_compiled_program():
    assert key_of(COMPILED.entry.root, COMPILED.entry) == KEY


def test_cycles_are_those_of_its_schedule_as_often_as_its_grid_says():
    (found,) = kernels_of(traced(), COMPILED, {"block_product.3": schedule()}).values()
    assert found == replace(KERNEL, once=5, step=Block(90, 100, 7)) and found.cycles == 5 + 4 * 100
    (halved,) = kernels_of(traced(), COMPILED, {"block_product.3": schedule()}, cores=2).values()
    assert halved.cycles == 5 + 2 * 100


def looped(x, w, out):
    jax.lax.fori_loop(0, 3, lambda n, _: out.__setitem__(..., jnp.dot(x[...], w[...])), None)
    jax.lax.fori_loop(0, 6, lambda n, _: out.__setitem__(..., out[...] + x[...]), None, unroll=2)
    jax.lax.fori_loop(0, 2, lambda n, _: out.__setitem__(..., out[...] + x[...]), None, unroll=2)


def test_its_own_loops_count_as_often_as_the_traced_kernel_says():
    (found,) = kernels_of(traced(looped), COMPILED, {"block_product.3": schedule(10, 20)}).values()
    assert found.step == Block(90 + 3 * 10 + 3 * 20, 100 + 3 * 10 + 3 * 20, 7 + 3 + 3)
    assert found.flops == 3 * KERNEL.flops
    for loops in ((), (10,), (10, 20, 30)):  # not those of the schedule
        (found,) = kernels_of(traced(looped), COMPILED, {"block_product.3": schedule(*loops)}).values()
        assert found.cycles is None


def test_each_call_has_its_own_schedule_and_one_without_that_of_its_equal():
    three = program(
        "%x = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)",
        "%w = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(1)",
        *(
            f"{'ROOT ' * (n == 3)}%call.{n} = bf16[32,128]{{1,0}} custom-call(%x, %w), custom_call_target="
            '"tpu_custom_call", metadata={op_name="jit(f)/block_product/pallas_call"}'
            for n in (1, 2, 3)
        ),
    )
    first = schedule()
    second = first._replace(step=Block(50, 60, 0))
    found = kernels_of(traced(), three, {"call.1": first, "call.2": second})
    assert [found[f"call.{n}"].cycles for n in (1, 2)] == [405, 245] and found["call.3"].cycles in (405, 245)


def test_two_that_differ_and_have_one_name_are_refused():
    assert len(kernels_of(traced(product, product), COMPILED, {})) == 1
    with pytest.raises(ValueError, match="two kernels are called block_product.*needs a name of its own"):
        kernels_of(traced(product, looped), COMPILED, {})
