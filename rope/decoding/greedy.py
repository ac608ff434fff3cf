"""One hypothesis, or several that know nothing of each other: the most probable token, or one drawn.

Letters: B rows, A answers of a row, K those of them that go on, P positions, V vocabulary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rope.decoding.cache import Cache, in_rows, taken
from rope.decoding.controls import asked_for, controlled
from rope.decoding.decoder import Predict
from rope.decoding.search import Marks, Search
from rope.decoding.tokens import allowed, draw, top_k


class _State(NamedTuple):
    """Between two steps."""

    t: jax.Array
    tokens: jax.Array  # int32 [B, K], the last ones
    who: jax.Array  # int32 [B, K], which of the answers these are
    cache: Cache
    finished: jax.Array  # bool [B, A]
    output: jax.Array  # int32 [B, A, P]
    score: jax.Array  # float32 [B, A]


def one_hypothesis(
    predict: Predict, cache: Cache, alive: jax.Array, seeds: jax.Array, search: Search, marks: Marks, length: int
) -> tuple[jax.Array, jax.Array]:
    """(ids [B A, P], their log-probability by the model [B A]) of the answers that `search` asks for.

    alive bool [B]: which rows have a prompt; seeds [B A]; the cache is that of one beam a row. The first token of all
    answers of a row is of one step for the row. As answers end, what is computed is of fewer: each time that no row has
    more than half of them left.
    """
    rows, answers = len(alive), search.answers
    seeds = seeds.reshape(rows, answers)

    def step(state: _State) -> _State:
        t, tokens, who, cache, finished, output, score = state
        mine = lambda x: jnp.take_along_axis(x, who.reshape(who.shape + (1,) * (x.ndim - 2)), 1)  # noqa: E731
        own = jax.lax.broadcasted_iota(jnp.int32, (*tokens.shape, length), 1)  # none changes places
        predicted, cache = predict(cache, tokens, own, t)  # [B, K, V], at first of one for all answers
        choice = scores = allowed(predicted, marks.pad)
        if asked_for(search, marks):
            choice = controlled(scores, mine(output)[:, : tokens.shape[1]], t, search, marks)
        if search.temperature is None:
            chosen = top_k(choice, 1)[1][..., 0]
        else:
            chosen = draw(choice / search.temperature, mine(seeds), t, search)
        ended = mine(finished)
        chosen = jnp.where(ended, marks.pad, chosen)
        many = lambda x: jnp.broadcast_to(x, (*chosen.shape, *x.shape[2:]))  # noqa: E731
        found = jnp.take_along_axis(many(scores), chosen[..., None], 2)[..., 0]
        gained = jnp.where(ended, 0, found - many(jax.nn.logsumexp(predicted, -1)))
        at = jnp.arange(rows)[:, None], who
        return _State(
            t=t + 1,
            tokens=chosen,
            who=who,
            cache=cache,
            finished=finished.at[at].set(ended | (chosen == marks.end)),
            output=output.at[(*at, t)].set(chosen),
            score=score.at[at].add(gained),
        )

    state = _State(
        t=jnp.zeros((), jnp.int32),
        tokens=jnp.full((rows, 1), marks.start, jnp.int32),
        who=jnp.broadcast_to(jnp.arange(answers, dtype=jnp.int32), (rows, answers)),
        cache=cache,
        finished=jnp.broadcast_to(~alive[:, None], (rows, answers)),
        output=jnp.full((rows, answers, length), marks.pad, jnp.int32),
        score=jnp.zeros((rows, answers), jnp.float32),
    )
    if answers > 1:
        state = step(state)
        state = state._replace(cache=in_rows(taken(state.cache, jnp.zeros((rows, answers), jnp.int32), 1)))
    for width, fewer in _widths(answers):
        if width < answers:
            state = _narrowed(state, width)
        state = jax.lax.while_loop(partial(_goes_on, length=length, fewer=fewer), step, state)
    return state.output.reshape(-1, length), state.score.reshape(-1)


def _widths(answers: int) -> list[tuple[int, int]]:
    """Of how many answers a row a step is computed, and from how many on of fewer."""
    widths = [answers, *(answers // part for part in (2, 8) if answers >= 32)]
    return list(zip(widths, [*widths[1:], 0], strict=True))


def _goes_on(state: _State, length: int, fewer: int) -> jax.Array:
    """Has some row more than so many answers that have not ended?"""
    return (state.t < length) & jnp.any(jnp.sum(~state.finished, 1, dtype=jnp.int32) > fewer)


def _narrowed(state: _State, width: int) -> _State:
    """With so many answers a row, those that go on among them."""
    ended = jnp.take_along_axis(state.finished, state.who, 1)
    kept = jnp.argsort(ended, axis=1, stable=True)[:, :width]
    take = lambda x: jnp.take_along_axis(x, kept, 1)  # noqa: E731
    return state._replace(
        tokens=take(state.tokens), who=take(state.who), cache=taken(state.cache, kept, state.who.shape[1])
    )
