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

from rope.decoding.cache import Cache, LayerCache, Rows, append, as_read, beside, empty, laid, path_mask, unstacked
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

    Raises ValueError for positions that depend on the whole text's length or on distances.
    """

    config: RoFormerConfig

    def __post_init__(self):
        c, method = self.config, self.config.extension.method
        if c.positions == "buckets" or method not in ("none", *(("linear", "ntk", "yarn") * (c.positions == "rotary"))):
            raise ValueError(
                f"positions are {c.positions}, extension {method}: writing step by step needs positions of each token "
                "alone, and rotary ones extended by linear, ntk, yarn or not at all"
            )

    @property
    def vocabulary(self) -> int:
        return self.config.vocabulary

    def begin(self, model: RoFormer, prompt: jax.Array, segments: jax.Array) -> Memory:
        c, cache = self.config, []
        positions = jnp.broadcast_to(jnp.arange(prompt.shape[1]), prompt.shape)
        turn, mask = self._turn(positions), segment_mask(segments, segments)

        def mix(query: jax.Array, key: jax.Array, value: jax.Array, _: None) -> jax.Array:
            query, key = self._turned(query, turn), self._turned(key, turn)
            cache.append(laid(key, value))
            return attention(query, key, value, mask=mask)

        x, layers = embed(model.embeddings, prompt, None, positions, c), unstacked(model.blocks, c.layers)
        for p in layers:
            x = run_block(x, p, c, mix)
        place = jnp.maximum(jnp.sum(segments != 0, 1, keepdims=True) - 1, 0)
        token = jnp.take_along_axis(prompt, place, 1)
        return Memory(cache=cache, seen=segments != 0, token=token, place=place, layers=layers)

    def cache(self, memory: Memory, beams: int, positions: int) -> Cache:
        c, prompt = self.config, memory.seen.shape[1]
        if c.positions == "learned" and prompt + positions > c.max_positions:
            raise ValueError(
                f"prompts of {prompt} ids and {positions} written after them: the model's table of learned positions "
                f"ends at {c.max_positions}"
            )
        return empty(c.layers, memory.cache[0][0], positions * beams)

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
            prompt: LayerCache, kept: LayerCache | Rows, query: jax.Array, key: jax.Array, value: jax.Array, _: None
        ) -> jax.Array:
            query, key = self._turned(query, turn), self._turned(key, turn)
            updated.append(append(kept, key, value, t))
            return cached_attention(query, (*prompt, read), (*as_read(updated[-1]), written))

        # A token a row: to a table of learned positions, beams are no longer text.
        column = (-1, 1)
        x = embed(model.embeddings, tokens.reshape(column), types.reshape(column), positions.reshape(column), c)
        x = x.reshape(*tokens.shape, -1)
        for p, prompt, kept in zip(memory.layers, memory.cache, cache, strict=True):
            x = run_block(x, p, c, partial(mix, prompt, kept))
        return x, updated

    def logits(self, model: RoFormer, hidden: jax.Array) -> jax.Array:
        return logits(model, hidden, self.config)

    def _turn(self, positions: jax.Array) -> Rotation | None:
        c = self.config
        if c.positions != "rotary":
            return None
        return slowed_rotation(c.extension, positions, c.head_size, positions.shape[1], c.theta)

    def _turned(self, x: jax.Array, turn: Rotation | None) -> jax.Array:
        return x if turn is None else rotate(x, turn, self.config.layout)
