"""Prompts in, ids out: decoding as one compiled program."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rope.decoding.beams import bert4keras_beams, transformers_beams
from rope.decoding.cache import Cache
from rope.decoding.decoder import Decoder, Predict
from rope.decoding.greedy import one_hypothesis
from rope.decoding.search import Marks, Search
from training.partition import spec
from training.step import compiler_options


def write(
    model: Any, prompt: jax.Array, seeds: jax.Array, *, decoder: Decoder, search: Search, marks: Marks, length: int
) -> tuple[jax.Array, jax.Array]:
    """Prompts' ids [B, S] -> (ids [B A, length], log-probability of each row under the search's scoring [B A]).

    The A answers of a prompt follow each other. A row ends with the end token, padding after it, or is cut at `length`;
    a prompt of padding alone gives padding. All rows stop when the last one has ended. `seeds` uint32 [B A] decide what
    is drawn. The result is whole on every device. Raises ValueError for what vocabulary or length do not serve.
    """
    _check(search, marks, decoder.vocabulary, length)
    # An argument, not made inside: XLA's CPU would compare anew for every score, and not vectorise the softmax.
    segments = (prompt != marks.pad).astype(jnp.int32)
    # Steps of many draws are sums over the vocabulary and products of few rows, which YNNPACK does in less time than
    # XLA's own loops (1.2 times); a T5 that reads 32 texts and writes one answer to each would take 1.3 times as long.
    options = {} if search.answers > 1 else compiler_options()
    compiled = _compiled(tuple(options.items()))
    return compiled(model, prompt, segments, seeds, decoder=decoder, search=search, marks=marks, length=length)


def _check(search: Search, marks: Marks, vocabulary: int, length: int) -> None:
    if 2 * search.beams > vocabulary:
        raise ValueError(f"beams = {search.beams}: a vocabulary of {vocabulary} needs fewer")
    if strange := [i for i in {*marks.first, *itertools.chain(*marks.never)} if not 0 <= i < vocabulary]:
        raise ValueError(
            f"id {strange[0]} is to be written first, or never: a vocabulary of {vocabulary} has none such"
        )
    if search.min_length - 1 > length:
        raise ValueError(f"min_length is {search.min_length}: at most {length} ids are written, and the start token")
    if len(marks.first) > length:
        raise ValueError(f"a beginning of {len(marks.first)} ids: at most {length} are written; let it be shorter")


@functools.cache
def _compiled(options: tuple[tuple[str, str | bool], ...]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    return jax.jit(
        _write, static_argnames=("decoder", "search", "marks", "length"), compiler_options=dict(options) or None
    )


def _write(
    model: Any,
    prompt: jax.Array,
    segments: jax.Array,
    seeds: jax.Array,
    *,
    decoder: Decoder,
    search: Search,
    marks: Marks,
    length: int,
) -> tuple[jax.Array, jax.Array]:
    def run(model: Any, prompt: jax.Array, segments: jax.Array, seeds: jax.Array) -> tuple[jax.Array, jax.Array]:
        memory = decoder.begin(model, prompt, segments)

        def one(cache: Cache, tokens: jax.Array, path: jax.Array, t: jax.Array) -> tuple[jax.Array, Cache]:
            hidden, cache = decoder.step(model, memory, cache, tokens, path, t)
            return decoder.logits(model, hidden), cache

        predict: Predict = one
        cache, alive = decoder.cache(memory, search.beams, length), jnp.any(segments != 0, 1)
        if search.beams == 1:
            return one_hypothesis(predict, cache, alive, seeds, search, marks, length)
        if search.length_penalty is None:
            return bert4keras_beams(predict, cache, alive, search, marks, length)
        return transformers_beams(predict, cache, alive, search, search.length_penalty, marks, length)

    if spec() is not None:  # bookkeeping of beams is no place to write shardings: the compiler finds them
        run = jax.sharding.auto_axes(run, out_sharding=(spec(None, None), spec(None)))
    return run(model, prompt, segments, seeds)
