"""The one attention function of the project.

Letters: B batch, T query length, S key length, N heads, H head size.
"""

import jax
import jax.numpy as jnp

from rope.layers.dropout import attention_dropout
from rope.layers.kernels import Asked, Bias, Implementation, Kernel, Mask, Shaped, choose, share
from rope.layers.masks import MASKED, Segments
from rope.positions.angles import Layout
from rope.positions.blocks import BlockRotation, turn_blocks
from rope.positions.buckets import RelativeBias
from rope.positions.rerope import LongRotation, long_scores
from rope.positions.rotary import Rotation, rotate


@jax.named_scope("attention")
def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    rotation: Rotation | LongRotation | BlockRotation | None = None,
    layout: Layout = "interleaved",
    bias: Bias | None = None,
    mask: Mask | None = None,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """softmax(scale * query key^T + bias, where mask) value:
    [B, T, N, H] from query [B, T, N, H], key and value [B, S, K, H].

    K heads of keys and values serve N/K queries' heads each (grouped-query attention, Ainslie et al. 2023, arXiv
    2305.13245). `rotation` turns queries and keys of the same positions first; where they differ, as in decoding,
    `rotate` them before. A dense bias and mask broadcast to [B, N, T, S]; where many layers share them, `prepare` them
    once. scale is H^-0.5 by default (T5 uses 1). Scores and softmax are float32.

    Which weights are dropped is the same by xla and by flash, and on every mesh (WeightDropout). Scores are to be
    finite and above -5e8: behind a mask NaN, infinities and what is below reach results and gradients by flash, and by
    xla may not. flash and cudnn are differentiable in reverse mode alone.

    implementation: xla is legal everywhere, flash is Pallas's for TPUs (rope/layers/flash), cudnn NVIDIA's; auto is
    flash on a TPU where it is legal, and else xla. Raises ValueError for one that is not legal, with the reason, and
    for heads or rotations that do not fit.
    """
    _check(query, key, value, rotation, bias, mask)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(rotation, BlockRotation):
        query, key, rotation = turn_blocks(query, rotation), turn_blocks(key, rotation), None
    long = isinstance(rotation, LongRotation)
    dropped = attention_dropout(dropout_rate, dropout_key, query, key.shape[1])
    asked = Asked(query=query, key=key, value=value, bias=bias, mask=mask, dropped=dropped is not None, long=long)
    kernel = choose(implementation, asked)
    if isinstance(rotation, Rotation) and not (kernel is not None and kernel.turns):
        query, key, rotation = rotate(query, rotation, layout), rotate(key, rotation, layout), None
    if kernel is not None:
        turn = (rotation, layout) if isinstance(rotation, Rotation) else None
        return kernel.run(query, key, value, *_taken(kernel, query, key, bias, mask), scale, dropped, turn)
    dense_bias, dense_mask = _dense(query, key, bias, mask)
    key, value = share(key, query), share(value, query)
    if isinstance(rotation, LongRotation):
        scores = long_scores(query * scale, key, rotation, layout)
    else:
        scores = jnp.einsum("BTNH,BSNH->BNTS", query * scale, key, preferred_element_type=jnp.float32)
    weights = _weights(scores, dense_bias, dense_mask)
    if dropped is not None:
        weights = jnp.where(dropped.dense(), weights / (1 - dropout_rate), 0)
    return jnp.einsum("BNTS,BSNH->BTNH", weights.astype(value.dtype), value)


def prepare(
    implementation: Implementation,
    query: Shaped,
    key: Shaped,
    *,
    bias: Bias | None = None,
    mask: Mask | None = None,
    dropped: bool = False,
    long: bool = False,
) -> tuple[Bias | None, Mask | None]:
    """bias and mask for `attention` in all layers of a stack, whose queries and keys are of these shapes, values as
    keys: as they are for a kernel that takes them so, else dense, once rather than in each layer. Raises ValueError as
    `attention` for a kernel that is not legal; `dropped`: dropout of weights is on, `long`: the rotation is a
    LongRotation."""
    asked = Asked(query=query, key=key, value=key, bias=bias, mask=mask, dropped=dropped, long=long)
    kernel = choose(implementation, asked)
    return _taken(kernel, query, key, bias, mask)


def _taken(
    kernel: Kernel | None, query: Shaped, key: Shaped, bias: Bias | None, mask: Mask | None
) -> tuple[Bias | None, Mask | None]:
    """bias and mask in the form that the kernel, or without one XLA, takes."""
    return (bias, mask) if kernel is not None and kernel.takes_values else _dense(query, key, bias, mask)


@jax.named_scope("bias")
def _dense(
    query: Shaped, key: Shaped, bias: Bias | None, mask: Mask | None
) -> tuple[jax.Array | None, jax.Array | None]:
    bias = bias.dense(query.shape[1], key.shape[1]) if isinstance(bias, RelativeBias) else bias
    return bias, mask.dense() if isinstance(mask, Segments) else mask


def _check(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    rotation: Rotation | LongRotation | BlockRotation | None,
    bias: Bias | None,
    mask: Mask | None,
) -> None:
    """What would broadcast to something else, or be taken for it, is a ValueError."""
    rows, queries, heads, size = query.shape
    keys, groups = key.shape[1:3]
    if not groups or heads % groups:
        raise ValueError(f"{heads} heads of queries cannot share {groups} heads of keys: it must be a multiple of them")
    if key.shape != (rows, keys, groups, size) or value.shape[:3] != key.shape[:3]:
        raise ValueError(f"queries {query.shape}, keys {key.shape} and values {value.shape} do not belong together")
    if isinstance(bias, RelativeBias) and bias.table.shape[1:] != (heads,):
        raise ValueError(f"a bias of a table {bias.table.shape} for {heads} heads: it must be [buckets, heads]")
    if isinstance(bias, RelativeBias):
        if bias.places is not None and bias.places.shape != (rows, queries):
            raise ValueError(f"a bias of places {bias.places.shape} of queries: they must be {(rows, queries)}")
    dense = (None if isinstance(bias, RelativeBias) else bias, None if isinstance(mask, Segments) else mask)
    for name, x in zip(("bias", "mask"), dense, strict=True):
        wanted = (rows, heads, queries, keys)
        if x is not None and (x.ndim != 4 or any(n not in (1, m) for n, m in zip(x.shape, wanted, strict=True))):
            raise ValueError(f"a {name} of shape {x.shape}: it must be {wanted}, or 1 where it is the same for all")
        if name == "mask" and x is not None and x.dtype != bool:
            raise ValueError(
                f"a mask of {x.dtype}: it must be bool, True where a query may see a key; numbers are a bias"
            )
    if isinstance(mask, Segments) and (mask.query.shape, mask.key.shape) != ((rows, queries), (rows, keys)):
        raise ValueError(
            f"segments {mask.query.shape} and {mask.key.shape}: they must be {(rows, queries)} and {(rows, keys)}"
        )
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in (query, key, value)):
        raise ValueError(
            f"queries, keys and values of {query.dtype}, {key.dtype} and {value.dtype}: they must be floats"
        )
    if rotation is not None:
        near = rotation.near if isinstance(rotation, LongRotation) else rotation
        shape = near.matrix.shape[:-2] if isinstance(near, BlockRotation) else near.cos.shape
        if len(shape) == 4 and shape[0] not in (1, rows):
            raise ValueError(f"a rotation of {shape[0]} rows for {rows} rows of queries")
        if (turning := shape[-2]) != 1 and not turning == heads == groups:
            raise ValueError(f"a rotation of {turning} heads for {heads} heads of queries and {groups} of keys")
        if not shape[-3] == queries == keys:
            raise ValueError(
                f"a rotation of {shape[-3]} positions, {queries} queries and {keys} keys: a rotation is of "
                "the positions of both; turn them by rope.positions.rotary.rotate where they differ"
            )


def cached_attention(
    query: jax.Array,
    *parts: tuple[jax.Array, ...],
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """`attention` for the few queries [B, K, N, H] of a step over keys and values kept for many steps.

    parts: keys [R, N, H, S], values [R, N, S, H] and which of them are seen, bool [B, 1, K, S] or what broadcasts to
    it; several, of other S, are as one. R is B, whose keys all K queries of a row see, or B K: each its own.
    The products read keys and values as they lie there, and the second one's result is turned after it: of
    `attention`'s own order XLA would make a copy a step, and on a CPU a naive loop of the second product.
    """
    rows, beams, heads, size = query.shape
    scale = size**-0.5 if scale is None else scale
    scores, seen = [], []
    for keys, _, mask in parts:
        own = (query * scale).reshape(keys.shape[0], -1, heads, size)
        found = jnp.einsum("BTNH,BNHS->BNTS", own, keys, preferred_element_type=jnp.float32)
        scores.append(_of_rows(found, rows))
        seen.append(jnp.broadcast_to(mask, (rows, 1, beams, keys.shape[3])))
    weights = _weights(jnp.concatenate(scores, 3), bias, jnp.concatenate(seen, 3))
    mixed, first = [], 0
    for _, values, _ in parts:
        own = _of_rows(weights[..., first : (first := first + values.shape[2])], values.shape[0])
        mixed.append(_of_rows(jnp.einsum("BNTS,BNSH->BNTH", own.astype(values.dtype), values), rows))
    return sum(mixed[1:], mixed[0]).swapaxes(1, 2)


def _of_rows(x: jax.Array, rows: int) -> jax.Array:
    """[B, N, K, S] as that of so many rows, each of which has more or fewer of the beams."""
    if x.shape[0] == rows:  # no len: a length may be a symbol (jax.export)
        return x
    beams = x.shape[0] * x.shape[2] // rows
    return x.swapaxes(1, 2).reshape(rows, beams, x.shape[1], x.shape[3]).swapaxes(1, 2)


@jax.named_scope("softmax")
def _weights(scores: jax.Array, bias: jax.Array | None, mask: jax.Array | None) -> jax.Array:
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    return jax.nn.softmax(scores, axis=-1)
