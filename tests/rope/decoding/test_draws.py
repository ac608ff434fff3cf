"""Draws of the nucleus without ranking: their law, their independence of the batch, many of a row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.decoding.search import Search
from rope.decoding.tokens import draw, ranked_before

SEEDS = np.arange(300, dtype=np.uint32)


def nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """The probabilities [V] that are drawn by, as the paper writes them down."""
    order = np.argsort(-scores, kind="stable")
    p = np.exp(scores.astype(np.float64) - scores.max())
    ranked = p[order] / p.sum()
    p = np.zeros_like(p)
    p[order] = np.where(np.cumsum(ranked) - ranked < top_p, ranked, 0)
    return p / p.sum()


@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("spread", [0.3, 2.5, 6])
@pytest.mark.parametrize("ties", [False, True])
def test_draws_are_of_the_nucleus_by_its_probabilities(spread: float, top_p: float, ties: bool) -> None:
    scores = np.random.default_rng(0).normal(0, spread, 301).astype(np.float32)
    scores = np.round(scores) if ties else scores
    wanted, count = nucleus(scores, top_p), 20_000
    seeds = np.arange(count, dtype=np.uint32)[None]
    drawn = jax.jit(partial(draw, search=Search(temperature=1.0, top_p=top_p)))(scores[None, None], seeds, 3)[0]
    counts = np.bincount(np.asarray(drawn), minlength=len(scores))
    # At the nucleus's edge the two sums may differ in their last bit.
    assert np.sum((counts > 0) & (wanted == 0)) <= 1 and counts[wanted == 0].sum() < 0.02 * count
    likely = wanted * count > 5
    rest = [counts[~likely].sum()], [wanted[~likely].sum() * count]
    seen, expected = (np.concatenate(x) for x in zip((counts[likely], wanted[likely] * count), rest, strict=True))
    kept = expected > 0
    statistic, freedom = np.sum((seen - expected)[kept] ** 2 / expected[kept]), kept.sum() - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 10


def test_a_draw_is_its_own_seeds_whatever_the_others_in_the_batch() -> None:
    scores = np.random.default_rng(0).normal(0, 8, (len(SEEDS), 3000)).astype(np.float32)
    scores[::5] *= 0.01  # these take more tries
    for search in (Search(temperature=1.0, top_p=0.95), Search(temperature=1.0, top_p=0.1), Search(temperature=1.0)):
        drawn = jax.jit(partial(draw, search=search))
        together = drawn(scores[:, None], SEEDS[:, None], 0)
        apart = [drawn(scores[n::3, None], SEEDS[n::3, None], 0) for n in range(3)]
        for n in range(3):
            np.testing.assert_array_equal(together[n::3], apart[n])


def test_of_scores_that_are_no_numbers_something_is_drawn() -> None:
    """Else a step would never end."""
    scores = np.full((2, 1, 40), np.nan, np.float32)
    scores[1] = 0
    drawn = draw(jnp.asarray(scores), SEEDS[:2, None], 0, Search(temperature=1.0, top_p=0.9))
    assert 0 <= int(drawn[1, 0]) < 40


def test_a_token_is_ranked_before_the_less_probable_and_of_equals_before_the_later() -> None:
    p = np.random.default_rng(0).integers(0, 9, 50).astype(np.float32)
    places = {int(token): place for place, token in enumerate(np.argsort(-p, kind="stable"))}
    found = ranked_before(p[None], np.arange(50)[None], p, np.arange(50))
    wanted = [[places[number] < places[token] for number in range(50)] for token in range(50)]
    np.testing.assert_array_equal(np.asarray(found), wanted)


def test_one_row_serves_many_seeds():
    scores = np.random.default_rng(0).normal(0, 4, (3, 1, 2000)).astype(np.float32)
    for search in (Search(temperature=1.0), Search(temperature=1.0, top_p=0.9), Search(temperature=1.0, top_k=9)):
        seeds = SEEDS.reshape(3, -1)
        many = np.repeat(scores, seeds.shape[1], 1)
        one, each = (jax.jit(partial(draw, search=search))(x, seeds, 1) for x in (scores, many))
        np.testing.assert_array_equal(one, each)
        assert len(np.unique(one)) > 5
