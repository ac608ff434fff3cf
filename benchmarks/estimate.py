"""How far the compiler's estimate is from its own schedule: make estimate ARGS="--what block".

A product of 4096^3, or a decoder block as MaxText has them (norm, projections, causal attention, gated feed-forward;
forwards and backwards), compiled for one chip that is not here. Of its operations the cycles that the compiler
estimates (of kernels it says nothing: theirs are the schedule's), and those of its own instruction words, replayed with
the matrix units' rate, or of its bytes at HBM's rate where these are more. What a plan counts is the latter, and of
products the lesser of the two.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import NamedSharding

from rope.layers.attention import attention
from rope.layers.masks import Segments
from rope.layers.primitives import matmul, rms_norm, split_heads
from training.partition import Dtype, spec
from training.pods.collectives import slice_of
from training.pods.compilation import compile_kept, one_chip
from training.pods.kernels import kernels_of
from training.pods.program_text import read_program
from training.pods.roofline import Roofline, roofline
from training.pods.schedules import Scheduled, scheduled


@dataclass(frozen=True, kw_only=True)
class Config:
    what: Literal["product", "block"] = "block"
    """Is compiled."""
    rows: int = 8
    """Of a batch."""
    positions: int = 512
    """In a row."""
    width: int = 2048
    """Of the model."""
    feed_forward: int = 5632
    """Inner dimension."""
    heads: int = 16
    """Of attention."""
    attention: Literal["flash", "xla"] = "flash"
    """The kernel, or two products."""
    dtype: Dtype = "bfloat16"
    """Of the computation."""
    topology: str = "v5e:2x2"
    """Whose chip."""


def block(c: Config, x: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
    """[B, T, D] -> [B, T, D]"""
    h = rms_norm(x, p["norm"], 1e-6)
    wide = (matmul(h, p[name], ("embed", "heads")) for name in ("query", "key", "value"))
    query, key, value = (split_heads(x, c.heads) for x in wide)
    segments = jnp.ones((c.rows, c.positions), jnp.int32, out_sharding=spec("batch", None))
    mask = Segments(segments, segments, causal=True)
    mixed = attention(query, key, value, mask=mask, implementation=c.attention)
    x = x + matmul(mixed.reshape(x.shape), p["output"], ("heads", "embed"))
    h = rms_norm(x, p["feed_forward_norm"], 1e-6)
    gate, side = (matmul(h, p[name], ("embed", "mlp")) for name in ("gate", "linear"))
    return x + matmul(jax.nn.silu(gate) * side, p["down"], ("mlp", "embed"))


def both_ways(c: Config, x: jax.Array, p: dict[str, jax.Array], cotangent: jax.Array) -> tuple:
    y, back = jax.vjp(partial(block, c), x, p)
    return y, back(cotangent)


def compiled(c: Config) -> tuple[Roofline, Roofline, dict[str, Scheduled]]:
    """(by the compiler's estimate, as a plan counts, what is scheduled of each operation)"""
    alone = one_chip(c.topology)

    def like(*shape: int, names: tuple[str | None, ...], dtype: str = c.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(alone, spec(*names)))

    with jax.set_mesh(alone):
        square = dict.fromkeys(("query", "key", "value"), like(c.width, c.width, names=("embed", "heads")))
        wide = dict.fromkeys(("gate", "linear"), like(c.width, c.feed_forward, names=("embed", "mlp")))
        norm = like(c.width, names=(None,), dtype="float32")
        parameters = {**square, **wide, "norm": norm, "feed_forward_norm": norm}
        parameters["output"] = like(c.width, c.width, names=("heads", "embed"))
        parameters["down"] = like(c.feed_forward, c.width, names=("mlp", "embed"))
        x = like(c.rows, c.positions, c.width, names=("batch", None, None))
        if c.what == "product":
            matrix = like(4096, 4096, names=(None, None))
            traced = jax.jit(jnp.matmul).trace(matrix, matrix)
        else:
            traced = jax.jit(partial(both_ways, c)).trace(x, parameters, x)
        found = compile_kept(traced.lower(), alone, {}, None)
    chips, text = slice_of(alone), read_program(found.text)
    kernels = kernels_of(traced.jaxpr, text, found.schedules, chips.chip.cores)
    schedules = scheduled(text, found.schedules)
    return roofline(text, chips, kernels), roofline(text, chips, kernels, schedules), schedules


def main() -> None:
    estimated, planned, schedules = compiled(tyro.cli(Config))
    chip = planned.chip
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for one, two in zip(estimated.operations, planned.operations, strict=True):
        issued = schedules[one.name].cycles / chip.clock if one.flops and one.name in schedules else two.seconds
        times = (one.seconds, max(issued, one.bytes / chip.hbm_rate), one.flops / chip.peak)
        kind = "kernels" if one.opcode == "custom-call" else "products" if one.flops else "others"
        for name in (kind, "in all"):
            sums[name] = [a + b * chip.clock for a, b in zip(sums[name], times, strict=True)]
    if (kernels := sums.get("kernels")) is not None:  # the compiler has no estimate of them
        kernels[0] = kernels[1]
    print(f"{'cycles':10} {'estimated':>12} {'scheduled':>12} {'at the peak':>12}  estimated / scheduled, peak's share")
    for name, (estimate, schedule, bound) in sums.items():
        shares = "".join(f"  {bound / cycles:.0%}" for cycles in (estimate, schedule))
        print(f"{name:10} {estimate:12.0f} {schedule:12.0f} {bound:12.0f}  {estimate / schedule:.2f}{shares}")


if __name__ == "__main__":
    main()
