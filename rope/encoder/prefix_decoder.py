"""RoFormer as a prefix language model: it reads a prompt in both directions, and writes on from left to right.

UniLM's sequence to sequence mask (rope.layers.masks.unilm_mask), step by step. A prompt is of type 0 and what is
written of type 1, which takes the positions after it; the prompt's last token predicts the first one written.

Letters: B rows, S prompt length, K beams of a row, N heads, H head size.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from rope.decoding.cache import Cache, LayerCache, append, beside, empty, laid, path_mask, unstacked
from rope.encoder.roformer import RoFormer, RoFormerConfig, embed, logits
from rope.layers.attention import attention, cached_attention
from rope.layers.masks import segment_mask
from rope.layers.transformer import Block, run_block
from rope.positions.extension import slowed_rotation
from rope.positions.rotary import Rotation, rotate


@struct.dataclass
class Memory:
    """What decoding needs of the prompts."""

    cache: Cache  # of each layer: keys [B, N, H, S] and values [B, N, S, H]
    seen: jax.Array  # bool [B, S], False for padding
    token: jax.Array  # int32 [B, 1], the last of each prompt
    place: jax.Array  # int32 [B, 1], where that is
    layers: tuple[Block, ...]  # unstacked


@dataclass(frozen=True)
class PrefixDecoder:
    """A rope.decoding.decoder.Decoder. Its prompts are padded on the right;
    it begins with their last token, not Marks.start.

    Raises ValueError for positions that are not rotary,
    and for those that depend on the whole row's length or distances.
    """

    config: RoFormerConfig

    def __post_init__(self):
        method = self.config.extension.method
        if self.config.positions != "rotary" or method not in ("none", "linear", "ntk", "yarn"):
            raise ValueError(
                f"positions are {self.config.positions}, extension {method}: writing step by step needs rotary "
                "positions, extended by linear, ntk, yarn or not at all"
            )

    @property
    def vocabulary(self) -> int:
        return self.config.vocabulary

    def begin(self, model: RoFormer, prompt: jax.Array, segments: jax.Array) -> Memory:
        c, cache = self.config, []
        positions = jnp.broadcast_to(jnp.arange(prompt.shape[1]), prompt.shape)
        turn, mask = self._turn(positions), segment_mask(segments, segments)

        def mix(query: jax.Array, key: jax.Array, value: jax.Array, _: None) -> jax.Array:
            query, key = rotate(query, turn, c.layout), rotate(key, turn, c.layout)
            cache.append(laid(key, value))
            return attention(query, key, value, mask=mask)

        x, layers = embed(model.embeddings, prompt, None, positions, c), unstacked(model.blocks, c.layers)
        for p in layers:
            x = run_block(x, p, c, mix)
        place = jnp.maximum(jnp.sum(segments != 0, 1, keepdims=True) - 1, 0)
        token = jnp.take_along_axis(prompt, place, 1)
        return Memory(cache=cache, seen=segments != 0, token=token, place=place, layers=layers)

    def cache(self, memory: Memory, beams: int, positions: int) -> Cache:
        return empty(self.config.layers, memory.cache[0][0], positions * beams)

    def step(
        self, model: RoFormer, memory: Memory, cache: Cache, tokens: jax.Array, path: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Cache]:
        c = self.config
        tokens = jnp.where(t == 0, memory.token, tokens)
        types = jnp.broadcast_to((t > 0).astype(jnp.int32), tokens.shape)
        positions = jnp.broadcast_to(memory.place + t, tokens.shape)
        turn, updated = self._turn(positions), []
        # What position 0 leaves in the cache is the prompt's last token again, which is seen in the prompt.
        read, written = memory.seen[:, None, None], path_mask(path, t, beside(cache, path), first=1)

        def mix(
            prompt: LayerCache, kept: LayerCache, query: jax.Array, key: jax.Array, value: jax.Array, _: None
        ) -> jax.Array:
            query, key = rotate(query, turn, c.layout), rotate(key, turn, c.layout)
            updated.append(append(kept, key, value, t))
            return cached_attention(query, (*prompt, read), (*updated[-1], written))

        x = embed(model.embeddings, tokens, types, positions, c)
        for p, prompt, kept in zip(memory.layers, memory.cache, cache, strict=True):
            x = run_block(x, p, c, partial(mix, prompt, kept))
        return x, updated

    def logits(self, model: RoFormer, hidden: jax.Array) -> jax.Array:
        return logits(model, hidden, self.config)

    def _turn(self, positions: jax.Array) -> Rotation:
        c = self.config
        return slowed_rotation(c.extension, positions, c.head_size, positions.shape[1], c.theta)
