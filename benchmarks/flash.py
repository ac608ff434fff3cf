"""What the flash kernel costs on a TPU that is not here: make flash ARGS="--queries 2048 --keys 2048".

Cycles per row and head, by the compiler's schedule (training/schedule.py), beside their floor: the matrix units' time
for two products forwards and five backwards, of which a head size below 128 leaves a part idle.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import tyro

from rope.layers.attention import attention
from rope.layers.masks import Segments, segment_places
from rope.positions.buckets import RelativeBias
from rope.positions.rotary import Rotation
from training.partition import Dtype, spec
from training.schedule import Schedule, schedule

UNITS, ROWS = 4, 128  # of v5e: its matrix units, and each one's rows and columns


@dataclass(frozen=True, kw_only=True)
class Config:
    rows: int = 32
    """Of a batch."""
    queries: int = 512
    """In a row."""
    keys: int = 512
    """In a row."""
    heads: int = 12
    """Of attention."""
    head_size: int = 64
    """Of each."""
    bias: bool = True
    """T5's relative bias, learned."""
    places: bool = False
    """Of queries that stand elsewhere, row by row: T5-PEGASUS's cross-attention."""
    causal: bool = False
    """Keys right of the query are hidden."""
    dropout: float = 0.0
    """Of weights."""
    rotary: bool = False
    """Queries and keys are turned by their positions, which start anew in every row."""
    dtype: Dtype = "bfloat16"
    """Of the computation."""
    topology: str = "v5e:2x2"
    """Whose chip."""


def cost(config: Config) -> list[tuple[Schedule, float, float]]:
    """Of the forward and the backward kernel: the schedule, its cycles per row and head, and their floor."""
    c = config
    wide = jax.ShapeDtypeStruct((c.rows, c.queries, c.heads * c.head_size), c.dtype)
    memory = jax.ShapeDtypeStruct((c.rows, c.keys, c.heads * c.head_size), c.dtype)
    segments = (jax.ShapeDtypeStruct((c.rows, length), jnp.int32) for length in (c.queries, c.keys))
    table, key = jax.ShapeDtypeStruct((32, c.heads), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.uint32)
    by = jax.ShapeDtypeStruct((c.rows, c.queries, 1, c.head_size // 2), jnp.float32)
    turns = (by, by) if c.rotary else ()
    found = schedule(partial(step, c), wide, memory, memory, wide, table, *segments, key, *turns, topology=c.topology)
    tile = -(-c.head_size // ROWS) * c.queries * c.keys / ROWS / UNITS
    return [
        (kernel, kernel.cycles * kernel.steps / c.rows / c.heads, products * tile)
        for kernel, products in zip(found, (2, 5), strict=True)
    ]


def step(c: Config, query, key, value, cotangent, table, query_segments, key_segments, seed, *turns):
    """The gradients of one attention, arrays as a model's products leave and take them: [B, T, N H]."""

    wide, rows = spec("batch", None, "heads"), spec("batch", None)
    query, key, value, cotangent = (jax.reshard(x, wide) for x in (query, key, value, cotangent))
    query_segments, key_segments = (jax.reshard(x, rows) for x in (query_segments, key_segments))
    table = jax.reshard(table, spec(None, "heads"))
    rotation = Rotation(*(jax.reshard(x, spec("batch", None, None, None)) for x in turns)) if turns else None

    def heads(x: jax.Array) -> jax.Array:
        shape = (*x.shape[:2], c.heads, c.head_size)
        return jax.lax.reshape(x, shape, out_sharding=spec("batch", None, "heads", None))

    def of(query, key, value, table):
        places = segment_places(query_segments, key_segments) if c.places else None
        out = attention(
            *(heads(x) for x in (query, key, value)),
            rotation=rotation,
            bias=RelativeBias(table, bidirectional=not (c.causal or c.places), places=places) if c.bias else None,
            mask=Segments(query_segments, key_segments, causal=c.causal),
            scale=1.0,
            dropout_rate=c.dropout,
            dropout_key=jax.random.wrap_key_data(seed) if c.dropout else None,
            implementation="flash",
        )
        return jax.lax.reshape(out, query.shape, out_sharding=wide)

    return jax.vjp(of, query, key, value, table)[1](cotangent)


def main() -> None:
    for kernel, cycles, floor in cost(tyro.cli(Config)):
        print(f"{kernel}: {cycles:.0f} cycles a row and head, {cycles / floor:.2f} of the floor")


if __name__ == "__main__":
    from benchmarks.flash import main as run  # by which name the compiling process finds `step`

    run()
