"""Prompts in, ids out: decoding as one compiled program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rope.decoding.beams import bert4keras_beams, transformers_beams
from rope.decoding.cache import Cache
from rope.decoding.decoder import Decoder
from rope.decoding.greedy import one_hypothesis
from rope.decoding.search import Marks, Search
from training.partition import spec
from training.step import compiler_options


def write(
    model: Any, prompt: jax.Array, seeds: jax.Array, *, decoder: Decoder, search: Search, marks: Marks, length: int
) -> tuple[jax.Array, jax.Array]:
    """Prompts' ids [B, S] -> (ids [B, length], log-probability of each row under the search's scoring [B]).

    A row ends with the end token, padding after it, or is cut at `length`; a prompt of padding alone gives padding. All
    rows stop when the last one has ended. `seeds` uint32 [B] decide what is drawn. The result is whole on every device.
    """
    if 2 * search.beams > decoder.vocabulary:
        raise ValueError(f"beams = {search.beams}: a vocabulary of {decoder.vocabulary} needs fewer")
    # An argument, not made inside: XLA's CPU would compare anew for every score, and not vectorise the softmax.
    segments = (prompt != marks.pad).astype(jnp.int32)
    compiled = _compiled(tuple(compiler_options().items()))
    return compiled(model, prompt, segments, seeds, decoder=decoder, search=search, marks=marks, length=length)


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

        def predict(cache: Cache, tokens: jax.Array, path: jax.Array, t: jax.Array) -> tuple[jax.Array, Cache]:
            hidden, cache = decoder.step(model, memory, cache, tokens, path, t)
            return decoder.logits(model, hidden), cache

        cache, alive = decoder.cache(memory, search.beams, length), jnp.any(segments != 0, 1)
        if search.beams == 1:
            return one_hypothesis(predict, cache, alive, seeds, search, marks, length)
        if search.length_penalty is None:
            return bert4keras_beams(predict, cache, alive, search.beams, marks, length)
        return transformers_beams(predict, cache, alive, search.beams, search.length_penalty, marks, length)

    if spec() is not None:  # bookkeeping of beams is no place to write shardings: the compiler finds them
        run = jax.sharding.auto_axes(run, out_sharding=(spec(None, None), spec(None)))
    return run(model, prompt, segments, seeds)
