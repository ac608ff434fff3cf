"""Draws: ranked without ranking everything, to the last one; several of a prompt of which ever fewer go on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.decoding.search import Search
from rope.decoding.tokens import NUCLEUS, descending, draw, drawn_from, of_rank

SEEDS = np.arange(300, dtype=np.uint32)


def ranked_whole(scores: np.ndarray, seeds: np.ndarray, t: int, top_p: float) -> np.ndarray:
    """The same draws by ranking all tokens, as it is written down: [B] of scores [B, V]."""
    order = np.argsort(-scores, 1, kind="stable")
    ranked = np.take_along_axis(scores, order, 1)
    p = np.exp(ranked.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    left = np.where(np.cumsum(p, 1) - p < top_p, ranked, -1e9)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), t))(seeds)
    drawn = jax.vmap(jax.random.categorical)(keys, left)
    return np.take_along_axis(order, np.asarray(drawn)[:, None], 1)[:, 0]


@pytest.mark.parametrize("spread", [8, 4, 2.5, 0.3], ids=["few", "more than are ranked at first", "hundreds", "most"])
@pytest.mark.parametrize("ties", [False, True])
def test_a_draw_is_that_of_all_tokens_ranked(spread, ties):
    scores = np.random.default_rng(0).normal(0, spread, (len(SEEDS), 5000)).astype(np.float32)
    scores = np.round(scores) if ties else scores
    search = Search(temperature=1.0, top_p=0.95)
    drawn = jax.jit(partial(draw, search=search))(scores[:, None], SEEDS[:, None], 3)[:, 0]
    wanted = ranked_whole(scores, SEEDS, 3, 0.95)
    # At the nucleus's edge the two sums may differ in their last bit.
    assert np.sum(np.asarray(drawn) != wanted) <= 1
    enough = np.mean(drawn_from(jnp.asarray(scores), search)[2])
    assert enough == 1 if spread == 8 else enough < 1


def test_a_row_that_is_flat_does_not_change_what_others_draw():
    scores = np.random.default_rng(0).normal(0, 8, (len(SEEDS), 3000)).astype(np.float32)
    search = Search(temperature=1.0, top_p=0.95)
    alone = draw(jnp.asarray(scores[:, None]), SEEDS[:, None], 0, search)
    scores[7] *= 0.01
    np.testing.assert_array_equal(
        np.delete(draw(jnp.asarray(scores[:, None]), SEEDS[:, None], 0, search), 7), np.delete(alone, 7)
    )


def test_one_row_serves_many_seeds():
    scores = np.random.default_rng(0).normal(0, 4, (3, 1, 2000)).astype(np.float32)
    for search in (Search(temperature=1.0), Search(temperature=1.0, top_p=0.9), Search(temperature=1.0, top_k=9)):
        seeds = SEEDS.reshape(3, -1)
        many = np.repeat(scores, seeds.shape[1], 1)
        one, each = (draw(jnp.asarray(x), seeds, 1, search) for x in (scores, many))
        np.testing.assert_array_equal(one, each)
        assert len(np.unique(one)) > 5


def test_ranking_by_whole_numbers_keeps_order_and_ties():
    x = np.random.default_rng(0).normal(0, 3, (4, 2 * NUCLEUS)).astype(np.float32).round(1)
    x[:, :6] = [0.0, -0.5, -1e9, -np.inf, np.inf, 7e-30]
    ranked, order = descending(x), np.argsort(-x, 1, kind="stable")
    np.testing.assert_array_equal(ranked, np.take_along_axis(x, order, 1))
    np.testing.assert_array_equal(of_rank(x, ranked, np.broadcast_to(np.arange(x.shape[1]), x.shape)), order)
