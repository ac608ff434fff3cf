"""Greedy decoding with cached keys and values: each step computes one position per layer."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh.mt5 import MT5, MT5Config, embed, encode, feed_forward, logits, merge, project, rms_norm
from pegasus_zh.tokenizers import Tokenizer
from rope.attention import attention
from rope.buckets import offset_bias
from training.partition import RULES, spec


@partial(jax.jit, static_argnames=("config", "start_id", "eos_id", "pad_id", "max_length"))
def greedy(
    model: MT5,
    source: jax.Array,
    *,
    config: MT5Config,
    start_id: int,
    eos_id: int,
    pad_id: int = 0,
    max_length: int,
) -> jax.Array:
    """The most probable next token again and again: ids [B, max_length] from source ids [B, S], padded with `pad_id`.

    A row ends with `eos_id`, padding after it, or is cut at max_length; a source of padding alone gives padding. All
    rows stop when the last one has ended. The result is whole on every device.
    """
    segments = (source != pad_id).astype(jnp.int32)
    encoded = encode(model, source, segments, config)
    blocks, batch = model.decoder.blocks, source.shape[0]
    memory = jax.lax.map(
        lambda p: (project(encoded, p.key, config), project(encoded, p.value, config)), blocks.cross_attention
    )
    shape = (config.layers, batch, max_length, config.heads, config.head_size)
    empty = jnp.zeros(shape, encoded.dtype, out_sharding=spec(None, "batch", None, "heads", None))
    cross_mask = (segments > 0)[:, None, None, :]
    positions = jnp.arange(max_length)

    def step(carry):
        t, token, finished, caches, output = carry
        table, far = model.decoder.relative_bias, config.max_distance
        bias = offset_bias(table, positions - t, bidirectional=False, max_distance=far)[None, :, None]
        seen = (positions <= t)[None, None, None, :]

        def layer(x, inputs):
            p, keys, values, memory_keys, memory_values = inputs
            h = rms_norm(x, p.self_norm, config.epsilon)
            q, k, v = (
                project(h, w, config) for w in (p.self_attention.query, p.self_attention.key, p.self_attention.value)
            )
            keys = jax.lax.dynamic_update_slice_in_dim(keys, k, t, 1)
            values = jax.lax.dynamic_update_slice_in_dim(values, v, t, 1)
            x = x + merge(attention(q, keys, values, bias=bias, mask=seen, scale=1.0), p.self_attention.output)
            q = project(rms_norm(x, p.cross_norm, config.epsilon), p.cross_attention.query, config)
            x = x + merge(
                attention(q, memory_keys, memory_values, mask=cross_mask, scale=1.0), p.cross_attention.output
            )
            x = x + feed_forward(rms_norm(x, p.feed_forward_norm, config.epsilon), p.feed_forward, config)
            return x, (keys, values)

        x = embed(model, token[:, None], config)
        x, caches = jax.lax.scan(layer, x, (blocks, *caches, *memory))
        scores = logits(model, rms_norm(x, model.decoder.final_norm, config.epsilon), config)[:, 0]
        best = jnp.argmax(jnp.where(jnp.arange(scores.shape[-1]) == pad_id, -jnp.inf, scores), -1).astype(jnp.int32)
        token = jnp.where(finished, pad_id, best)
        output = jax.lax.dynamic_update_slice_in_dim(output, token[:, None], t, 1)
        return t + 1, token, finished | (token == eos_id), caches, output

    def going(carry):
        return (carry[0] < max_length) & ~jnp.all(carry[2])

    def rows(value, dtype, *length: int):
        return jnp.full((batch, *length), value, dtype, out_sharding=spec("batch", *(None for _ in length)))

    start = (
        jnp.zeros((), jnp.int32),
        rows(start_id, jnp.int32),
        jnp.all(segments == 0, axis=1),
        (empty, empty),
        rows(pad_id, jnp.int32, max_length),
    )
    output = jax.lax.while_loop(going, step, start)[-1]
    return output if spec() is None else jax.reshard(output, spec(None, None))


def generate(
    model: MT5,
    config: MT5Config,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    *,
    max_source: int = 384,
    max_target: int = 128,
    batch_size: int = 16,
) -> list[str]:
    """What the model writes, greedily, for each framed source (ids); sources are cut to `max_source`; compiled once."""
    written: list[str] = []
    mesh = jax.sharding.get_abstract_mesh().shape
    parts = math.prod(mesh.get(axis, 1) for axis in RULES["batch"])
    batch_size = -(-batch_size // parts) * parts  # what the mesh can cut
    for first in range(0, len(sources), batch_size):
        chunk = sources[first : first + batch_size]
        ids = np.full((batch_size, max_source), tokenizer.pad_id, np.int32)
        for row, source in zip(ids, chunk, strict=False):
            row[: len(source)] = source[:max_source]
        out = greedy(
            model,
            jax.device_put(ids, spec("batch", None)),
            config=config,
            start_id=tokenizer.start_id,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            max_length=max_target - 1,
        )
        written += [tokenizer.decode(row.tolist()) for row in np.asarray(out)[: len(chunk)]]
    return written
