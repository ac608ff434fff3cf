"""One vector a text, of the hidden states of its tokens (Su, https://kexue.fm/archives/8069 and 8348: P1 to P4).

Letters: B rows, T positions, S texts of a row, D model, K poolings.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from rope.encoder.roformer import RoFormer, RoFormerConfig, encode_layers, pooler_of
from rope.layers.masks import segment_positions
from rope.layers.primitives import linear
from training.files.errors import DataError

Pooling = Literal["cls", "pooler", "mean", "first-last", "last-two", "pooler-tanh"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
OF_POOLER: tuple[Pooling, ...] = ("pooler", "pooler-tanh")
SHORT = {
    "cls": "P1",
    "pooler": "P2",
    "mean": "P3",
    "first-last": "P4",
    "last-two": "last two",
    "pooler-tanh": "P2, tanh",
}


def pooling_named(name: str) -> Pooling:
    """Raises DataError where there is none of this name."""
    if found := [pooling for pooling in POOLINGS if pooling == name]:
        return found[0]
    raise DataError(f"pooling is {name!r}: it must be one of {', '.join(POOLINGS)}")


def check_poolings(poolings: Sequence[Pooling], config: RoFormerConfig, where: str) -> None:
    """Raises DataError for one that there is not, or that the model does not have."""
    for pooling in poolings:
        pooling_named(pooling)
    wrong = [pooling for pooling in poolings if pooling in OF_POOLER and config.pooler == "none"]
    if wrong:
        others = ", ".join(name for name in POOLINGS if name not in OF_POOLER)
        raise DataError(f"{where}: the model has no pooler, which pooling {wrong[0]!r} is of; choose of {others}")


def other_layer(pooling: str, layers: int) -> int:
    """Which layer's mean is averaged with the last one's, of a model of so many layers: 0 the first, -1 none."""
    return {"first-last": 0, "last-two": max(layers - 2, 0)}.get(pooling, -1)


def embed(
    model: RoFormer,
    ids: jax.Array,
    segments: jax.Array,
    config: RoFormerConfig,
    poolings: Sequence[Pooling],
    texts: int = 1,
    key: jax.Array | None = None,
    positions: jax.Array | None = None,
) -> jax.Array:
    """Ids [B, T] and segments -> float32 vectors [B, S, K, D]:
    of each of `texts` texts in a row (S) one for each pooling.

    Segments number a row's texts from 1; 0 is padding. Of a text that is not there, zeros (of pooler, its bias).
    `key` turns dropout on. Positions [B, T] restart in each text.

    cls (P1): the last state of [CLS]. pooler (P2): what the pooler's dense layer makes of it, and no more, as SimBERT
    and RoFormer-Sim have it; pooler-tanh: with BERT's tanh. mean (P3): the mean of the last states, those of [CLS] and
    [SEP] too. first-last (P4): the mean of that and of the first layer's; last-two: of that and of the last layer's but
    one, as the first published script has it.
    """
    layers = sorted({layer for name in poolings if (layer := other_layer(name, config.layers)) >= 0})
    positions = segment_positions(segments) if positions is None else positions
    last, *rest = encode_layers(model, ids, segments, config, positions=positions, key=key, outputs=(-1, *layers))
    others = dict(zip(layers, rest, strict=True))
    return pooled(model, last, others, segments, positions, config, poolings, texts)


def pooled(
    model: RoFormer,
    last: jax.Array,
    others: Mapping[int, jax.Array],
    segments: jax.Array,
    positions: jax.Array,
    config: RoFormerConfig,
    poolings: Sequence[Pooling],
    texts: int,
) -> jax.Array:
    """What `embed` returns, of states [B, T, D] that are there: the last ones, and those of other layers by number."""
    mine = segments[:, None] == jnp.arange(1, texts + 1)[None, :, None]
    counts = jnp.maximum(mine.sum(2, keepdims=True, dtype=jnp.int32), 1)
    members = mine.astype(last.dtype)
    firsts = (mine & (positions == 0)[:, None]).astype(last.dtype)

    def weighed(weights: jax.Array, hidden: jax.Array) -> jax.Array:
        return jnp.einsum("BST,BTD->BSD", weights, hidden, precision="highest", preferred_element_type=jnp.float32)

    def one(pooling: Pooling) -> jax.Array:
        if pooling == "cls":
            return weighed(firsts, last)
        if pooling in OF_POOLER:
            first = weighed(firsts, last).astype(last.dtype)
            out = linear(first, pooler_of(model), ("embed", None)).astype(jnp.float32)
            return jnp.tanh(out) if pooling == "pooler-tanh" else out
        total = weighed(members, last)
        if pooling == "mean":
            return total / counts
        return (total + weighed(members, others[other_layer(pooling, config.layers)])) / (2 * counts)

    return jnp.stack([one(pooling) for pooling in poolings], 2)
