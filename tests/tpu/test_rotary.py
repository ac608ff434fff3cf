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

attention = sys.argv[1]
B, T = 4 * 8, 1024  # eight rows a chip
config = TransformerConfig(layers=1, dtype="bfloat16", dropout=0.0, attention_dropout=0.0, attention=attention)
mesh = tpu_mesh("v5e:2x2", MeshConfig())


def bytes_of(layout):
    def value(blocks, x):
        by = {"rotation": rotation(jnp.arange(T), frequencies(config.head_size)), "layout": layout} if layout else {}
        return run_blocks(blocks, x, config, **by)[0].astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        blocks = abstract(lambda: init_blocks(config, jax.random.key(0)))
        cut = jax.sharding.NamedSharding(mesh, jax.P(("data", "fsdp")))
        x = jax.ShapeDtypeStruct((B, T, config.width), "bfloat16", sharding=cut)
        compiled = jax.jit(jax.value_and_grad(value, argnums=(0, 1))).lower(blocks, x).compile()
    return {"bytes": compiled.cost_analysis()["bytes accessed"], "temporary": compiled.memory_analysis().temp_size_in_bytes}


layouts = ("interleaved", "half")
print(json.dumps({"query": B // 4 * T * config.width * 2, "none": bytes_of(None)} | {x: bytes_of(x) for x in layouts}))
"""  # noqa: E501


@pytest.mark.parametrize("attention", ["xla", "flash"])
def test_no_rotated_copy_beyond_query_and_key(attention):
    """Turning two arrays and their gradients reads and writes each once: eight times the bytes of a query at the least.
    The flash kernel turns what it has in vector memory, and reads but cosines and sines."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, attention], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    plain, query = found["none"], found["query"]
    for layout in ("interleaved", "half"):
        rotary = found[layout]
        more, room = ((rotary[name] - plain[name]) / query for name in ("bytes", "temporary"))
        before, now = (kind["bytes"] / 2**20 for kind in (plain, rotary))
        print(
            f"\n{attention}, {layout}: {before:.0f} MiB accessed without, {now:.0f} with: {more:.1f} queries more, "
            f"{now / before - 1:.1%}; temporaries {room:+.2f} queries"
        )
        assert room < 1
        if attention == "flash":
            assert rotary["bytes"] < 2100 * 2**20  # of which dense attention has 6,009
        assert more < (2 if attention == "flash" else 16)
