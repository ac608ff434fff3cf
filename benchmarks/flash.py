"""What the flash kernel costs on a TPU that is not here: make flash ARGS="--queries 2048 --keys 2048".

Cycles per row and head, by the compiler's schedule (training/pods/bundles.py), beside their floor: the matrix units'
time for two products forwards and five backwards, of which a head size below a unit's side leaves a part idle.
"""

from dataclasses import dataclass
from functools import partial

import jax
import tyro
from jax.sharding import NamedSharding, PartitionSpec

from rope.layers.attention import attention
from rope.layers.masks import Segments, segment_places
from rope.positions.buckets import RelativeBias
from rope.positions.rotary import Rotation
from training.partition import Dtype, spec
from training.pods.chips import Chip
from training.pods.collectives import slice_of
from training.pods.compilation import compile_kept, one_chip
from training.pods.costs import hbm_bytes
from training.pods.kernels import Kernel, kernels_of
from training.pods.program_text import read_program


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


@dataclass(frozen=True)
class Cost:
    """Of one kernel."""

    kernel: Kernel
    bytes: int  # of HBM, by all steps
    cycles: float  # a row and head
    floor: float

    def __str__(self) -> str:
        assert self.kernel.step is not None
        bundles, cycles, spills = self.kernel.step
        return (
            f"{self.kernel.name}: {self.kernel.steps} steps of {cycles} cycles ({bundles} bundles, {spills} spills), "
            f"{self.bytes / 2**20:.1f} MiB of HBM: {self.cycles:.0f} cycles a row and head, "
            f"{self.cycles / self.floor:.2f} of the floor"
        )


def cost(config: Config) -> list[Cost]:
    """Of the forward and the backward kernel. Raises ValueError where a kernel's schedule does not tell."""
    c, mesh = config, one_chip(config.topology)
    chip, here = slice_of(mesh).chip, NamedSharding(mesh, PartitionSpec())

    def like(*shape: int, dtype: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=here)

    wide, memory = (like(c.rows, n, c.heads * c.head_size, dtype=c.dtype) for n in (c.queries, c.keys))
    segments = (like(c.rows, n, dtype="int32") for n in (c.queries, c.keys))
    table, seed = like(32, c.heads, dtype="float32"), like(2, dtype="uint32")
    turns = [like(c.rows, c.queries, 1, c.head_size // 2, dtype="float32")] * 2 if c.rotary else []
    with jax.set_mesh(mesh):
        traced = jax.jit(partial(step, c)).trace(wide, memory, memory, wide, table, *segments, seed, *turns)
        compiled = compile_kept(traced.lower(), mesh, {}, None)
    text = read_program(compiled.text)
    kernels = kernels_of(traced.jaxpr, text, compiled.schedules, chip.cores)
    found = []
    for products, one in zip((2, 5), (x for x in text.entry if x.name in kernels), strict=True):
        kernel = kernels[one.name]
        if kernel.step is None:
            raise ValueError(f"{kernel.name}: its schedule does not tell how often its loops run")
        cycles = kernel.steps * kernel.step.cycles / c.rows / c.heads
        found.append(Cost(kernel, hbm_bytes(text, text.entry, one), cycles, products * floor(c, chip)))
    return found


def floor(c: Config, chip: Chip) -> float:
    """Cycles of one product of a row and head."""
    return -(-c.head_size // chip.side) * c.queries * c.keys / chip.side / chip.units


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
    for one in cost(tyro.cli(Config)):
        print(one)


if __name__ == "__main__":
    main()
