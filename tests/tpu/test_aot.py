"""The training step, optimizer and all, compiled for TPUs that are not here: `make aot`, which provides libtpu.

The compilation has a process of its own, whose standard error is the compiler's.
"""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from dataclasses import replace
import jax
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.program import t5_program
from training.mesh import MeshConfig
from training.optimizer import OptimizerConfig
from training.pods.compilation import tpu_mesh
from training.pods.plan import plan
from training.pods.table import row

preset, sizes, optimizer = json.loads(sys.argv[1])
model = replace(mt5.PRESETS[preset], dtype="bfloat16")
mesh = tpu_mesh("v5e:4x4", MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes))))
planned = plan(t5_program(model, (512, 128), OptimizerConfig(optimizer=optimizer), steps=1000), mesh, 64)
name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
specs = {name(path): str(x.sharding.spec) for path, x in jax.tree.leaves_with_path(planned.state)}
memory = planned.memory
print(json.dumps({"summary": row(planned.told(preset, "v5e:4x4")), "specs": specs, "bytes": memory.all,
                  "arguments": memory.all - memory.saved - memory.temporaries, "parameters": mt5.parameters(model)}))
"""

EXPECTED = {  # without data, and with it
    "embedding": ("P('tensor', 'fsdp')", "P(('tensor', 'data'), 'fsdp')"),
    "head": ("P('fsdp', 'tensor')", "P(('fsdp', 'data'), 'tensor')"),
    "encoder/blocks/self_attention/query": ("P(None, 'fsdp', 'tensor')", "P('data', 'fsdp', 'tensor')"),
    "decoder/blocks/cross_attention/output": ("P(None, 'tensor', 'fsdp')", "P('data', 'tensor', 'fsdp')"),
    "decoder/blocks/feed_forward/gate": ("P(None, 'fsdp', 'tensor')", "P('data', 'fsdp', 'tensor')"),
    "encoder/blocks/feed_forward/output": ("P(None, 'tensor', 'fsdp')", "P('data', 'tensor', 'fsdp')"),
}


@pytest.mark.parametrize("sizes", [(2, 4, 2), (1, 16, 1)])
def test_training_step_compiles_for_v5e(sizes):
    arguments = json.dumps(["t5-pegasus-small", sizes, "adamw"])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "involuntary full rematerialization" not in done.stderr.lower()
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{sizes}: {report['summary']}")
    for name, specs in EXPECTED.items():
        spec = specs[sizes[0] > 1]
        assert report["specs"][f"model/{name}"] == spec
        assert report["specs"][f"optimizer/1/mu/{name}"] == report["specs"][f"optimizer/1/nu/{name}"] == spec
    # Three float32 copies of every parameter, cut over all chips, are nearly all of the arguments.
    cut = 12 * report["parameters"] / 16
    assert cut < report["arguments"] < 1.1 * cut
    assert report["bytes"] < 16 * 2**30
