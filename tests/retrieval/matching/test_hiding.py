"""How much is hidden and how it is replaced, within bounds of five standard deviations; spans end with their text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.matching import hiding
from retrieval.matching.hiding import RATE, SPANS, chosen, replaced

TEXTS = [4000] * 100
DEVIATIONS = 5
LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=12)


def test_the_share_of_tokens_is_the_rate():
    """Each for itself: the share's variance is r (1 - r) / n."""
    found = chosen(TEXTS, "tokens", np.random.default_rng(0))
    bound = DEVIATIONS * (RATE * (1 - RATE) / len(found)) ** 0.5  # 0.0028
    assert found.shape == (sum(TEXTS),) and abs(found.mean() - RATE) < bound
    both = (found[1:] & found[:-1]).mean()
    assert abs(both - RATE**2) < DEVIATIONS * (3 * RATE**2 / len(found)) ** 0.5  # neighbours tell nothing


def test_the_share_of_spans_is_the_rate():
    """Inside a text a token is hidden with probability 1 - (1 - p)(1 - 0.5 p)(1 - 0.2 p), or 1.7 p - 0.8 p² + 0.1 p³;
    of 1.7 p = r + r²/2 this is above r by less than r²/4. Tokens more than 2 apart are hidden independently, so that
    the share's variance is at most 5 r (1 - r) / n, with the r of them.
    """
    assert SPANS.tolist() == [0.5, 0.3, 0.2]
    found = chosen(TEXTS, "spans", np.random.default_rng(0))
    bound = DEVIATIONS * (5 * 0.16 * 0.84 / len(found)) ** 0.5  # 0.0065
    assert found.shape == (sum(TEXTS),) and RATE - bound < found.mean() < RATE + RATE**2 / 4 + bound
    # A hidden token's right neighbour is hidden far more often than another.
    assert found[1:][found[:-1]].mean() > 2.5 * RATE


@given(LENGTHS, st.integers(0, 10**6))
def test_spans_end_with_their_text(lengths: list[int], seed: int) -> None:
    """Of spans that all have three tokens, each run has three or more, or ends with its text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hiding, "SPANS", np.array([0.0, 0.0, 1.0]))
        patch.setattr(hiding, "RATE", 0.4)
        found = chosen(lengths, "spans", np.random.default_rng(seed))
    assert len(found) == sum(lengths)
    for text in np.split(found, np.cumsum(lengths)[:-1]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], text, [0]])))
        for begin, end in edges.reshape(-1, 2):
            assert end - begin >= 3 or end == len(text)


@given(st.integers(1, 3), st.integers(0, 10**6))
def test_a_text_of_its_own_begins_anew(length: int, seed: int) -> None:
    """The same is chosen of texts side by side as of each by itself, after the others."""
    together, alone = np.random.default_rng(seed), np.random.default_rng(seed)
    for masks in ("tokens", "spans"):
        parts = [chosen([n], masks, alone) for n in (length, 9, length)]
        np.testing.assert_array_equal(chosen([length, 9, length], masks, together), np.concatenate(parts))


def test_nothing_is_chosen_of_nothing():
    assert chosen([], "tokens", np.random.default_rng(0)).shape == (0,)
    assert chosen([], "spans", np.random.default_rng(0)).shape == (0,)


MASK, LOW, HIGH, ID = 3, 10, 60, 5  # the id is no mask and none that is drawn


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 10**6))
def test_what_is_not_hidden_stays(hidden: list[bool], seed: int) -> None:
    ids = np.arange(100, 100 + len(hidden), dtype=np.int32)
    found = replaced(ids, np.array(hidden, bool), MASK, LOW, HIGH, np.random.default_rng(seed))
    assert found.dtype == np.int32 and found.shape == ids.shape
    for before, after, is_hidden in zip(ids.tolist(), found.tolist(), hidden, strict=True):
        assert after in (before, MASK) or LOW <= after < HIGH if is_hidden else after == before


def test_eight_of_ten_are_masked_and_one_is_another():
    count, random = 200_000, np.random.default_rng(0)
    hidden = np.arange(2 * count) % 2 == 0
    found = replaced(np.full(2 * count, ID, np.int32), hidden, MASK, LOW, HIGH, random)[hidden]
    for share, kind in ((0.8, found == MASK), (0.1, (found >= LOW) & (found < HIGH)), (0.1, found == ID)):
        assert abs(kind.mean() - share) < DEVIATIONS * (share * (1 - share) / count) ** 0.5
    others = np.bincount(found[found >= LOW], minlength=HIGH)[LOW:]
    mean = count * 0.1 / (HIGH - LOW)
    assert len(others) == HIGH - LOW and abs(others - mean).max() < DEVIATIONS * mean**0.5
