"""What crosses the network between two slices that are not here, read in the compiled step: `make aot`."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from dataclasses import replace
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.program import t5_program
from training.mesh import MeshConfig
from training.optimizer import OptimizerConfig
from training.pods.compilation import tpu_mesh
from training.pods.plan import plan

model = replace(mt5.PRESETS["tiny"], dtype="bfloat16", layers=4, vocabulary=4096)
mesh = tpu_mesh("v5e:2x2", MeshConfig(**json.loads(sys.argv[1])), slices=2)
planned = plan(t5_program(model, (512, 128), OptimizerConfig(), steps=1000), mesh, 64)
specs = [str(x.sharding.spec) for x in (planned.state.model.embedding, planned.state.model.head)]
told = {"mesh": dict(mesh.shape), "specs": specs, "parameters": mt5.parameters(model)}
print(json.dumps(told | planned.roofline.network()))
"""


@pytest.mark.parametrize("sizes", [{"data": 4}, {"fsdp": 2, "tensor": 2}])
def test_of_gradients_each_chips_part_crosses_and_nothing_else(sizes):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sizes)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{told}")
    assert told["mesh"] == {"replica": 2, "data": 1, "fsdp": 1, "tensor": 1} | sizes
    assert "replica" not in str(told["specs"])
    # Between two slices an all-reduce sends its array once; of the parameters' gradients in float32, a fourth.
    part = 4 * told["parameters"] / 4
    assert 0.4 * part < told["bytes"] < 1.1 * part
