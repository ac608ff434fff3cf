"""The first token's last hidden state of each text: the last layer is computed for these tokens alone, as keys and
values are all that it needs of the others.

Letters: B rows, S texts of a row, T positions, D model.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from rope.encoder.roformer import RoFormer, RoFormerConfig, encode
from rope.layers.attention import attention
from rope.layers.masks import segment_positions
from rope.layers.primitives import recomputed
from rope.layers.transformer import run_block
from rope.positions.extension import extended_rotation
from rope.positions.rotary import Rotation, rotate


def encode_firsts(
    model: RoFormer,
    ids: jax.Array,
    segments: jax.Array,
    config: RoFormerConfig,
    texts: int,
    types: jax.Array | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """Ids and segments [B, T], which number a row's texts from 1, and token types -> [B, texts, D]; of a text that is
    not there, any number. `key` turns dropout on, which drops others than in `encode`."""
    c, positions = config, segment_positions(segments)
    mine = segments[:, None] == jnp.arange(1, texts + 1)[None, :, None]
    firsts = mine & (positions == 0)[:, None]

    def at_firsts(x: jax.Array) -> jax.Array:
        return jnp.einsum("BST,BTD->BSD", firsts.astype(x.dtype), x, precision="highest")

    if c.layers == 1 or c.positions == "buckets" or c.extension.method != "none":
        return at_firsts(encode(model, ids, segments, c, types=types, key=key))
    before = replace(model, blocks=jax.tree.map(lambda p: p[:-1], model.blocks))
    key, last_key = jax.random.split(key) if key is not None else (None, None)
    x = encode(before, ids, segments, replace(c, layers=c.layers - 1), types=types, key=key)

    def mix(query: jax.Array, key: jax.Array, value: jax.Array, drops: jax.Array | None) -> jax.Array:
        if c.positions == "rotary":  # a first token's angle is 0
            turns = extended_rotation(c.extension, positions, c.head_size, ids.shape[1], c.theta)
            assert isinstance(turns, Rotation)  # without extension
            key = rotate(key, turns, c.layout)
        rate, mask = c.attention_dropout, mine[:, None]
        return attention(query, key, value, mask=mask, dropout_rate=rate, dropout_key=drops, implementation="xla")

    last = jax.tree.map(lambda p: p[-1], model.blocks)

    def layer(x: jax.Array, firsts: jax.Array) -> jax.Array:
        return run_block(firsts, last, c, mix, last_key, memory=x)

    return recomputed(layer, c.remat)(x, at_firsts(x))
