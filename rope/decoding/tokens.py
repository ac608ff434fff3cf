"""The best tokens of a step, and drawn ones.

Letters: B rows, K beams of a row, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rope.decoding.search import Search

NUCLEUS = 128  # tokens that are ranked first
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
    each depends on its seed and t alone, however rows are batched.

    Random numbers go by rank, so a draw is the same whether few tokens of its row are ranked or all.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), t))(seeds.reshape(-1)).reshape(len(rows), -1)
    left, tokens, enough = drawn_from(rows, search)
    drawn = _pick(keys, left)
    if tokens is not None:
        drawn = jnp.take_along_axis(tokens, drawn, 1)
    if enough is not None:
        drawn = _of_short_rows(drawn, rows, keys, ~enough, search.top_p)
    return drawn.reshape(seeds.shape)


def drawn_from(scores: jax.Array, search: Search) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """What of scores [B, V] is drawn from: (scores [B, C], their tokens [B, C], or None where they are all; bool [B],
    in which rows that is all of it, or None where it is in all). Of top_p alone the NUCLEUS best are looked at."""
    if search.top_k:
        left, tokens = top_k(scores, min(search.top_k, scores.shape[-1]))
        return nucleus(left, jax.nn.logsumexp(left, -1, keepdims=True), search.top_p)[0], tokens, None
    if search.top_p == 1:
        return scores, None, None
    left, tokens = top_k(scores, min(NUCLEUS, scores.shape[-1]))
    left, enough = nucleus(left, jax.nn.logsumexp(scores, -1, keepdims=True), search.top_p)
    return left, tokens, enough


def nucleus(ranked: jax.Array, log_z: jax.Array, top_p: float) -> tuple[jax.Array, jax.Array]:
    """Scores [B, C], the best first, those out of reach before which there is top_p of the probability already: the
    token that reaches it is in (Holtzman et al. 2020, arXiv 1904.09751, section 3.1). And bool [B], whether it is
    reached, for log_z [B, 1] of all scores."""
    p = jnp.exp(ranked - log_z)
    before = jnp.cumsum(p, -1) - p
    return jnp.where(before < top_p, ranked, NEVER), before[:, -1] + p[:, -1] >= top_p


def _pick(keys: jax.Array, scores: jax.Array) -> jax.Array:
    """For each key [B, K] a place among scores [B, C]."""
    return jax.vmap(lambda keys, scores: jax.vmap(jax.random.categorical, (0, None))(keys, scores))(keys, scores)


def _of_short_rows(drawn: jax.Array, rows: jax.Array, keys: jax.Array, short: jax.Array, top_p: float) -> jax.Array:
    """The draws [B, K], those of the rows that are `short` [B] by ranking all of scores [B, V]: a few at a time, as
    long as there are any."""
    some = max(len(rows) // 32, 1)
    order, count = jnp.argsort(~short, stable=True), jnp.sum(short, dtype=jnp.int32)

    def rank(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        done, drawn = state
        which = jax.lax.dynamic_slice_in_dim(order, done, some)  # of the last ones, some again, to the same effect
        mine, of_keys = rows[which], keys[which]
        ranked, log_z = descending(mine), jax.nn.logsumexp(mine, -1, keepdims=True)
        among = lambda ranked: lambda: _pick(of_keys, nucleus(ranked, log_z, top_p)[0])  # noqa: E731
        hundreds = ranked[:, : 8 * NUCLEUS]
        found = jax.lax.cond(jnp.all(nucleus(hundreds, log_z, top_p)[1]), among(hundreds), among(ranked))
        return done + some, drawn.at[which].set(of_rank(mine, ranked, found))

    return jax.lax.while_loop(lambda state: state[0] < count, rank, (jnp.zeros((), jnp.int32), drawn))[1]


def descending(rows: jax.Array) -> jax.Array:
    """Scores [B, V], the best first, as whole numbers of the same order: XLA's CPU sorts those in a sixth of the time
    that it takes for numbers or for pairs."""
    bits = jax.lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.int32)
    turned = jnp.sort(bits ^ ((bits >> 31) & 0x7FFFFFFF), -1)[:, ::-1]
    return jax.lax.bitcast_convert_type(turned ^ ((turned >> 31) & 0x7FFFFFFF), jnp.float32)


def of_rank(rows: jax.Array, ranked: jax.Array, ranks: jax.Array) -> jax.Array:
    """The tokens [B, K] that have these ranks [B, K] among scores [B, V], which `descending` has ranked; of equal ones
    the first comes first."""

    def one(row: jax.Array, ranked: jax.Array, rank: jax.Array) -> jax.Array:
        before = jnp.sum(row > ranked[rank], dtype=jnp.int32)
        return jnp.sum(jnp.cumsum(row == ranked[rank], dtype=jnp.int32) <= rank - before, dtype=jnp.int32)

    return jax.vmap(lambda row, ranked, ranks: jax.vmap(one, (None, None, 0))(row, ranked, ranks))(rows, ranked, ranks)


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
