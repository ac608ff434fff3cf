"""One hypothesis a row: the most probable token, or one drawn.

Letters: B rows, P positions.
"""

import jax
import jax.numpy as jnp

from rope.decoding.cache import Cache
from rope.decoding.controls import asked_for, controlled
from rope.decoding.decoder import Predict
from rope.decoding.search import Marks, Search
from rope.decoding.tokens import allowed, draw, top_k


def one_hypothesis(
    predict: Predict, cache: Cache, alive: jax.Array, seeds: jax.Array, search: Search, marks: Marks, length: int
) -> tuple[jax.Array, jax.Array]:
    """(ids [B, P], their log-probability by the model [B]); alive bool [B]: which rows have a prompt."""
    rows = len(alive)
    path = jnp.zeros((rows, 1, length), jnp.int32)

    def step(carry):
        t, token, finished, cache, output, score = carry
        predicted, cache = predict(cache, token, path, t)
        scores = allowed(predicted[:, 0], marks.pad)
        choice = controlled(scores, output, t, search, marks) if asked_for(search, marks) else scores
        chosen = (
            top_k(choice, 1)[1][:, 0]
            if search.temperature is None
            else draw(choice / search.temperature, seeds, t, search)
        )
        chosen = jnp.where(finished, marks.pad, chosen)
        gained = jnp.take_along_axis(scores, chosen[:, None], 1)[:, 0] - jax.nn.logsumexp(predicted[:, 0], -1)
        output = jax.lax.dynamic_update_slice_in_dim(output, chosen[:, None], t, 1)
        score = score + jnp.where(finished, 0, gained)
        return t + 1, chosen[:, None], finished | (chosen == marks.end), cache, output, score

    start = (
        jnp.zeros((), jnp.int32),
        jnp.full((rows, 1), marks.start, jnp.int32),
        ~alive,
        cache,
        jnp.full((rows, length), marks.pad, jnp.int32),
        jnp.zeros(rows, jnp.float32),
    )
    done = jax.lax.while_loop(lambda c: (c[0] < length) & ~jnp.all(c[2]), step, start)
    return done[-2:]
