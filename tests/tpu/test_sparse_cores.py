"""A v5p's SparseCores look rows of an embedding up beside the program, which jaxlib cannot write down: `make aot`.

The compilation has a process of its own, as in test_aot.py.
"""

import json
import subprocess
import sys

PROGRAM = """
import json
import jax, jax.numpy as jnp
from training.mesh import MeshConfig
from training.pods.collectives import slice_of
from training.pods.compilation import compile_kept, tpu_mesh
from training.pods.program_text import read_program
from training.pods.roofline import roofline

mesh = tpu_mesh("v5p:2x2x1", MeshConfig())
with jax.set_mesh(mesh):
    place = lambda *shape, dtype, by: jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, by))
    table = place(50_000, 2048, dtype="bfloat16", by=jax.P())
    ids = place(64, 512, dtype="int32", by=jax.P("data"))
    look = jax.jit(lambda table, ids: table.at[ids].get(out_sharding=jax.P("data")) * 2)
    text = compile_kept(look.lower(table, ids), mesh, {}, None).text
found = roofline(read_program(text), slice_of(mesh))
beside = [x.busy for x in found.operations if x.opcode == "async-done"]
estimated = found.known()["estimated"]["operations"]
print(json.dumps({"text": "sparsecore" in text, "beside": beside, "estimated": estimated}))
"""


def test_what_sparse_cores_look_up_is_planned():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["text"] and found["estimated"] > 0
    (seconds,) = found["beside"]
    rows = 16 * 512 * 2048 * 2  # bytes a chip
    assert rows / 2765e9 <= seconds < 4 * rows / 2765e9
