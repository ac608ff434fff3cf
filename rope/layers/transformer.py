"""The encoder that RoFormer, BERT and ViT share: blocks of self-attention and feed-forward, norms after or before them.

The layers are one pytree with a leading axis L, scanned. Letters: B batch, T positions, D model, N heads, H head size,
F feed-forward, L layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from rope.layers.attention import attention, prepare
from rope.layers.dropout import dropout
from rope.layers.kernels import Implementation
from rope.layers.masks import Segments
from rope.layers.primitives import (
    Linear,
    Norm,
    Remat,
    init_linear,
    init_norm,
    layer_norm,
    linear,
    recomputed,
    split_heads,
    stream,
)
from rope.positions.angles import Layout
from rope.positions.blocks import BlockRotation
from rope.positions.buckets import RelativeBias
from rope.positions.rerope import LongRotation
from rope.positions.rotary import Rotation
from training.partition import Dtype, on_one_cpu
from training.ranges import check_choices, check_ranges

Own = Rotation | BlockRotation | None  # a layer's
STD = 0.02  # of initial kernels and embeddings (Devlin et al. 2019)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    width: int = 768
    """Model dimension (D)."""
    feed_forward: int = 3072
    """Inner dimension of the feed-forward layers (F)."""
    heads: int = 12
    """Attention heads (N), each of D / N dimensions."""
    layers: int = 12
    """Layers (L)."""
    norm: Literal["post", "pre"] = "post"
    """LayerNorm after each residual sum, as BERT has it, or before each branch, as ViT has it."""
    gelu: Literal["erf", "tanh"] = "erf"
    """The exact function, or its approximation by tanh."""
    epsilon: float = 1e-12
    """LayerNorm's epsilon."""
    dropout: float = 0.1
    """Of embeddings and residual branches while training."""
    attention_dropout: float = 0.1
    """Of attention weights while training."""
    attention: Implementation = "auto"
    """What computes attention: see rope.layers.attention."""
    dtype: Dtype = "float32"
    """Of the computation; parameters, norms, softmax and loss are float32 in any case."""
    remat: Remat = "none"
    """What the backward pass recomputes: nothing, all but products and what is as dear (dots), or whole layers (full):
    see rope.layers.primitives.recomputed."""

    def __post_init__(self):
        check_choices(self)
        names = ("width", "feed_forward", "heads", "layers")
        check_ranges(self, **dict.fromkeys(names, 1), epsilon=0, dropout=(0, 1), attention_dropout=(0, 1))
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}: it must be a multiple of heads, {self.heads}")

    @property
    def head_size(self) -> int:
        return self.width // self.heads


@struct.dataclass
class Block:
    query: Linear  # [D, D], as key, value and output
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    inner: Linear  # [D, F]
    outer: Linear  # [F, D]
    feed_forward_norm: Norm


def init_blocks(config: TransformerConfig, key: jax.Array) -> Block:
    """Random parameters of all layers."""
    c, keys = config, iter(jax.random.split(key, 6))

    def kernel(rows: int, columns: int, *names: str) -> Linear:
        return init_linear(next(keys), (c.layers, rows, columns), names, STD)

    return Block(
        query=kernel(c.width, c.width, "embed", "heads"),
        key=kernel(c.width, c.width, "embed", "heads"),
        value=kernel(c.width, c.width, "embed", "heads"),
        output=kernel(c.width, c.width, "heads", "embed"),
        attention_norm=init_norm((c.layers, c.width)),
        inner=kernel(c.width, c.feed_forward, "embed", "mlp"),
        outer=kernel(c.feed_forward, c.width, "mlp", "embed"),
        feed_forward_norm=init_norm((c.layers, c.width)),
    )


def run_block(
    x: jax.Array,
    p: Block,
    config: TransformerConfig,
    mix: Callable[..., jax.Array],
    key: jax.Array | None = None,
    memory: jax.Array | None = None,
) -> jax.Array:
    """One layer: [B, T, D] -> [B, T, D]. `mix` is its attention: of queries, keys and values [B, T, N, H] and a
    dropout's key. Keys and values are those of a memory [B, S, D], if not of x itself."""
    c, keys = config, jax.random.split(key, 3) if key is not None else [None] * 3

    @jax.named_scope("projections")
    def attend(x: jax.Array, memory: jax.Array) -> jax.Array:
        of = ((x, p.query), (memory, p.key), (memory, p.value))
        heads = (split_heads(linear(y, w, ("embed", "heads")), c.heads) for y, w in of)
        return linear(mix(*heads, keys[0]).reshape(x.shape), p.output, ("heads", "embed"))

    @jax.named_scope("feed_forward")
    def feed_forward(x: jax.Array) -> jax.Array:
        hidden = jax.nn.gelu(linear(x, p.inner, ("embed", "mlp")), approximate=c.gelu == "tanh")
        return linear(hidden, p.outer, ("mlp", "embed"))

    memory = x if memory is None else memory
    if c.norm == "post":
        x = stream(layer_norm(x + dropout(attend(x, memory), c.dropout, keys[1]), p.attention_norm, c.epsilon))
        return layer_norm(x + dropout(feed_forward(x), c.dropout, keys[2]), p.feed_forward_norm, c.epsilon)
    normed = (layer_norm(y, p.attention_norm, c.epsilon) for y in (x, memory))
    x = stream(x + dropout(attend(*normed), c.dropout, keys[1]))
    return x + dropout(feed_forward(layer_norm(x, p.feed_forward_norm, c.epsilon)), c.dropout, keys[2])


def run_blocks(
    blocks: Block,
    x: jax.Array,
    config: TransformerConfig,
    *,
    mask: jax.Array | Segments | None = None,
    rotation: Rotation | LongRotation | BlockRotation | None = None,
    rotations: Own = None,
    layout: Layout = "interleaved",
    bias: jax.Array | RelativeBias | None = None,
    key: jax.Array | None = None,
    outputs: Sequence[int] = (-1,),
) -> tuple[jax.Array, ...]:
    """[B, T, D] -> [B, T, D] of each layer in `outputs`, numbered as a list is. `key` turns dropout on.

    rotation: one for all layers; rotations: one of each, with a leading axis L.
    Raises ValueError for a layer that is not there.
    """
    c = config
    if wrong := [n for n in outputs if not -c.layers <= n < c.layers]:
        raise ValueError(f"there is no layer {wrong[0]}: they are 0 to {c.layers - 1}, or -1 for the last and so on")
    numbers = [n % c.layers for n in outputs]
    heads = jax.ShapeDtypeStruct((*x.shape[:2], c.heads, c.head_size), x.dtype)
    kinds = {"dropped": c.attention_dropout > 0 and key is not None, "long": isinstance(rotation, LongRotation)}
    bias, mask = prepare(c.attention, heads, heads, bias=bias, mask=mask, **kinds)

    def mix(own: Own, query: jax.Array, memory: jax.Array, value: jax.Array, key: jax.Array | None) -> jax.Array:
        return attention(
            query,
            memory,
            value,
            rotation=rotation if own is None else own,
            layout=layout,
            bias=bias,
            mask=mask,
            dropout_rate=c.attention_dropout,
            dropout_key=key,
            implementation=c.attention,
        )

    @partial(recomputed, remat=c.remat)
    def layer(x: jax.Array, inputs: tuple[Block, jax.Array | None, Own]) -> jax.Array:
        block, key, own = inputs
        return run_block(x, block, c, partial(mix, own), key)

    wanted = [n for n in numbers if n < c.layers - 1]  # the last is what the scan ends with

    def body(carry, inputs):
        x, kept = carry
        number, *inputs = inputs
        x = layer(x, inputs)
        return (x, [jnp.where(number == n, x, k) for n, k in zip(wanted, kept, strict=True)]), None

    keys = jax.random.split(key, c.layers) if key is not None else None
    # On one CPU the loop is unrolled: what it would stack for the backward pass costs more than a longer compilation.
    unroll = c.layers if on_one_cpu() else 1
    begin = (x, [jnp.zeros_like(x) for _ in wanted])
    (x, kept), _ = jax.lax.scan(body, begin, (jnp.arange(c.layers), blocks, keys, rotations), unroll=unroll)
    found = dict(zip(wanted, kept, strict=True)) | {c.layers - 1: x}
    return tuple(found[n] for n in numbers)
