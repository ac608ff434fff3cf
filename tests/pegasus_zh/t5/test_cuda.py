"""The training step lowered for a GPU that is not here: its attention by cuDNN (tests/rope/layers/test_cudnn.py)."""

import re
from dataclasses import replace

import jax
import pytest

from pegasus_zh.t5.mt5 import PRESETS
from pegasus_zh.t5.program import t5_program
from training.optimizer import OptimizerConfig
from training.step import trace_step


@pytest.mark.parametrize("cross_bias", [False, True])
def test_its_attention_is_cudnns_throughout(cross_bias, monkeypatch):
    # jax asks the CUDA libraries for cuDNN's version before it lowers anything for it; there are none on a CPU
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    model = replace(PRESETS["tiny"], attention="cudnn", dtype="bfloat16", dropout=0.0, cross_bias=cross_bias)
    program = t5_program(model, (64, 32), OptimizerConfig(), steps=10)
    batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in program.shapes(2).items()}
    traced = trace_step(program.step, jax.eval_shape(program.init), batch)
    found = re.findall(r"@__cudnn\$(\w+)\(", traced.lower(lowering_platforms=("cuda",)).as_text())
    forward, backward = found.count("fmhaScaleBiasSoftmax"), found.count("fmhaScaleBiasSoftmaxBackward")
    assert forward == backward > 0 and forward % 3 == 0 and len(found) == forward + backward
