"""The best tokens of a step, and drawn ones.

Letters: B rows, K beams of a row, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rope.decoding.search import Search

PART = 64  # tokens of a part of the vocabulary: 250 parts of 16,000
NEVER = -1e9  # the score of what may not be chosen: finite, so that sums of it stay numbers


def places(x: jax.Array) -> jax.Array:
    """The number of each element along the last dimension."""
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def allowed(logits: jax.Array, pad: int) -> jax.Array:
    """The logits [..., V] with that of padding, which is never written, out of reach. Padding keeps its share of the
    probability, as in transformers' suppress_tokens."""
    return jnp.where(places(logits) == pad, NEVER, logits)


def draw(scores: jax.Array, seeds: jax.Array, t: jax.Array, search: Search) -> jax.Array:
    """A token for each seed [B, K] from scores [B, K, V], logits over the temperature, or [B, 1, V], for all K;
    each depends on its seed and t alone, however rows are batched."""
    rows = scores.reshape(-1, scores.shape[-1])
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), t))(seeds.reshape(-1)).reshape(len(rows), -1)
    if search.top_k:
        left, tokens = of_top_k(rows, search)
        drawn = jax.vmap(lambda keys, left: jax.vmap(jax.random.categorical, (0, None))(keys, left))(keys, left)
        drawn = jnp.take_along_axis(tokens, drawn, 1)
    else:
        drawn = _of_nucleus(rows, keys, search.top_p)
    return drawn.reshape(seeds.shape)


def of_top_k(scores: jax.Array, search: Search) -> tuple[jax.Array, jax.Array]:
    """The top_k best of scores [B, V] and their tokens, the best first; out of reach those before which there is top_p
    of their probability already: the token that reaches it is in (Holtzman et al. 2020, arXiv 1904.09751, 3.1)."""
    left, tokens = top_k(scores, min(search.top_k, scores.shape[-1]))
    p = jax.nn.softmax(left, -1)
    return jnp.where(jnp.cumsum(p, -1) - p < search.top_p, left, NEVER), tokens


class _Draws(NamedTuple):
    """Draws [B, K] of which some are to be repeated."""

    tries: jax.Array
    done: jax.Array  # bool [B, K]
    token: jax.Array  # int32 [B, K], the last drawn; what is drawn next is ranked before it
    p: jax.Array  # float32 [B, K], its probability, but for a factor
    masses: jax.Array  # float32 [B, K, C], of what is ranked before it, by the parts of the vocabulary


def _of_nucleus(scores: jax.Array, keys: jax.Array, top_p: float) -> jax.Array:
    """Tokens [B, K] from scores [B, V] by keys [B, K], of the nucleus of top_p (Holtzman et al. 2020, arXiv 1904.09751,
    section 3.1), by rejection: nothing is ranked, which costs a CPU more than all sums here.

    What is drawn of any set that the nucleus is the best of, and lies within the nucleus, is distributed as by the
    nucleus alone. The first set is the whole vocabulary; a token that lies outside leaves those that are ranked before
    it, so few tries are enough even where top_p is small.
    """
    p = jnp.exp(scores - scores.max(-1, keepdims=True))
    # A part's tokens lie apart by the number of parts, so that sums vectorise over the parts.
    parts = jnp.pad(p, [(0, 0), (0, -p.shape[-1] % PART)]).reshape(*keys.shape[:1], 1, PART, -1)
    masses = _of_parts(parts)
    number = jnp.arange(PART * parts.shape[3], dtype=jnp.int32).reshape(1, 1, PART, -1)
    enough = top_p * masses.sum(-1)

    def tried(state: _Draws) -> tuple[jax.Array, jax.Array]:
        """A token of each set, and its p."""
        uniform = jax.vmap(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, state.tries))))(keys)
        target = uniform * state.masses.sum(-1)
        part = _reached(state.masses, target)
        target -= jnp.sum(jnp.where(places(state.masses) < part[..., None], state.masses, 0), -1)
        within = jnp.take_along_axis(parts[:, 0], part[:, None], 2).swapaxes(1, 2)
        of_part = number[..., 0] + part[..., None]
        within = jnp.where(ranked_before(within, of_part, state.p, state.token), within, 0)
        at = _reached(within, target)[..., None]
        return jnp.take_along_axis(of_part, at, -1)[..., 0], jnp.take_along_axis(within, at, -1)[..., 0]

    def again(state: _Draws) -> _Draws:
        token, its = tried(state)
        before = ranked_before(parts, number, its[..., None], token[..., None])
        masses = _of_parts(jnp.where(before, parts, 0))
        inside = ~(masses.sum(-1) >= enough)  # or NaN, which no try would end
        return _Draws(
            tries=state.tries + 1,
            done=state.done | inside,
            token=jnp.where(state.done, state.token, token),
            p=jnp.where(state.done, state.p, its),
            masses=jnp.where(state.done[..., None], state.masses, masses),
        )

    state = _Draws(
        tries=jnp.zeros((), jnp.int32),
        done=jnp.zeros(keys.shape, bool),
        token=jnp.zeros(keys.shape, jnp.int32),
        p=jnp.full(keys.shape, -1.0),  # which all are ranked before
        masses=jnp.broadcast_to(masses, (*keys.shape, masses.shape[2])),
    )
    if top_p == 1:
        return tried(state)[0]
    return jax.lax.while_loop(lambda state: ~jnp.all(state.done), again, state).token


def _of_parts(p: jax.Array) -> jax.Array:
    """The mass of each part, of p [..., PART, C]. XLA would make of a sum of these another pass over the vocabulary."""
    return jax.lax.optimization_barrier(p.sum(-2))


def ranked_before(p: jax.Array, number: jax.Array, other: jax.Array, token: jax.Array) -> jax.Array:
    """Which of the tokens `number`, of probabilities p [..., W], are ranked before each `token` of probability `other`
    [...]: the more probable ones, and of equals those of smaller numbers."""
    other, token = other[..., None], token[..., None]
    return (p > other) | ((p == other) & (number < token))


def _reached(masses: jax.Array, target: jax.Array) -> jax.Array:
    """The first of masses [..., C] up to and with which there is more than the target [...], of those above 0; rounding
    may leave none, then the last above 0."""
    there, place = masses > 0, places(masses)
    last = jnp.max(jnp.where(there, place, 0), -1, keepdims=True)
    beyond = there & (jnp.cumsum(masses, -1) > target[..., None])
    return jnp.min(jnp.where(beyond, place, last), -1)


def best_tokens(
    scores: jax.Array,
    logits: jax.Array,
    count: int,
    pad: int,
    control: Callable[[jax.Array], jax.Array] | None,
    least: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` best continuations of a row's hypotheses: (scores, beams, tokens), each [B, count], best first.

    scores [B, K], logits [B, K, V]; `least` is added to probabilities. control: what changes log-probabilities
    [B, K, V] before the best are chosen; without it only those of the best are computed.
    """

    def log_p(logits: jax.Array, log_z: jax.Array) -> jax.Array:
        found = logits - log_z
        return jnp.log(jnp.exp(found) + least) if least else found

    if control is None:
        gained, tokens = top_k(allowed(logits, pad), count)
        gained = log_p(gained, jax.nn.logsumexp(logits, -1, keepdims=True))
    else:
        found = log_p(logits, jax.nn.logsumexp(logits, -1, keepdims=True))
        gained, tokens = top_k(control(allowed(found, pad)), count)
    best, found = jax.lax.top_k((scores[..., None] + gained).reshape(len(gained), -1), count)
    return best, found // count, jnp.take_along_axis(tokens.reshape(len(gained), -1), found, 1)


def top_k(x: jax.Array, count: int, chunk: int = 16) -> tuple[jax.Array, jax.Array]:
    """jax.lax.top_k of x [..., V], to the last tie, by the few chunks that have the largest maxima.

    Ranking costs XLA 3.5 ns an element on a CPU, and a maximum of chunks vectorises, as argmax does not.
    """
    size = x.shape[-1]
    if size <= count * chunk:
        return jax.lax.top_k(x, count)
    gap = [(0, 0)] * (x.ndim - 1) + [(0, -size % chunk)]
    chunks = jnp.pad(x, gap, constant_values=-jnp.inf).reshape(*x.shape[:-1], -1, chunk)
    best = jnp.sort(top_k(chunks.max(-1), count)[1])  # in order, so that the first of equals stays the first
    found = jnp.take_along_axis(chunks, best[..., None], -2).reshape(*x.shape[:-1], -1)
    values, at = jax.lax.top_k(found, count)
    return values, jnp.take_along_axis(best, at // chunk, -1) * chunk + at % chunk
