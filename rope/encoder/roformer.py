"""RoFormer and BERT: one encoder, whose positions are rotary (Su et al. 2021, arXiv 2104.09864), learned
(Devlin et al. 2019, arXiv 1810.04805), or any other of this package.

Letters: B batch, T positions, D model, E embedding, V vocabulary, P rows of a position table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rope.layers.dropout import dropout
from rope.layers.masks import Segments, segment_lengths, segment_positions
from rope.layers.primitives import Linear, Norm, init_linear, init_norm, layer_norm, linear
from rope.layers.transformer import STD, Block, TransformerConfig, init_blocks, run_blocks
from rope.positions.angles import SINUSOIDAL, Layout, frequencies, rows_of, schedule
from rope.positions.buckets import RelativeBias
from rope.positions.extension import BY_LENGTH, Extension, check_fits, extended_rotation, hierarchical
from rope.positions.rerope import LongRotation
from rope.positions.rotary import Rotation
from rope.positions.sinusoidal import sinusoidal
from training.partition import gather, normal, size_of, spec, zeros
from training.ranges import check_ranges

Positions = Literal["rotary", "learned", "sinusoidal", "trainable", "buckets", "none"]
BUCKETS = 32
PoolerKind = Literal["none", "tanh", "linear"]
SINUSOID = STD * 2**0.5  # amplitude of sinusoids beside embeddings of N(0, STD²): the same variance


@dataclass(frozen=True, kw_only=True)
class RoFormerConfig(TransformerConfig):
    vocabulary: int = 50_000
    """Rows of the embedding (V)."""
    embedding: int | None = None
    """Width of the embeddings (E), projected to the model's; None: the model's width."""
    types: int = 2
    """Token types, such as first and second sentence."""
    positions: Positions = "rotary"
    """rotary; learned (BERT's table); sinusoidal, or with trainable frequencies; T5's relative buckets; none."""
    theta: str = SINUSOIDAL
    """Frequencies of rotary and sinusoidal positions: 10000^-t, 1000^-t, t^2, t, …"""
    layout: Layout = "interleaved"
    """Which dimensions of a head a rotary position turns together; half is Llama's."""
    extension: Extension = field(default_factory=Extension)
    """Positions beyond the trained length."""
    max_positions: int = 512
    """learned: rows of the table (P)."""
    pooler: PoolerKind = "tanh"
    """A dense layer over the first token: BERT's with tanh, SimBERT's without."""
    head: bool = True
    """The masked language model's head, tied to the embedding."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, vocabulary=1, embedding=1, types=1, max_positions=1)
        schedule(self.theta)
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"width / heads is {self.head_size}: rotary positions need an even head size")
        wanted = "learned" if self.extension.method == "hierarchical" else "rotary"
        if self.extension.method != "none" and self.positions != wanted:
            raise ValueError(f"positions are {self.positions}: extension {self.extension.method} is for {wanted} ones")
        check_fits(self.extension, self.head_size, self.theta)

    @property
    def embedding_width(self) -> int:
        return self.embedding or self.width


PRESETS: dict[str, RoFormerConfig] = {
    "tiny": RoFormerConfig(vocabulary=4000, width=128, feed_forward=512, heads=2, layers=2),
    # The shape of BERT-mini (Turc et al. 2019, arXiv 1908.08962): an hour of two cores teaches it something.
    "roformer-char-mini": RoFormerConfig(vocabulary=8000, width=256, feed_forward=1024, heads=4, layers=4),
    "roformer-char-small": RoFormerConfig(vocabulary=12_000, width=384, feed_forward=1536, heads=6, layers=6),
    "roformer-small": RoFormerConfig(width=384, feed_forward=1536, heads=6, layers=6),
    "roformer-char-base": RoFormerConfig(vocabulary=12_000),
    "roformer-base": RoFormerConfig(),
    "bert-base-chinese": RoFormerConfig(vocabulary=21_128, positions="learned"),
}


@struct.dataclass
class Embeddings:
    word: jax.Array  # [V, E]
    type: jax.Array  # [types, E]
    position: jax.Array | None  # learned [P, E], trainable [E / 2], buckets [R, N]
    norm: Norm  # [E]
    project: Linear | None  # [E, D]


@struct.dataclass
class Head:
    transform: Linear  # [D, E]
    norm: Norm  # [E]
    bias: jax.Array  # [V]


@struct.dataclass
class RoFormer:
    embeddings: Embeddings
    blocks: Block
    pooler: Linear | None  # [D, D]
    head: Head | None


def init(config: RoFormerConfig, key: jax.Array) -> RoFormer:
    """Random parameters: N(0, 0.02²), biases 0, norms 1."""
    c, e, keys = config, config.embedding_width, iter(jax.random.split(key, 8))
    position = {
        "learned": lambda: normal(next(keys), (c.max_positions, e), (None, "embed"), STD),
        "trainable": lambda: frequencies(e, c.theta),
        "buckets": lambda: normal(next(keys), (BUCKETS, c.heads), (None, "heads"), STD),
    }
    return RoFormer(
        embeddings=Embeddings(
            word=normal(next(keys), (c.vocabulary, e), ("vocab", "embed"), STD),
            type=normal(next(keys), (c.types, e), (None, "embed"), STD),
            position=position[c.positions]() if c.positions in position else None,
            norm=init_norm((e,)),
            project=None if e == c.width else init_linear(next(keys), (e, c.width), ("embed", None), STD),
        ),
        blocks=init_blocks(c, next(keys)),
        pooler=None if c.pooler == "none" else init_linear(next(keys), (c.width, c.width), ("embed", None), STD),
        head=Head(
            transform=init_linear(next(keys), (c.width, e), ("embed", None), STD),
            norm=init_norm((e,)),
            bias=zeros((c.vocabulary,), ("vocab",)),
        )
        if c.head
        else None,
    )


def encode_layers(
    model: RoFormer,
    ids: jax.Array | np.ndarray,
    segments: jax.Array | np.ndarray,
    config: RoFormerConfig,
    *,
    types: jax.Array | None = None,
    positions: jax.Array | None = None,
    rotation: Rotation | LongRotation | None = None,
    mask: jax.Array | Segments | None = None,
    key: jax.Array | None = None,
    outputs: Sequence[int] = (-1,),
) -> tuple[jax.Array, ...]:
    """Ids [B, T] and segments (0 padding) -> the hidden states [B, T, D] after each layer of `outputs`
    (0 the first, -1 the last).

    Segments are 1 for the tokens of a row's one text; what BERT calls so are the types [B, T], 0 unless given.
    Positions [B, T] restart in each segment. Who sees whom follows from the segments, unless a mask is given instead
    (rope.layers.masks.unilm_mask). Relative buckets take the places in the row for positions. Rotary positions
    follow from the config, unless their rotation is given. `key` turns dropout on.
    Raises ValueError for rows longer than a learned table, for shapes that do not belong together, for a layer that is
    not there, and for NumPy ids that the vocabulary does not have (inside a compiled program they make NaN).
    """
    c, p = config, model.embeddings
    if ids.ndim != 2 or not ids.size or segments.shape != ids.shape:
        raise ValueError(f"ids {ids.shape} and segments {segments.shape}: both must be [B, T], with B and T from 1")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"ids of {ids.dtype}: they must be integers")
    if isinstance(ids, np.ndarray) and not 0 <= ids.min() <= ids.max() < c.vocabulary:
        raise ValueError(f"ids from {ids.min()} to {ids.max()}: the model's vocabulary ends at {c.vocabulary - 1}")
    for name, x in (("types", types), ("positions", positions)):
        if x is not None and x.shape != ids.shape:
            raise ValueError(f"{name} {x.shape}: they must be {ids.shape}, as the ids")
    ids, segments = jnp.asarray(ids), jnp.asarray(segments)
    positions = segment_positions(segments) if positions is None else positions
    first, key = jax.random.split(key) if key is not None else (None, None)
    x = embed(p, ids, types, positions, c, first)
    if c.positions == "rotary" and rotation is None:
        length = segment_lengths(segments) if c.extension.method in BY_LENGTH else ids.shape[1]  # exports need none
        rotation = extended_rotation(c.extension, positions, c.head_size, length, c.theta)
    return run_blocks(
        model.blocks,
        x,
        c,
        mask=Segments(segments, segments) if mask is None else mask,
        rotation=rotation,
        layout=c.layout,
        bias=RelativeBias(position_of(p), bidirectional=True) if c.positions == "buckets" else None,
        key=key,
        outputs=outputs,
    )


def encode(
    model: RoFormer,
    ids: jax.Array | np.ndarray,
    segments: jax.Array | np.ndarray,
    config: RoFormerConfig,
    **options: Any,
) -> jax.Array:
    """Ids [B, T] and segments (0 padding) -> the last hidden states [B, T, D];
    options and errors are those of `encode_layers`."""
    return encode_layers(model, ids, segments, config, **options)[0]


def embed(
    p: Embeddings,
    ids: jax.Array,
    types: jax.Array | None,
    positions: jax.Array,
    config: RoFormerConfig,
    key: jax.Array | None = None,
) -> jax.Array:
    """Ids, types (all 0 by default) and positions [B, T] -> what goes into the first layer [B, T, D]."""
    x = _sum_embeddings(p, ids, types, positions, config)
    x = dropout(layer_norm(x, p.norm, config.epsilon), config.dropout, key).astype(config.dtype)
    return x if p.project is None else linear(x, p.project, ("embed", None))


def _sum_embeddings(
    p: Embeddings, ids: jax.Array, types: jax.Array | None, positions: jax.Array, c: RoFormerConfig
) -> jax.Array:
    cut = spec("batch", None, None)
    x = rows_of(gather(p.word, "vocab", "embed"), ids, cut)
    kinds = gather(p.type, None, "embed")
    x = x + (kinds[:1][None] if types is None else rows_of(kinds, types, cut))
    match c.positions:
        case "learned":
            table = gather(position_of(p), None, "embed")
            if ids.shape[1] > len(table) and c.extension.method == "hierarchical":
                table = hierarchical(table, ids.shape[1])
            if ids.shape[1] > len(table):
                raise ValueError(
                    f"rows of {ids.shape[1]} positions: the model's table of learned ones ends at {len(table)}"
                )
            x = x + rows_of(table, positions, cut)
        case "sinusoidal":
            x = x + SINUSOID * sinusoidal(positions, frequencies(x.shape[-1], c.theta))
        case "trainable":
            x = x + SINUSOID * sinusoidal(positions, position_of(p))
    return x


def position_of(embeddings: Embeddings) -> jax.Array:
    """What is learned of positions. ValueError without any."""
    if embeddings.position is None:
        raise ValueError("the model has no learned positions")
    return embeddings.position


def pool(model: RoFormer, hidden: jax.Array, config: RoFormerConfig) -> jax.Array:
    """Hidden states [B, T, D] -> what the pooler makes of each row's first token: [B, D].
    ValueError without a pooler."""
    out = linear(hidden[:, :1], pooler_of(model), ("embed", None))[:, 0]
    return jnp.tanh(out) if config.pooler == "tanh" else out


def pooler_of(model: RoFormer) -> Linear:
    """ValueError without one."""
    if model.pooler is None:
        raise ValueError("the model has no pooler")
    return model.pooler


def head_of(model: RoFormer) -> Head:
    """ValueError without one."""
    if model.head is None:
        raise ValueError("the model has no masked language model's head")
    return model.head


def before_logits(model: RoFormer, hidden: jax.Array, config: RoFormerConfig) -> jax.Array:
    """The head up to its product with the embedding: [B, T, D] -> [B, T, E]. ValueError without a head."""
    head = head_of(model)
    x = jax.nn.gelu(linear(hidden, head.transform, ("embed", None)), approximate=config.gelu == "tanh")
    return layer_norm(x, head.norm, config.epsilon)


def logits(model: RoFormer, hidden: jax.Array, config: RoFormerConfig) -> jax.Array:
    """Hidden states [B, T, D] -> float32 logits [B, T, V]. ValueError without a head."""
    x = before_logits(model, hidden, config)
    table = gather(model.embeddings.word, "vocab", "embed", dtype=x.dtype)
    return jnp.einsum("BTE,VE->BTV", x, table, preferred_element_type=jnp.float32) + head_of(model).bias[None, None]


def sizes(config: RoFormerConfig) -> dict[str, tuple[str, int]]:
    """The dimensions that a mesh may cut, for training.partition.check_divisible."""
    return {
        "heads": ("heads", config.heads),
        "feed_forward": ("mlp", config.feed_forward),
        "width": ("embed", config.width),
        "embedding": ("embed", config.embedding_width),
        "vocabulary": ("vocab", config.vocabulary),
    }


def parameters(config: RoFormerConfig) -> int:
    """The number of parameters, by shape alone."""
    return size_of(partial(init, config))
