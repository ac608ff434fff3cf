"""What may be written, as functions on a step's scores: transformers' logits processors, in their order.

They see what a hypothesis has written, the start token before it. Nothing of this is in the program of a search that
asks for none of it.

Letters: R hypotheses, P positions, V vocabulary, W windows of n ids, Q words.
"""

from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np

from rope.decoding.search import Marks, Search
from rope.decoding.tokens import places


def asked_for(search: Search, marks: Marks) -> bool:
    """Is there anything to control?"""
    numbers = search.min_length or search.no_repeat_ngram_size or search.repetition_penalty != 1
    return bool(numbers or marks.first or marks.never)


def controlled(scores: jax.Array, written: jax.Array, t: jax.Array, search: Search, marks: Marks) -> jax.Array:
    """Scores [..., V] of the tokens at position t, after ids [..., P] of which t are written; -inf where forbidden.

    Scores are logits where one hypothesis is written, log-probabilities of beams: the repetition penalty tells them
    apart, as in transformers.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    history = jnp.pad(written.reshape(len(rows), -1), [(0, 0), (1, 0)], constant_values=marks.start)
    if search.repetition_penalty != 1:
        rows = penalised(rows, history, t, search.repetition_penalty)
    if search.no_repeat_ngram_size:
        rows = without_repeats(rows, history, t, search.no_repeat_ngram_size)
    if marks.never:
        rows = without_words(rows, history, t, marks.never)
    if search.min_length:
        rows = jnp.where((places(rows) == marks.end) & (t + 1 < search.min_length), -jnp.inf, rows)
    if marks.first:
        forced = jnp.asarray(marks.first)[jnp.minimum(t, len(marks.first) - 1)]
        rows = jnp.where(t < len(marks.first), jnp.where(places(rows) == forced, 0.0, -jnp.inf), rows)
    return rows.reshape(scores.shape)


def penalised(rows: jax.Array, history: jax.Array, t: jax.Array, penalty: float) -> jax.Array:
    """Scores [R, V] of what history [R, P + 1] has up to t: divided by the penalty, or times it where negative
    (Keskar et al. 2019, arXiv 1909.05858, section 4.1)."""
    seen = jnp.where(places(history) <= t, history, history[:, :1])  # the start token once more, to the same effect
    found = jnp.take_along_axis(rows, seen, 1)
    return _put(rows, seen, jnp.where(found < 0, found * penalty, found / penalty))


def without_repeats(rows: jax.Array, history: jax.Array, t: jax.Array, n: int) -> jax.Array:
    """Scores [R, V] without the tokens that would end n ids which history [R, P + 1] has up to t already
    (Paulus et al. 2017, arXiv 1705.04304, section 2.5)."""
    windows = history.shape[1] + 1 - n
    if windows < 1:
        return rows
    tail = _tail(history, t, n - 1)
    same = jnp.broadcast_to(jnp.arange(windows)[None] + n - 1 <= t, (len(rows), windows))
    for i in range(n - 1):
        same &= history[:, i : i + windows] == tail[:, i : i + 1]
    return _forbid(rows, same, history[:, n - 1 :])


def without_words(rows: jax.Array, history: jax.Array, t: jax.Array, words: tuple[tuple[int, ...], ...]) -> jax.Array:
    """Scores [R, V] without the tokens that would end one of the words, each one id or several in a row."""
    for length, group in groupby(sorted(words, key=len), len):
        ids = np.array([*group])
        if length == 1:
            rows = jnp.where(jnp.asarray(np.isin(np.arange(rows.shape[1]), ids))[None], -jnp.inf, rows)
        elif length <= history.shape[1]:
            begun = jnp.all(_tail(history, t, length - 1)[:, None] == ids[None, :, :-1], -1) & (t + 2 >= length)
            rows = _forbid(rows, begun, jnp.broadcast_to(ids[None, :, -1], begun.shape))
    return rows


def _tail(history: jax.Array, t: jax.Array, count: int) -> jax.Array:
    """The last `count` ids up to t; the first ones where there are not so many."""
    return jax.lax.dynamic_slice_in_dim(history, t + 1 - count, count, 1)


def _forbid(rows: jax.Array, which: jax.Array, tokens: jax.Array) -> jax.Array:
    """The scores without those of the tokens [R, W] that `which` [R, W] names."""
    return _put(rows, jnp.where(which, tokens, rows.shape[1]), -jnp.inf)


def _put(rows: jax.Array, tokens: jax.Array, scores: jax.Array | float) -> jax.Array:
    """These scores for these tokens [R, W]; what is no token is dropped."""
    return rows.at[jnp.arange(len(rows))[:, None], tokens].set(scores, mode="drop")
