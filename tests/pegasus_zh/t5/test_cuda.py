"""The training step lowered for GPUs that are not here: its attention by cuDNN (tests/rope/layers/test_cudnn.py)."""

import re
from dataclasses import replace

import jax
import pytest

from pegasus_zh.t5.mt5 import PRESETS
from pegasus_zh.t5.program import Program, t5_program
from training.optimizer import OptimizerConfig
from training.partition import abstract
from training.step import trace_step


@pytest.fixture(autouse=True)
def cudnn(monkeypatch):
    """jax asks the CUDA libraries for cuDNN's version before it lowers anything for it; there are none on a CPU."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)


def program(cross_bias: bool) -> Program:
    model = replace(PRESETS["tiny"], attention="cudnn", dtype="bfloat16", dropout=0.0, cross_bias=cross_bias)
    return t5_program(model, (64, 32), OptimizerConfig(), steps=10)


def calls(traced: jax.stages.Traced) -> list[str]:
    return re.findall(r"custom_call @([\w$]+)\(", traced.lower(lowering_platforms=("cuda",)).as_text())


@pytest.mark.parametrize("cross_bias", [False, True])
def test_attention_is_cudnns_throughout(cross_bias):
    made = program(cross_bias)
    batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in made.shapes(2).items()}
    found = calls(trace_step(made.step, jax.eval_shape(made.init), batch))
    forward, backward = (found.count(f"__cudnn$fmhaScaleBiasSoftmax{way}") for way in ("", "Backward"))
    assert forward == backward > 0 and forward % 3 == 0  # self-attention of both, and cross-attention


def test_on_a_mesh_each_gpu_is_given_its_part():
    """By jax's own rule of partitioning, which the compiler asks: so all that is here is that it is asked."""
    made, mesh = program(True), jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))
    rows = jax.NamedSharding(mesh, jax.P(None, ("data", "fsdp"), None))
    batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype, sharding=rows) for name, x in made.shapes(8).items()}
    with jax.set_mesh(mesh):
        found = calls(trace_step(made.step, abstract(made.init), batch))
    assert found.count("CustomSPMDPartitioning") % 6 == 0 and "CustomSPMDPartitioning" in found
