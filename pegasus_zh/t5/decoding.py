"""Decoding with cached keys and values: greedy, sampling and beam search, each one compiled program.

Letters: B rows, K beams of a row, P target positions, S source length, N heads, H head size, V vocabulary.

The cache of a layer, [B, N, H, P K], holds the keys of all beams where they were computed. A hypothesis is the `path` of
beams that its tokens came through (int32 [B, K, P]), so beams change places by rewriting the path, never the cache; and
what the encoder made exists once a row, not once a beam.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from pegasus_zh.t5.mt5 import (
    MT5,
    Block,
    MT5Config,
    cross_attention_bias,
    embed,
    encode,
    feed_forward,
    logits,
    merge,
    project,
    scale_output,
)
from rope.layers.attention import cached_attention
from rope.layers.primitives import rms_norm
from rope.positions.buckets import offset_bias
from training.partition import spec
from training.step import compiler_options

NEVER = -1e9  # the score of what may not be chosen: finite, so that sums of it stay numbers


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the next tokens are chosen: greedily unless something else is asked for."""

    beams: int = 1
    """Hypotheses kept for each text; with 1, greedy."""
    length_penalty: float | None = 1.0
    """Finished hypotheses are compared by log-probability / length^this (Wu et al. 2016, without coverage), as
    transformers does. None: as T5-PEGASUS does, by log-probability alone; a hypothesis that ends is the answer if it is
    the best at that step, and is dropped if not, its place with it."""
    temperature: float | None = None
    """Draw tokens at random, from the probabilities to the power 1 / temperature. Not with beams."""
    top_k: int = 0
    """Draw among the k most probable; 0: among all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that have this much of the probability together (Holtzman et al. 2020)."""

    def __post_init__(self):
        if self.beams < 1:
            raise ValueError(f"beams = {self.beams}: give 1 (greedy) or more")
        if self.temperature is not None and (not 0 < self.temperature < math.inf or self.beams > 1):
            raise ValueError("a temperature is a number above 0, and goes with beams = 1: give one of the two")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty = {self.length_penalty}: give a number, or None")
        if self.temperature is None and (self.top_k or self.top_p != 1):
            raise ValueError("top_k and top_p restrict what is drawn at random: give a temperature too, e.g. 1.0")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"top_k = {self.top_k}, top_p = {self.top_p}: top_k is 0 or more, top_p in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The ids that begin and end a text, and fill up what is after."""

    start: int
    end: int
    pad: int = 0


@struct.dataclass
class Memory:
    """What decoding needs of the sources: per layer the keys and values of the encoder's output."""

    keys: tuple[jax.Array, ...]  # [B, N, H, S] each
    values: tuple[jax.Array, ...]  # [B, N, S, H] each
    seen: jax.Array  # bool [B, S], False for padding
    layers: tuple[Block, ...]  # the decoder's, unstacked: a slice of a stack in a loop would be a copy a step


def unstacked(model: MT5, config: MT5Config) -> tuple[Block, ...]:
    """The decoder's layers one by one."""
    layer = lambda i: jax.tree.map(lambda x: x[i], model.decoder.blocks)  # noqa: E731
    return tuple(map(layer, range(config.layers)))


def remember(model: MT5, source: jax.Array, segments: jax.Array, config: MT5Config) -> Memory:
    """Source ids [B, S] and their segments (1, or 0 for padding) -> what the decoding steps read again and again."""
    encoded = encode(model, source, segments, config)
    layers = unstacked(model, config)
    keys = tuple(project(encoded, p.cross_attention.key, config).transpose(0, 2, 3, 1) for p in layers)
    values = tuple(project(encoded, p.cross_attention.value, config).transpose(0, 2, 1, 3) for p in layers)
    return Memory(keys=keys, values=values, seen=segments != 0, layers=layers)


Cache = list[tuple[jax.Array, jax.Array]]  # keys [B, N, H, P K] and values [B, N, P K, H] of each layer


def empty_cache(memory: Memory, beams: int, positions: int) -> Cache:
    rows, heads, size, _ = memory.keys[0].shape
    keys = jnp.zeros((rows, heads, size, positions * beams), memory.keys[0].dtype)
    return [(keys, keys.swapaxes(2, 3)) for _ in memory.layers]


def decode_step(
    model: MT5, memory: Memory, cache: Cache, path: jax.Array, tokens: jax.Array, t: jax.Array, config: MT5Config
) -> tuple[jax.Array, Cache]:
    """Tokens [B, K] at position t -> float32 logits [B, K, V] of the next, and the cache with position t in it.

    path [B, K, P]: through which beam each hypothesis came at each position, its own at t.
    """
    rows, beams, length = path.shape
    places = jnp.arange(length)
    of_path = path[..., None] == jnp.arange(beams)[None, None, None]
    seen = (of_path & (places <= t)[None, None, :, None]).reshape(rows, 1, beams, length * beams)
    table, far = model.decoder.relative_bias, config.max_distance
    bias = offset_bias(table, jnp.repeat(places, beams) - t, bidirectional=False, max_distance=far)[None, :, None]
    cross_seen, cross_bias = memory.seen[:, None, None], None
    if config.cross_bias:
        cross_bias = cross_attention_bias(model, (jnp.arange(memory.seen.shape[1]) - t)[None, None], config)
    x, updated = embed(model, tokens, config), []
    for p, (keys, values), memory_keys, memory_values in zip(
        memory.layers, cache, memory.keys, memory.values, strict=True
    ):
        h = rms_norm(x, p.self_norm, config.epsilon)
        q, k, v = (
            project(h, w, config) for w in (p.self_attention.query, p.self_attention.key, p.self_attention.value)
        )
        keys = jax.lax.dynamic_update_slice_in_dim(keys, k.transpose(0, 2, 3, 1), t * beams, 3)
        values = jax.lax.dynamic_update_slice_in_dim(values, v.transpose(0, 2, 1, 3), t * beams, 2)
        updated.append((keys, values))
        x = x + merge(cached_attention(q, keys, values, bias=bias, mask=seen, scale=1.0), p.self_attention.output)
        q = project(rms_norm(x, p.cross_norm, config.epsilon), p.cross_attention.query, config)
        mixed = cached_attention(q, memory_keys, memory_values, bias=cross_bias, mask=cross_seen, scale=1.0)
        x = x + merge(mixed, p.cross_attention.output)
        x = x + feed_forward(rms_norm(x, p.feed_forward_norm, config.epsilon), p.feed_forward, config)
    hidden = scale_output(rms_norm(x, model.decoder.final_norm, config.epsilon), config)
    return logits(model, hidden, config), updated


def write(
    model: MT5,
    source: jax.Array,
    seeds: jax.Array,
    *,
    config: MT5Config,
    search: Search,
    marks: Marks,
    length: int,
) -> tuple[jax.Array, jax.Array]:
    """Source ids [B, S] -> (ids [B, length], log-probability of each row under the search's scoring [B]).

    A row ends with the end token, padding after it, or is cut at `length`; a source of padding alone gives padding. All
    rows stop when the last one has ended. `seeds` uint32 [B] decide what is drawn. The result is whole on every device.
    """
    if 2 * search.beams > config.vocabulary:
        raise ValueError(f"beams = {search.beams}: a vocabulary of {config.vocabulary} needs fewer")
    # An argument, not made inside: XLA's CPU would compare anew for every score, and not vectorise the softmax.
    segments = (source != marks.pad).astype(jnp.int32)
    compiled = _compiled(tuple(compiler_options().items()))
    return compiled(model, source, segments, seeds, config=config, search=search, marks=marks, length=length)


@functools.cache
def _compiled(options: tuple[tuple[str, str], ...]):
    return jax.jit(
        _write, static_argnames=("config", "search", "marks", "length"), compiler_options=dict(options) or None
    )


def _write(model, source, segments, seeds, *, config, search, marks, length):
    method = _one if search.beams == 1 else _transformers_beams if search.length_penalty is not None else _seed_beams

    def search_(model: MT5, source: jax.Array, segments: jax.Array, seeds: jax.Array) -> tuple[jax.Array, jax.Array]:
        memory = remember(model, source, segments, config)
        return method(model, memory, seeds, config, search, marks, length)

    if spec() is not None:  # bookkeeping of beams is no place to write shardings: the compiler finds them
        search_ = jax.sharding.auto_axes(search_, out_sharding=(spec(None, None), spec(None)))
    return search_(model, source, segments, seeds)


def _rows(memory: Memory, value, dtype, *shape: int) -> jax.Array:
    """An array [B, *shape] of one value."""
    return jnp.full((len(memory.seen), *shape), value, dtype)


def _allowed(scores: jax.Array, marks: Marks) -> jax.Array:
    """Padding is never written."""
    return jnp.where(_places(scores) == marks.pad, NEVER, scores)


def _places(x: jax.Array) -> jax.Array:
    """The number of each element along the last dimension."""
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def _one(model, memory, seeds, config, search, marks, length):
    """One hypothesis a row: the most probable token, or one drawn."""
    path = _rows(memory, 0, jnp.int32, 1, length)

    def step(carry):
        t, token, finished, cache, output, score = carry
        predicted, cache = decode_step(model, memory, cache, path, token, t, config)
        scores = _allowed(predicted[:, 0], marks)
        chosen = _top(scores, 1)[1][:, 0] if search.temperature is None else _draw(scores, seeds, t, search)
        chosen = jnp.where(finished, marks.pad, chosen)
        gained = jnp.take_along_axis(scores, chosen[:, None], 1)[:, 0] - jax.nn.logsumexp(predicted[:, 0], -1)
        output = jax.lax.dynamic_update_slice_in_dim(output, chosen[:, None], t, 1)
        score = score + jnp.where(finished, 0, gained)
        return t + 1, chosen[:, None], finished | (chosen == marks.end), cache, output, score

    start = (
        jnp.zeros((), jnp.int32),
        _rows(memory, marks.start, jnp.int32, 1),
        ~jnp.any(memory.seen, 1),
        empty_cache(memory, 1, length),
        _rows(memory, marks.pad, jnp.int32, length),
        _rows(memory, 0, jnp.float32),
    )
    done = jax.lax.while_loop(lambda c: (c[0] < length) & ~jnp.all(c[2]), step, start)
    return done[-2:]


def _draw(scores: jax.Array, seeds: jax.Array, t: jax.Array, search: Search) -> jax.Array:
    """A token a row [B] from logits [B, V]; row b's depends on seeds[b] and t alone, however rows are batched."""
    scores, tokens = scores / search.temperature, None
    if search.top_k or search.top_p < 1:
        scores, tokens = _top(scores, min(search.top_k or scores.shape[-1], scores.shape[-1]))
        before = jnp.cumsum(jax.nn.softmax(scores, -1), -1) - jax.nn.softmax(scores, -1)
        scores = jnp.where(before < search.top_p, scores, NEVER)  # the token that reaches top_p is in
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), t))(seeds)
    drawn = jax.vmap(jax.random.categorical)(keys, scores)
    return drawn if tokens is None else jnp.take_along_axis(tokens, drawn[:, None], 1)[:, 0]


def _transformers_beams(model, memory, seeds, config, search, marks, length):
    """Beam search with a pool of the K best finished hypotheses a row, as transformers 5 (early_stopping=False).

    2 K continuations a step, so that K stay whatever ends; what ends enters the pool if it is among the K best of the step.
    A row is closed when its best running hypothesis, were it finished now, would not enter the pool.
    """
    beams = search.beams

    def step(carry):
        t, tokens, path, written, scores, opened, pool, pool_scores, cache = carry
        path = _arrive(path, t)
        predicted, cache = decode_step(model, memory, cache, path, tokens, t, config)
        best, origins, tokens = _best_tokens(scores, predicted, 2 * beams, marks.pad)
        path, written = _follow(path, written, origins, tokens, t)
        ends = (tokens == marks.end) | (t + 1 == length)
        scale = (t + 1).astype(jnp.float32) ** -search.length_penalty
        enters = ends & (_places(ends) < beams) & opened[:, None]
        pool_scores, places = jax.lax.top_k(
            jnp.concatenate([pool_scores, jnp.where(enters, best * scale, NEVER)], 1), beams
        )
        pool = jnp.take_along_axis(jnp.concatenate([pool, written], 1), places[..., None], 1)
        scores, places = jax.lax.top_k(jnp.where(ends, NEVER, best), beams)
        path, written = (jnp.take_along_axis(x, places[..., None], 1) for x in (path, written))
        opened &= scores[:, 0] * scale > pool_scores[:, -1]
        return t + 1, jnp.take_along_axis(tokens, places, 1), path, written, scores, opened, pool, pool_scores, cache

    blank = _rows(memory, marks.pad, jnp.int32, beams, length)
    start = (
        *_beginning(memory, marks, beams, length),
        jnp.any(memory.seen, 1),
        blank,
        _rows(memory, NEVER, jnp.float32, beams),
        empty_cache(memory, beams, length),
    )
    done = jax.lax.while_loop(lambda c: (c[0] < length) & jnp.any(c[5]), step, start)
    return done[6][:, 0], done[7][:, 0]


def _seed_beams(model, memory, seeds, config, search, marks, length):
    """Beam search as bert4keras does it, by the sum of log(p + 1e-12) alone.

    A row ends when its best hypothesis does; another one that ends is dropped, and the row goes on with one beam fewer.
    """
    beams = search.beams

    def step(carry):
        t, tokens, path, written, scores, opened, width, answer, answer_score, cache = carry
        path = _arrive(path, t)
        predicted, cache = decode_step(model, memory, cache, path, tokens, t, config)
        scores, origins, tokens = _best_tokens(scores, predicted, beams, marks.pad, least=1e-12)
        path, written = _follow(path, written, origins, tokens, t)
        answer = jnp.where(opened[:, None], written[:, 0], answer)
        answer_score = jnp.where(opened, scores[:, 0], answer_score)
        alive = (_places(tokens) < width[:, None]) & (tokens != marks.end)
        opened &= alive[:, 0]
        scores, width = jnp.where(alive, scores, NEVER), jnp.sum(alive, 1)
        return t + 1, tokens, path, written, scores, opened, width, answer, answer_score, cache

    start = (
        *_beginning(memory, marks, beams, length),
        jnp.any(memory.seen, 1),
        _rows(memory, beams, jnp.int32),
        _rows(memory, marks.pad, jnp.int32, length),
        _rows(memory, 0, jnp.float32),
        empty_cache(memory, beams, length),
    )
    done = jax.lax.while_loop(lambda c: (c[0] < length) & jnp.any(c[5]), step, start)
    return done[7], done[8]


def _beginning(memory: Memory, marks: Marks, beams: int, length: int):
    """(step, last tokens, paths, written ids, scores) before the first step, where a row has one hypothesis."""
    return (
        jnp.zeros((), jnp.int32),
        _rows(memory, marks.start, jnp.int32, beams),
        _rows(memory, 0, jnp.int32, beams, length),
        _rows(memory, marks.pad, jnp.int32, beams, length),
        _rows(memory, NEVER, jnp.float32, beams).at[:, 0].set(0),
    )


def _best_tokens(
    scores: jax.Array, logits: jax.Array, count: int, pad: int, least: float = 0.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` best continuations of a row's hypotheses: (scores, beams, tokens), each [B, count], best first.

    scores [B, K], logits [B, K, V]; `least` is added to probabilities. Padding, which is never written, keeps its share of
    the probability, as in transformers' suppress_tokens.
    """
    top, tokens = _top(jnp.where(_places(logits) == pad, NEVER, logits), count)
    top = top - jax.nn.logsumexp(logits, -1, keepdims=True)
    if least:
        top = jnp.log(jnp.exp(top) + least)
    best, places = jax.lax.top_k((scores[..., None] + top).reshape(len(top), -1), count)
    return best, places // count, jnp.take_along_axis(tokens.reshape(len(top), -1), places, 1)


def _top(x: jax.Array, count: int, chunk: int = 16) -> tuple[jax.Array, jax.Array]:
    """jax.lax.top_k of x [..., V], to the last tie, by the few chunks that have the largest maxima.

    Ranking costs XLA 3.5 ns an element on a CPU, and a maximum of chunks vectorises, as argmax does not.
    """
    size = x.shape[-1]
    if size <= count * chunk:
        return jax.lax.top_k(x, count)
    gap = [(0, 0)] * (x.ndim - 1) + [(0, -size % chunk)]
    chunks = jnp.pad(x, gap, constant_values=-jnp.inf).reshape(*x.shape[:-1], -1, chunk)
    best = jnp.sort(_top(chunks.max(-1), count)[1])  # in order, so that the first of equals stays the first
    found = jnp.take_along_axis(chunks, best[..., None], -2).reshape(*x.shape[:-1], -1)
    values, places = jax.lax.top_k(found, count)
    return values, jnp.take_along_axis(best, places // chunk, -1) * chunk + places % chunk


def _follow(path, written, beams, tokens, t):
    """Paths and written ids [B, C, P] of the continuations, by `tokens`, of the hypotheses `beams`, both [B, C]."""
    take = lambda x: jnp.take_along_axis(x, beams[..., None], 1)  # noqa: E731
    written = take(written)
    return take(path), jnp.where(_places(written) == t, tokens[..., None], written)


def _arrive(path, t):
    """The path with each hypothesis in its own beam at position t."""
    return jnp.where(_places(path) == t, jax.lax.broadcasted_iota(jnp.int32, path.shape, 1), path)
