"""mT5 as a decoder for rope.decoding: one step with cached keys and values.

Letters: B rows, K beams of a row, P target positions, S source length, N heads, H head size, D model, V vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from pegasus_zh.t5.mt5 import (
    MT5,
    Block,
    MT5Config,
    embed,
    encode,
    feed_forward,
    logits,
    merge,
    project,
    scale_output,
)
from rope.decoding.cache import Cache, append, as_read, beside, empty, laid, path_mask, unstacked
from rope.layers.attention import cached_attention
from rope.layers.primitives import rms_norm
from rope.positions.buckets import RelativeBias, offset_bias


@struct.dataclass
class Memory:
    """What decoding needs of the sources: per layer the keys and values of the encoder's output."""

    keys: tuple[jax.Array, ...]  # [B, N, H, S] each
    values: tuple[jax.Array, ...]  # [B, N, S, H] each
    seen: jax.Array  # bool [B, S], False for padding
    layers: tuple[Block, ...]  # the decoder's, unstacked


@dataclass(frozen=True)
class MT5Decoder:
    """A rope.decoding.decoder.Decoder."""

    config: MT5Config

    @property
    def vocabulary(self) -> int:
        return self.config.vocabulary

    def begin(self, model: MT5, prompt: jax.Array, segments: jax.Array) -> Memory:
        """Source ids [B, S] and their segments (1, or 0 for padding)."""
        c = self.config
        encoded = encode(model, prompt, segments, c)
        layers = unstacked(model.decoder.blocks, c.decoder_depth)
        attentions = [attention for _, attention in (p.cross for p in layers)]
        keys, values = zip(
            *(laid(project(encoded, p.key, c), project(encoded, p.value, c)) for p in attentions), strict=True
        )
        return Memory(keys=keys, values=values, seen=segments != 0, layers=layers)

    def cache(self, memory: Memory, beams: int, positions: int) -> Cache:
        return empty(self.config.decoder_depth, memory.keys[0], positions * beams)

    def step(
        self, model: MT5, memory: Memory, cache: Cache, tokens: jax.Array, path: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """As Decoder.step: tokens [B, K] at position t -> hidden states [B, K, D] for the head, and the cache."""
        c, near, places = self.config, beside(cache, path), jnp.arange(path.shape[2])
        seen, cross_seen, cross_bias = path_mask(path, t, near), memory.seen[:, None, None], None
        table, far = model.decoder.relative_bias, c.max_distance
        bias = offset_bias(table, jnp.repeat(places, near) - t, bidirectional=False, max_distance=far)[None, :, None]
        if c.cross_bias:
            at = RelativeBias(table, bidirectional=False, max_distance=far, places=t[None, None])
            cross_bias = at.dense(1, memory.seen.shape[1])
        x, updated = embed(model, tokens, c), []
        for p, kept, *remembered in zip(memory.layers, cache, memory.keys, memory.values, strict=True):
            h, own, (cross_norm, cross) = rms_norm(x, p.self_norm, c.epsilon), p.self_attention, p.cross
            q, k, v = (project(h, w, c) for w in (own.query, own.key, own.value))
            updated.append(append(kept, k, v, t))
            x = x + merge(cached_attention(q, (*as_read(updated[-1]), seen), bias=bias, scale=1.0), own.output)
            q = project(rms_norm(x, cross_norm, c.epsilon), cross.query, c)
            x = x + merge(cached_attention(q, (*remembered, cross_seen), bias=cross_bias, scale=1.0), cross.output)
            x = x + feed_forward(rms_norm(x, p.feed_forward_norm, c.epsilon), p.feed_forward, c)
        return scale_output(rms_norm(x, model.decoder.final_norm, c.epsilon), c), updated

    def logits(self, model: MT5, hidden: jax.Array) -> jax.Array:
        return logits(model, hidden, self.config)
