"""Attention by cuDNN beside plain XLA's on a GPU: the same values and gradients, T5's bias and packed rows among them.

    python -m benchmarks.cudnn [--rows 4] [--source 512] [--target 160]

Compared are outputs and the gradients of query, key, value and the bias's table, in bfloat16: the norm of the
difference over the norm, beside what bfloat16 itself makes of XLA's float32. benchmarks/harness.py says how it is
timed. Where there is no GPU, float32 alone is compared.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.harness import Clock, measure
from benchmarks.machine import accelerator
from benchmarks.side import Run
from rope.layers.attention import attention
from rope.layers.kernels import Implementation
from rope.layers.masks import Segments, segment_places
from rope.positions.buckets import RelativeBias
from training.flags import FLAT
from training.partition import Dtype

MOST = 0.02  # of the norm; a bfloat16 is right to 0.004


@dataclass(frozen=True, kw_only=True)
class Config:
    rows: int = 4
    source: int = 512
    target: int = 160
    heads: int = 12
    size: int = 64
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


def segments(random: np.random.Generator, rows: int, length: int) -> jax.Array:
    """Two segments a row, and padding."""
    cut = random.integers(length // 4, length // 2, (rows, 1))
    places = np.arange(length)[None]
    return jnp.asarray(np.where(places < cut, 1, np.where(places < length - 8, 2, 0)), jnp.int32)


def attend(config: Config, implementation: Implementation, dtype: Dtype) -> Run:
    """What T5-PEGASUS has: an encoder, a decoder, and cross-attention with the decoder's bias."""
    c, random = config, np.random.default_rng(0)
    of = {"source": segments(random, c.rows, c.source), "target": segments(random, c.rows, c.target)}
    table = jnp.asarray(random.standard_normal((32, c.heads)), jnp.float32)

    def draw(length: int) -> jax.Array:
        return jnp.asarray(random.standard_normal((c.rows, length, c.heads, c.size)), dtype)

    def made(queries: str, keys: str, causal: bool):
        query, key, value, cotangent = (draw(getattr(c, side)) for side in (queries, keys, keys, queries))
        mask = Segments(of[queries], of[keys], causal=causal)
        places = segment_places(of[queries], of[keys]) if queries != keys else None

        def values(query, key, value, table):
            bias = RelativeBias(table, bidirectional=not causal, places=places)
            return attention(
                query * c.size**-0.5, key, value, bias=bias, mask=mask, scale=1.0, implementation=implementation
            )

        @jax.jit
        def run(query, key, value, table, cotangent):
            out, back = jax.vjp(values, query, key, value, table)
            return out, *back(cotangent)

        return lambda: run(query, key, value, table, cotangent)

    runs = {
        "encoder": made("source", "source", False),
        "decoder": made("target", "target", True),
        "cross": made("target", "source", False),
    }
    names = ("values", "query", "key", "value", "table")

    def run() -> dict[str, np.ndarray]:
        found = {kind: call() for kind, call in runs.items()}
        return {
            f"{kind}, {name}": np.asarray(x, np.float32)
            for kind, arrays in found.items()
            for name, x in zip(names, arrays, strict=True)
        }

    return run


def apart(ours: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> str:
    differences = {name: np.linalg.norm(others[name] - x) / np.linalg.norm(x) for name, x in ours.items()}
    worst = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
    said = f"apart from XLA by at most {differences[worst]:.2%} of the norm ({worst})"
    assert differences[worst] < MOST, said
    return said


def main() -> None:
    config = tyro.cli(Config)
    sides = {
        "xla": partial(attend, config, "xla", "bfloat16"),
        "xla, float32": partial(attend, config, "xla", "float32"),
    }
    if accelerator():
        sides["cudnn"] = partial(attend, config, "cudnn", "bfloat16")
    measure(
        f"T5's attention, forward and backward, {config.rows} packed rows of {config.source} + {config.target}",
        sides,
        config.clock,
        unit="stack",
        check=apart,
    )


if __name__ == "__main__":
    main()
