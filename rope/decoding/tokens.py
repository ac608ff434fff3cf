"""The best tokens of a step, and drawn ones.

Letters: B rows, K beams of a row, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rope.decoding.search import Search

NEVER = -1e9  # the score of what may not be chosen: finite, so that sums of it stay numbers


def places(x: jax.Array) -> jax.Array:
    """The number of each element along the last dimension."""
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def allowed(logits: jax.Array, pad: int) -> jax.Array:
    """The logits [..., V] with that of padding, which is never written, out of reach. Padding keeps its share of the
    probability, as in transformers' suppress_tokens."""
    return jnp.where(places(logits) == pad, NEVER, logits)


def draw(scores: jax.Array, seeds: jax.Array, t: jax.Array, search: Search) -> jax.Array:
    """A token a row [B] from scores [B, V], logits over the temperature;
    row b's depends on seeds[b] and t alone, however rows are batched."""
    scores, tokens = drawn_from(scores, search)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), t))(seeds)
    drawn = jax.vmap(jax.random.categorical)(keys, scores)
    return drawn if tokens is None else jnp.take_along_axis(tokens, drawn[:, None], 1)[:, 0]


def drawn_from(scores: jax.Array, search: Search) -> tuple[jax.Array, jax.Array | None]:
    """What of scores [B, V] is drawn from: (scores [B, C], their tokens [B, C], or None where they are all)."""
    if not search.top_k and search.top_p == 1:
        return scores, None
    scores, tokens = top_k(scores, min(search.top_k or scores.shape[-1], scores.shape[-1]))
    before = jnp.cumsum(jax.nn.softmax(scores, -1), -1) - jax.nn.softmax(scores, -1)
    return jnp.where(before < search.top_p, scores, NEVER), tokens  # the token that reaches top_p is in


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
