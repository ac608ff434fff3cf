"""The best tokens of a step, and drawn ones.

Letters: B rows, K beams of a row, V vocabulary.
"""

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
    tokens = None
    if search.top_k or search.top_p < 1:
        scores, tokens = top_k(scores, min(search.top_k or scores.shape[-1], scores.shape[-1]))
        before = jnp.cumsum(jax.nn.softmax(scores, -1), -1) - jax.nn.softmax(scores, -1)
        scores = jnp.where(before < search.top_p, scores, NEVER)  # the token that reaches top_p is in
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), t))(seeds)
    drawn = jax.vmap(jax.random.categorical)(keys, scores)
    return drawn if tokens is None else jnp.take_along_axis(tokens, drawn[:, None], 1)[:, 0]


def best_tokens(
    scores: jax.Array, logits: jax.Array, count: int, pad: int, least: float = 0.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` best continuations of a row's hypotheses: (scores, beams, tokens), each [B, count], best first.

    scores [B, K], logits [B, K, V]; `least` is added to probabilities.
    """
    gained, tokens = top_k(allowed(logits, pad), count)
    gained = gained - jax.nn.logsumexp(logits, -1, keepdims=True)
    if least:
        gained = jnp.log(jnp.exp(gained) + least)
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
