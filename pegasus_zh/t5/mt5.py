"""mT5 / T5 v1.1 as pure functions over a pytree of parameters (Xue et al. 2021, arXiv 2010.11934).

Pre-norm residual blocks with RMSNorm, gated GELU, relative position buckets shared by a stack's layers, no biases,
unscaled attention, untied head. The layers of a stack are one pytree with a leading axis L, scanned.

Letters: B batch, S source length, T target length, D model, N heads, H head size, F feed-forward, V vocabulary,
L layers.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from rope.layers.attention import attention, prepare
from rope.layers.dropout import dropout
from rope.layers.kernels import Bias, Implementation, Mask
from rope.layers.masks import Segments, segment_places
from rope.layers.primitives import Remat, matmul, recomputed, rms_norm, split_heads, stream
from rope.positions.buckets import RelativeBias
from training.partition import Dtype, gather, normal, on_one_cpu, ones, size_of, spec
from training.ranges import check_choices, check_ranges


@dataclass(frozen=True, kw_only=True)
class MT5Config:
    vocabulary: int = 50_000
    """Rows of the embedding and columns of the head (V)."""
    width: int = 768
    """Model dimension (D)."""
    feed_forward: int = 2048
    """Inner dimension of the feed-forward layers (F)."""
    heads: int = 12
    """Attention heads (N)."""
    head_size: int = 64
    """Dimension of one head (H); N x H need not be D."""
    layers: int = 12
    """Layers of the encoder (L), and as many of the decoder."""
    decoder_layers: int | None = None
    """Layers of the decoder, where they are not as many."""
    buckets: int = 32
    """Relative position buckets."""
    max_distance: int = 128
    """Distance beyond which all positions share a bucket."""
    dropout: float = 0.1
    """Dropout of embeddings, attention weights, feed-forward and residual branches while training."""
    epsilon: float = 1e-6
    """RMSNorm's epsilon."""
    gelu: Literal["tanh", "erf"] = "tanh"
    """T5 v1.1's approximation by tanh, or the exact function as bert4keras has it."""
    scaled_output: bool = False
    """The decoder's output times D^-0.5 before the head, as in T5 v1.0 and bert4keras."""
    cross_bias: bool = False
    """The decoder's relative bias in its cross-attention too, as T5-PEGASUS was trained by bert4keras."""
    attention: Implementation = "auto"
    """What computes attention: see rope.layers.attention."""
    dtype: Dtype = "float32"
    """Of the computation; parameters, norms, softmax and loss are float32 in any case."""
    remat: Remat = "none"
    """What the backward pass recomputes: nothing, all but products and what is as dear (dots), or whole layers (full):
    see rope.layers.primitives.recomputed."""

    def __post_init__(self):
        check_choices(self)
        sizes = ("vocabulary", "width", "feed_forward", "heads", "head_size", "layers", "decoder_layers")
        check_ranges(self, **dict.fromkeys(sizes, 1), buckets=4, max_distance=2, dropout=(0, 1), epsilon=0)
        if self.max_distance <= self.buckets // 2:  # its logarithm would be divided by none
            raise ValueError(
                f"max_distance is {self.max_distance}: it must be above half of the {self.buckets} buckets"
            )

    @property
    def decoder_depth(self) -> int:
        """Layers of the decoder."""
        return self.decoder_layers or self.layers


PRESETS: dict[str, MT5Config] = {
    "tiny": MT5Config(vocabulary=4000, width=128, feed_forward=256, heads=2, layers=2),
    "t5-pegasus-small": MT5Config(width=512, feed_forward=1024, heads=6, layers=8),
    "t5-pegasus-base": MT5Config(),
    "mt5-small": MT5Config(vocabulary=250_112, width=512, feed_forward=1024, heads=6, layers=8),
    "mt5-base": MT5Config(vocabulary=250_112),
    "mt5-large": MT5Config(vocabulary=250_112, width=1024, feed_forward=2816, heads=16, layers=24),
    "mt5-xl": MT5Config(vocabulary=250_112, width=2048, feed_forward=5120, heads=32, layers=24),
    "mt5-xxl": MT5Config(vocabulary=250_112, width=4096, feed_forward=10_240, heads=64, layers=24),
}


@struct.dataclass
class Attention:
    query: jax.Array  # [D, N H]; kernels stay 2-D so that Adafactor factors them
    key: jax.Array  # [D, N H]
    value: jax.Array  # [D, N H]
    output: jax.Array  # [N H, D]


@struct.dataclass
class FeedForward:
    gate: jax.Array  # [D, F], the side that GELU is applied to
    linear: jax.Array  # [D, F]
    output: jax.Array  # [F, D]


@struct.dataclass
class Block:
    self_norm: jax.Array  # [D]
    self_attention: Attention
    cross_norm: jax.Array | None  # [D]; None in the encoder
    cross_attention: Attention | None
    feed_forward_norm: jax.Array  # [D]
    feed_forward: FeedForward

    @property
    def cross(self) -> tuple[jax.Array, Attention]:
        """The cross-attention's norm, and that. ValueError in the encoder."""
        if self.cross_norm is None or self.cross_attention is None:
            raise ValueError("a block of the encoder has no cross-attention")
        return self.cross_norm, self.cross_attention


@struct.dataclass
class Stack:
    relative_bias: jax.Array  # [buckets, N]
    blocks: Block  # every array with a leading L
    final_norm: jax.Array  # [D]


@struct.dataclass
class MT5:
    embedding: jax.Array  # [V, D], shared by encoder and decoder
    encoder: Stack
    decoder: Stack
    head: jax.Array  # [D, V]


ATTENTION = {
    "query": ("embed", "heads"),
    "key": ("embed", "heads"),
    "value": ("embed", "heads"),
    "output": ("heads", "embed"),
}
FEED_FORWARD = {"gate": ("embed", "mlp"), "linear": ("embed", "mlp"), "output": ("mlp", "embed")}


def init(config: MT5Config, key: jax.Array) -> MT5:
    """Random parameters: T5's initialisation, where every product keeps the variance of a normalised input at 1.

    Mesh TensorFlow scales the queries' kernel by (D H)^-0.5, which stands for the missing scale of the attention.
    """
    c, keys = config, iter(jax.random.split(key, 64))
    inner = c.heads * c.head_size

    def stack(layers: int, is_decoder: bool) -> Stack:
        def stacked(rows: int, columns: int, names: tuple[str, str], variance: float) -> jax.Array:
            return normal(next(keys), (layers, rows, columns), (None, *names), variance**-0.5)

        def attention_() -> Attention:
            return Attention(
                query=stacked(c.width, inner, ATTENTION["query"], c.width * c.head_size),
                key=stacked(c.width, inner, ATTENTION["key"], c.width),
                value=stacked(c.width, inner, ATTENTION["value"], c.width),
                output=stacked(inner, c.width, ATTENTION["output"], inner),
            )

        block = Block(
            self_norm=ones((layers, c.width)),
            self_attention=attention_(),
            cross_norm=ones((layers, c.width)) if is_decoder else None,
            cross_attention=attention_() if is_decoder else None,
            feed_forward_norm=ones((layers, c.width)),
            feed_forward=FeedForward(
                gate=stacked(c.width, c.feed_forward, FEED_FORWARD["gate"], c.width),
                linear=stacked(c.width, c.feed_forward, FEED_FORWARD["linear"], c.width),
                output=stacked(c.feed_forward, c.width, FEED_FORWARD["output"], c.feed_forward),
            ),
        )
        bias = normal(next(keys), (c.buckets, c.heads), (None, "heads"), c.width**-0.5)
        return Stack(relative_bias=bias, blocks=block, final_norm=ones((c.width,)))

    return MT5(
        embedding=normal(next(keys), (c.vocabulary, c.width), ("vocab", "embed"), 1.0),
        encoder=stack(c.layers, is_decoder=False),
        decoder=stack(c.decoder_depth, is_decoder=True),
        head=normal(next(keys), (c.width, c.vocabulary), ("embed", "vocab"), c.width**-0.5),
    )


@jax.named_scope("projections")
def project(x: jax.Array, kernel: jax.Array, config: MT5Config) -> jax.Array:
    """[B, T, D] and a kernel [D, N H] -> the heads [B, T, N, H]."""
    return split_heads(matmul(x, kernel, ("embed", "heads")), config.heads)


@jax.named_scope("projections")
def merge(heads: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, T, N, H] and a kernel [N H, D] -> [B, T, D], summed over the devices that hold the heads."""
    return matmul(heads.reshape(*heads.shape[:2], -1), kernel, ("heads", "embed"))


@jax.named_scope("feed_forward")
def feed_forward(x: jax.Array, p: FeedForward, config: MT5Config, key: jax.Array | None = None) -> jax.Array:
    """(gelu(x gate) * (x linear)) output (Shazeer 2020, arXiv 2002.05202): [B, T, D] -> [B, T, D]."""
    gate, side = matmul(x, p.gate, ("embed", "mlp")), matmul(x, p.linear, ("embed", "mlp"))
    hidden = dropout(jax.nn.gelu(gate, approximate=config.gelu == "tanh") * side, config.dropout, key)
    return matmul(hidden, p.output, ("mlp", "embed"))


@jax.named_scope("embedding")
def embed(model: MT5, ids: jax.Array, config: MT5Config) -> jax.Array:
    """Ids [B, T] -> vectors [B, T, D] in the computation's type."""
    table = gather(model.embedding, "vocab", "embed", dtype=jnp.dtype(config.dtype))
    return table.at[ids].get(out_sharding=spec("batch", None, None))


def run_stack(
    stack: Stack,
    x: jax.Array,
    mask: Segments,
    config: MT5Config,
    key: jax.Array | None,
    encoded: jax.Array | None = None,
    cross_mask: Segments | None = None,
) -> jax.Array:
    """All layers of the encoder, or with `encoded` [B, S, D] of the decoder, then the final norm: [B, T, D]."""
    c = config
    bias = partial(RelativeBias, stack.relative_bias, bidirectional=encoded is None, max_distance=c.max_distance)
    like = lambda x: jax.ShapeDtypeStruct((*x.shape[:2], c.heads, c.head_size), x.dtype)  # noqa: E731
    prepared = partial(prepare, c.attention, like(x), dropped=c.dropout > 0 and key is not None)
    seen = prepared(like(x), bias=bias(), mask=mask)
    cross_seen: tuple[Bias | None, Mask | None] = (None, None)
    if encoded is not None and cross_mask is not None:
        cross_bias = None
        if c.cross_bias:  # by the buckets of causal self-attention: all keys right of the query fall in bucket 0
            cross_bias = bias(places=segment_places(cross_mask.query, cross_mask.key))
        cross_seen = prepared(like(encoded), bias=cross_bias, mask=cross_mask)
    first, last, layer_key = jax.random.split(key, 3) if key is not None else (None, None, None)

    def attend(
        p: Attention, x: jax.Array, memory: jax.Array, seen: tuple[Bias | None, Mask | None], key: jax.Array | None
    ) -> jax.Array:
        mixed = attention(
            project(x, p.query, c),
            project(memory, p.key, c),
            project(memory, p.value, c),
            bias=seen[0],
            mask=seen[1],
            scale=1.0,
            dropout_rate=c.dropout,
            dropout_key=key,
            implementation=c.attention,
        )
        return merge(mixed, p.output)

    def layer(x: jax.Array, inputs: tuple[Block, jax.Array | None]) -> tuple[jax.Array, None]:
        p, key = inputs
        keys = jax.random.split(key, 6) if key is not None else [None] * 6
        h = rms_norm(x, p.self_norm, c.epsilon)
        x = stream(x + dropout(attend(p.self_attention, h, h, seen, keys[0]), c.dropout, keys[1]))
        if encoded is not None:
            norm, cross = p.cross
            h = rms_norm(x, norm, c.epsilon)
            x = stream(x + dropout(attend(cross, h, encoded, cross_seen, keys[2]), c.dropout, keys[3]))
        h = rms_norm(x, p.feed_forward_norm, c.epsilon)
        x = x + dropout(feed_forward(h, p.feed_forward, c, keys[4]), c.dropout, keys[5])
        return x, None

    layers = len(stack.blocks.self_norm)
    keys = jax.random.split(layer_key, layers) if layer_key is not None else None
    # On one CPU the loop is unrolled: what it would stack for the backward pass costs more than a longer compilation.
    unroll = layers if on_one_cpu() else 1
    x, _ = jax.lax.scan(recomputed(layer, c.remat), dropout(x, c.dropout, first), (stack.blocks, keys), unroll=unroll)
    return dropout(rms_norm(x, stack.final_norm, c.epsilon), c.dropout, last)


def encode(
    model: MT5, source: jax.Array, segments: jax.Array, config: MT5Config, key: jax.Array | None = None
) -> jax.Array:
    """Source ids [B, S] and their segments (0 padding) -> [B, S, D]. `key` turns dropout on."""
    return run_encoder(model, embed(model, source, config), segments, config, key)


def run_encoder(
    model: MT5, x: jax.Array, segments: jax.Array, config: MT5Config, key: jax.Array | None = None
) -> jax.Array:
    """`encode` of embedded ids [B, S, D]."""
    return run_stack(model.encoder, x, Segments(segments, segments), config, key)


def decode(
    model: MT5,
    inputs: jax.Array,
    segments: jax.Array,
    encoded: jax.Array,
    source_segments: jax.Array,
    config: MT5Config,
    key: jax.Array | None = None,
) -> jax.Array:
    """Target inputs [B, T] (labels shifted right) and what `encode` made -> hidden states [B, T, D],
    before the head."""
    return run_decoder(model, embed(model, inputs, config), segments, encoded, source_segments, config, key)


def run_decoder(
    model: MT5,
    x: jax.Array,
    segments: jax.Array,
    encoded: jax.Array,
    source_segments: jax.Array,
    config: MT5Config,
    key: jax.Array | None = None,
) -> jax.Array:
    """`decode` of embedded inputs [B, T, D]."""
    mask, cross_mask = Segments(segments, segments, causal=True), Segments(segments, source_segments)
    return scale_output(run_stack(model.decoder, x, mask, config, key, encoded, cross_mask), config)


def scale_output(hidden: jax.Array, config: MT5Config) -> jax.Array:
    """What goes into the head: [B, T, D] -> [B, T, D]."""
    return hidden * config.width**-0.5 if config.scaled_output else hidden


def logits(model: MT5, hidden: jax.Array, config: MT5Config) -> jax.Array:
    """Hidden states [B, T, D] -> float32 logits [B, T, V]."""
    head = gather(model.head, "embed", "vocab", dtype=hidden.dtype)
    return jnp.einsum("BTD,DV->BTV", hidden, head, preferred_element_type=jnp.float32)


def sizes(config: MT5Config) -> dict[str, tuple[str, int]]:
    """The dimensions that a mesh may cut, for training.partition.check_divisible."""
    return {
        "heads": ("heads", config.heads),
        "feed_forward": ("mlp", config.feed_forward),
        "width": ("embed", config.width),
        "vocabulary": ("vocab", config.vocabulary),
    }


def parameters(config: MT5Config) -> int:
    """The number of parameters, by shape alone."""
    return size_of(partial(init, config))


def flops_per_row(config: MT5Config, source: int, target: int) -> int:
    """FLOPs of a training step for one row of `source` and `target` positions: three times the forward products.

    Convention: every position of the row counts, padding too; causal attention is not halved; recomputation by remat,
    norms, softmax and embedding look-ups do not count; a multiply-add is 2.
    """
    c, inner = config, config.heads * config.head_size
    ff = 3 * c.width * c.feed_forward
    encoder = source * (4 * c.width * inner + ff) + 2 * source * source * inner
    decoder = (
        target * (6 * c.width * inner + ff) + 2 * source * c.width * inner + 2 * target * (target + source) * inner
    )
    return 6 * (c.layers * encoder + c.decoder_depth * decoder + target * c.width * c.vocabulary)


def with_vocabulary(config: MT5Config, size: int) -> MT5Config:
    """The config for a vocabulary of `size` entries, rounded up to a multiple of 16 so that a mesh can cut it."""
    return replace(config, vocabulary=-(-size // 16) * 16)
