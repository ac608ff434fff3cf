"""Rotary positions, forward and backward: what they add to attention, and beside torch's, same values.

    python -m benchmarks.rotary [--rows 8] [--length 1024] [--heads 12] [--size 64] [--repeats 7]

Needs the `parity` extra (`make bench` sets it up). All take turns in random order; medians are printed, of each round's
ratio too, and the ratio of medians of processor time, which other work on the machine moves less.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from rotary_embedding_torch import RotaryEmbedding
from transformers.models.roformer.modeling_roformer import (
    RoFormerSelfAttention,
    RoFormerSinusoidalPositionalEmbedding,
)

from rope.layers.attention import attention
from rope.positions.angles import frequencies
from rope.positions.rotary import rotate, rotation
from training.step import compiler_options

BASE = "attention without"
OURS = "applying, ours (interleaved)"


@dataclass(frozen=True, kw_only=True)
class Config:
    rows: int = 8
    length: int = 1024
    heads: int = 12
    size: int = 64
    repeats: int = 7


def ours(config: Config, arrays: list[np.ndarray]) -> dict[str, Callable]:
    """By name a call that computes values and gradients of query and key."""
    query, key, value, cotangent = map(jnp.asarray, arrays)
    by = rotation(jnp.arange(config.length), frequencies(config.size))

    def attend(layout: str | None):
        def of(query, key, value, by):
            return attention(query, key, value, rotation=by if layout else None, layout=layout or "half")

        def run(query, key, value, cotangent, by):
            out, back = jax.vjp(of, query, key, value, by)
            return out, back(cotangent)[:3]

        return compiled(run, query, key, value, cotangent, by)

    def apply(layout: str):
        def run(query, key, cotangent, by):
            out, back = jax.vjp(lambda q, k: (rotate(q, by, layout), rotate(k, by, layout)), query, key)
            return out, back((cotangent, cotangent))

        return compiled(run, query, key, cotangent, by)

    return {
        BASE: attend(None),
        "attention with, interleaved": attend("interleaved"),
        "attention with, half": attend("half"),
        OURS: apply("interleaved"),
        "applying, ours (half)": apply("half"),
    }


def compiled(run: Callable, *operands: jax.Array) -> Callable:
    program = jax.jit(run).lower(*operands).compile(compiler_options=compiler_options())
    return lambda: jax.block_until_ready(program(*operands))


def theirs(config: Config, arrays: list[np.ndarray]) -> dict[str, Callable]:
    # torch has the heads before the positions, as both of these want it
    query, key, _, cotangent = (torch.from_numpy(x).transpose(1, 2).contiguous() for x in arrays)
    table = RoFormerSinusoidalPositionalEmbedding(config.length, config.size)
    with torch.no_grad():
        table.weight.copy_(table.create_weight())
    positions = table((config.rows, config.length))[None, None]
    embedding = RotaryEmbedding(dim=config.size, cache_if_possible=True)

    def run(apply: Callable):
        q, k = (x.detach().requires_grad_() for x in (query, key))
        out = apply(q, k)
        torch.autograd.backward(out, (cotangent, cotangent))
        return [x.detach().transpose(1, 2).numpy() for x in out], [x.grad.transpose(1, 2).numpy() for x in (q, k)]

    return {
        "applying, transformers' RoFormer": lambda: run(
            lambda q, k: RoFormerSelfAttention.apply_rotary_position_embeddings(positions, q, k)
        ),
        "applying, rotary-embedding-torch": lambda: run(
            lambda q, k: (embedding.rotate_queries_or_keys(q), embedding.rotate_queries_or_keys(k))
        ),
    }


def main() -> None:
    config = tyro.cli(Config)
    random = np.random.default_rng(0)
    shape = (config.rows, config.length, config.heads, config.size)
    arrays = [random.standard_normal(shape, dtype=np.float32) for _ in range(4)]
    calls = ours(config, arrays) | theirs(config, arrays)
    expected = calls[OURS]()
    for name in calls:
        if "'s RoFormer" in name or "torch" in name:
            for mine, other in zip(jax.tree.leaves(expected), jax.tree.leaves(calls[name]()), strict=True):
                np.testing.assert_allclose(mine, other, atol=1e-3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(config.repeats + 1):
        for name in random.permutation(list(calls)):
            start = time.perf_counter(), time.process_time()
            calls[name]()
            if turn:  # the first warms up
                times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    print(f"forward and backward at {shape}, medians of {config.repeats}")
    for name, taken in times.items():
        base, sign = (BASE, "x the time") if name.startswith("attention") else (OURS, "x the time of ours")
        (wall, _), (base_wall, base_processor) = zip(*taken, strict=True), zip(*times[base], strict=True)
        ratios = [a / b for a, b in zip(wall, base_wall, strict=True)]
        processor = statistics.median(b for _, b in taken) / statistics.median(base_processor)
        print(
            f"  {name:34} {1e3 * statistics.median(wall):8.1f} ms   {statistics.median(ratios):.2f}{sign} "
            f"({min(ratios):.2f} to {max(ratios):.2f}; processor time {processor:.2f})"
        )


if __name__ == "__main__":
    main()
