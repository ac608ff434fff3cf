"""Pallas's kernels in a traced step: their names, shapes and FLOPs, and the cycles that lie beside their sources."""

import json
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from tests.training.pods.programs import V5E, program
from training.pods import kernels
from training.pods.kernels import Kernel, kernels_of, key_of


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


def traced():
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
    return jax.jit(step).trace(shape((32, 128)), shape((6, 128, 128))).jaxpr


def test_a_kernel_is_known_by_name_and_shapes():
    assert kernels_of(traced(), V5E) == {KEY: Kernel(flops=2 * 32 * 128 * 128, cycles=None)}


def test_the_same_key_in_the_compiled_program():
    made = program(
        "%x = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)",
        "%w = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(1)",
        "ROOT %block_product.3 = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%x, %w), "
        'custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/while/body/block_product/pallas_call"}',
    )
    assert key_of(made.entry.root, made.entry) == KEY


def test_cycles_lie_beside_the_source(tmp_path, monkeypatch):
    (tmp_path / "cycles.json").write_text(json.dumps({"v5e": {KEY: 1234}, "v6e": {KEY: 99}}))
    monkeypatch.setattr(kernels, "loaded_sources", lambda: [tmp_path / "kernel.py", tmp_path / "other.py"])
    assert kernels_of(traced(), V5E)[KEY].cycles == 1234
    monkeypatch.undo()
    assert {"training/pods/kernels.py"} <= {"/".join(file.parts[-3:]) for file in kernels.loaded_sources()}
