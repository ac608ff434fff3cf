"""What rotary positions cost a layer of RoFormer-base on a TPU that is not here: `make aot`.

The compilation has a process of its own, as in test_aot.py.
"""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from dataclasses import replace
import jax, jax.numpy as jnp
from rope.positions.angles import frequencies
from rope.positions.rotary import rotation
from rope.layers.transformer import TransformerConfig, init_blocks, run_blocks
from training.mesh import MeshConfig
from training.partition import abstract
from training.pods.compilation import tpu_mesh

attention, layout = json.loads(sys.argv[1])
B, T = 4 * 8, 1024  # eight rows a chip
config = TransformerConfig(layers=1, dtype="bfloat16", dropout=0.0, attention_dropout=0.0, attention=attention)
mesh = tpu_mesh("v5e:2x2", MeshConfig())


def bytes_of(rotary):
    def value(blocks, x):
        by = rotation(jnp.arange(T), frequencies(config.head_size)) if rotary else None
        return run_blocks(blocks, x, config, rotation=by, layout=layout)[0].astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        blocks = abstract(lambda: init_blocks(config, jax.random.key(0)))
        cut = jax.sharding.NamedSharding(mesh, jax.P(("data", "fsdp")))
        x = jax.ShapeDtypeStruct((B, T, config.width), "bfloat16", sharding=cut)
        compiled = jax.jit(jax.value_and_grad(value, argnums=(0, 1))).lower(blocks, x).compile()
    return {"bytes": compiled.cost_analysis()["bytes accessed"], "temporary": compiled.memory_analysis().temp_size_in_bytes}


print(json.dumps({"without": bytes_of(False), "with": bytes_of(True), "query": B // 4 * T * config.width * 2}))
"""  # noqa: E501


@pytest.mark.parametrize("attention, layout", [(a, b) for a in ("xla", "flash") for b in ("interleaved", "half")])
def test_no_rotated_copy_beyond_query_and_key(attention, layout):
    """Turning two arrays and their gradients reads and writes each once: eight times the bytes of a query at the least.
    The flash kernel turns what it has in vector memory, and reads but cosines and sines."""
    arguments = json.dumps([attention, layout])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    plain, rotary, query = found["without"], found["with"], found["query"]
    more, room = ((rotary[name] - plain[name]) / query for name in ("bytes", "temporary"))
    print(
        f"\n{attention}, {layout}: {plain['bytes'] / 2**20:.0f} MiB accessed without, {rotary['bytes'] / 2**20:.0f} "
        f"with: {more:.1f} queries more, {rotary['bytes'] / plain['bytes'] - 1:.1%}; temporaries {room:+.2f} queries"
    )
    assert room < 1
    if attention == "flash":
        assert rotary["bytes"] < 2100 * 2**20  # of which dense attention has 6,009
    assert more < (2 if attention == "flash" else 16)
