"""Beam search, as transformers does it and as bert4keras does.

Letters: B rows, K beams of a row, C of their continuations, P positions.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from rope.decoding.cache import Cache
from rope.decoding.controls import asked_for, controlled
from rope.decoding.decoder import Predict
from rope.decoding.search import Marks, Search
from rope.decoding.tokens import NEVER, best_tokens, places


def transformers_beams(
    predict: Predict, cache: Cache, alive: jax.Array, search: Search, penalty: float, marks: Marks, length: int
) -> tuple[jax.Array, jax.Array]:
    """Beam search with a pool of the K best finished hypotheses a row, as transformers 5 (early_stopping=False).

    2 K continuations a step, so that K stay whatever ends; what ends enters the pool if it is among the K best of the
    step. A row is closed when its best running hypothesis, were it finished now, would not enter the pool.
    Returns (ids [B A, P], scores [B A]) of the A best of a row, best first; alive bool [B]: which rows have a prompt;
    penalty: see Search.length_penalty.
    """
    beams, answers = search.beams, search.answers

    def step(carry):
        t, tokens, path, written, scores, opened, pool, pool_scores, cache = carry
        path = _arrive(path, t)
        predicted, cache = predict(cache, tokens, path, t)
        best, origins, tokens = best_tokens(
            scores, predicted, 2 * beams, marks.pad, _control(written, t, search, marks)
        )
        path, written = _follow(path, written, origins, tokens, t)
        ends = (tokens == marks.end) | (t + 1 == length)
        scale = (t + 1).astype(jnp.float32) ** -penalty
        enters = ends & (places(ends) < beams) & opened[:, None]
        pool_scores, kept = jax.lax.top_k(
            jnp.concatenate([pool_scores, jnp.where(enters, best * scale, NEVER)], 1), beams
        )
        pool = jnp.take_along_axis(jnp.concatenate([pool, written], 1), kept[..., None], 1)
        scores, kept = jax.lax.top_k(jnp.where(ends, NEVER, best), beams)
        path, written = (jnp.take_along_axis(x, kept[..., None], 1) for x in (path, written))
        opened &= scores[:, 0] * scale > pool_scores[:, -1]
        return t + 1, jnp.take_along_axis(tokens, kept, 1), path, written, scores, opened, pool, pool_scores, cache

    blank = jnp.full((len(alive), beams, length), marks.pad, jnp.int32)
    pool_scores = jnp.full((len(alive), beams), NEVER, jnp.float32)
    start = (*_beginning(len(alive), marks, beams, length), alive, blank, pool_scores, cache)
    done = jax.lax.while_loop(lambda c: (c[0] < length) & jnp.any(c[5]), step, start)
    return done[6][:, :answers].reshape(-1, length), done[7][:, :answers].reshape(-1)


def bert4keras_beams(
    predict: Predict, cache: Cache, alive: jax.Array, search: Search, marks: Marks, length: int
) -> tuple[jax.Array, jax.Array]:
    """Beam search as bert4keras does it, by the sum of log(p + 1e-12) alone.

    A row ends when its best hypothesis does; another one that ends is dropped, and the row goes on with one beam fewer.
    Returns and takes what `transformers_beams` does, one text a row.
    """
    beams = search.beams

    def step(carry):
        t, tokens, path, written, scores, opened, width, answer, answer_score, cache = carry
        path = _arrive(path, t)
        predicted, cache = predict(cache, tokens, path, t)
        control = _control(written, t, search, marks)
        scores, origins, tokens = best_tokens(scores, predicted, beams, marks.pad, control, least=1e-12)
        path, written = _follow(path, written, origins, tokens, t)
        answer = jnp.where(opened[:, None], written[:, 0], answer)
        answer_score = jnp.where(opened, scores[:, 0], answer_score)
        running = (places(tokens) < width[:, None]) & (tokens != marks.end)
        opened &= running[:, 0]
        scores, width = jnp.where(running, scores, NEVER), jnp.sum(running, 1)
        return t + 1, tokens, path, written, scores, opened, width, answer, answer_score, cache

    start = (
        *_beginning(len(alive), marks, beams, length),
        alive,
        jnp.full(len(alive), beams, jnp.int32),
        jnp.full((len(alive), length), marks.pad, jnp.int32),
        jnp.zeros(len(alive), jnp.float32),
        cache,
    )
    done = jax.lax.while_loop(lambda c: (c[0] < length) & jnp.any(c[5]), step, start)
    return done[7], done[8]


def _control(written: jax.Array, t: jax.Array, search: Search, marks: Marks) -> Callable[[jax.Array], jax.Array] | None:
    """What changes the log-probabilities [B, K, V] at position t, after ids [B, K, P]; None: nothing does."""
    if not asked_for(search, marks):
        return None
    return partial(controlled, written=written, t=t, search=search, marks=marks)


def _beginning(
    rows: int, marks: Marks, beams: int, length: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """(step, last tokens, paths, written ids, scores) before the first step, where a row has one hypothesis."""
    return (
        jnp.zeros((), jnp.int32),
        jnp.full((rows, beams), marks.start, jnp.int32),
        jnp.zeros((rows, beams, length), jnp.int32),
        jnp.full((rows, beams, length), marks.pad, jnp.int32),
        jnp.full((rows, beams), NEVER, jnp.float32).at[:, 0].set(0),
    )


def _follow(
    path: jax.Array, written: jax.Array, beams: jax.Array, tokens: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Paths and written ids [B, C, P] of the continuations, by `tokens`, of the hypotheses `beams`, both [B, C]."""
    take = lambda x: jnp.take_along_axis(x, beams[..., None], 1)  # noqa: E731
    written = take(written)
    return take(path), jnp.where(places(written) == t, tokens[..., None], written)


def _arrive(path: jax.Array, t: jax.Array) -> jax.Array:
    """The path with each hypothesis in its own beam at position t."""
    return jnp.where(places(path) == t, jax.lax.broadcasted_iota(jnp.int32, path.shape, 1), path)
