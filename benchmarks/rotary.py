"""Rotary positions, forward and backward: what they add to attention, and beside torch's, same values.

    python -m benchmarks.rotary [--rows 8] [--length 1024] [--heads 12] [--size 64] [--repeats 7]

Needs the `parity` extra (`make bench` sets it up). benchmarks/harness.py says how it is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from rope.layers.attention import attention
from rope.positions.angles import Layout, frequencies
from rope.positions.rotary import rotate, rotation
from training.flags import FLAT
from training.step import compiler_options


@dataclass(frozen=True, kw_only=True)
class Config:
    rows: int = 8
    length: int = 1024
    heads: int = 12
    size: int = 64
    clock: Annotated[Clock, FLAT] = field(default_factory=partial(Clock, repeats=7))


def arrays(config: Config) -> list[np.ndarray]:
    """query, key, value and the cotangent."""
    random = np.random.default_rng(0)
    shape = (config.rows, config.length, config.heads, config.size)
    return [random.standard_normal(shape, dtype=np.float32) for _ in range(4)]


def compiled(run: Callable, *operands: jax.Array) -> Callable[[], list[np.ndarray]]:
    program = jax.jit(run).lower(*operands).compile(compiler_options=compiler_options())
    return lambda: [np.asarray(x) for x in jax.tree.leaves(program(*operands))]


def attend(config: Config, layout: Layout | None) -> Run:
    """Values, and gradients of query, key and value; positions rotated, or not at all."""
    by = rotation(jnp.arange(config.length), frequencies(config.size))

    def of(query, key, value, by):
        return attention(query, key, value, rotation=by if layout else None, layout=layout or "half")

    def run(query, key, value, cotangent, by):
        out, back = jax.vjp(of, query, key, value, by)
        return out, back(cotangent)[:3]

    return compiled(run, *map(jnp.asarray, arrays(config)), by)


def apply(config: Config, layout: Layout) -> Run:
    """Queries and keys turned, and their gradients."""
    query, key, _, cotangent = map(jnp.asarray, arrays(config))
    by = rotation(jnp.arange(config.length), frequencies(config.size))

    def run(query, key, cotangent, by):
        out, back = jax.vjp(lambda q, k: (rotate(q, by, layout), rotate(k, by, layout)), query, key)
        return out, back((cotangent, cotangent))

    return compiled(run, query, key, cotangent, by)


def theirs(config: Config, whose: Literal["transformers", "rotary-embedding-torch"]) -> Run:
    """`apply` of interleaved pairs."""
    import torch

    # torch has the heads before the positions, as both of these want it
    query, key, _, cotangent = (torch.from_numpy(x).transpose(1, 2).contiguous() for x in arrays(config))
    if whose == "transformers":
        from transformers.models.roformer import modeling_roformer as roformer

        table = roformer.RoFormerSinusoidalPositionalEmbedding(config.length, config.size)
        with torch.no_grad():
            table.weight.copy_(table.create_weight())
        positions = table((config.rows, config.length))[None, None]
        turn = partial(roformer.RoFormerSelfAttention.apply_rotary_position_embeddings, positions)
    else:
        from rotary_embedding_torch import RotaryEmbedding

        embedding = RotaryEmbedding(dim=config.size, cache_if_possible=True)
        turn = lambda q, k: tuple(map(embedding.rotate_queries_or_keys, (q, k)))  # noqa: E731

    def run() -> list[np.ndarray]:
        q, k = (x.detach().requires_grad_() for x in (query, key))
        out = turn(q, k)
        torch.autograd.backward(out, (cotangent, cotangent))
        return [x.detach().transpose(1, 2).numpy() for x in (*out, q.grad, k.grad)]

    return run


def adding(config: Config) -> None:
    sides = {
        "without": partial(attend, config, None),
        "with, interleaved": partial(attend, config, "interleaved"),
        "with, half": partial(attend, config, "half"),
    }
    measure(f"attention, forward and backward, {shape(config)}", sides, config.clock, unit="attention")


def applying(config: Config) -> None:
    def same(ours: list[np.ndarray], others: list[np.ndarray]) -> None:
        for mine, other in zip(ours, others, strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-3)

    names = {"transformers' RoFormer": "transformers", "rotary-embedding-torch": "rotary-embedding-torch"}
    sides = {"ours": partial(apply, config, "interleaved")}
    sides |= {name: partial(theirs, config, whose) for name, whose in names.items()}
    title = f"applying rotary to queries and keys, forward and backward, {shape(config)}"
    measure(title, sides, config.clock, unit="application", check=same)


def layouts(config: Config) -> None:
    sides = {layout: partial(apply, config, layout) for layout in ("interleaved", "half")}
    measure(f"applying rotary by layout, {shape(config)}", sides, config.clock, unit="application")


def shape(config: Config) -> str:
    return str((config.rows, config.length, config.heads, config.size))


def main() -> None:
    config = tyro.cli(Config)
    in_turn(*(partial(part, config) for part in (adding, applying, layouts)))


if __name__ == "__main__":
    main()
