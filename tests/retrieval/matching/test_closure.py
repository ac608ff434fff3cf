"""The closure of labels of 1 against a plain search, whatever else there is among the pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.matching.closure import closed
from retrieval.matching.pairs import Pair
from tests.retrieval.matching.small_pairs import FIRST, UNKNOWN, pair
from training.files.errors import DataError

ROWS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 7), st.sampled_from([0, 1, 1, 1, 0.5, UNKNOWN])), max_size=9
)


def pairs(rows: list[tuple[int, int, float]]) -> list[Pair]:
    """Text n is the ids of n + 2 in binary, so that some begin as others do."""
    return [pair(*([FIRST + int(x) for x in f"{n + 2:b}"] for n in row[:2]), row[2]) for row in rows]


def text(ids: np.ndarray) -> int:
    return int("".join(str(i - FIRST) for i in ids.tolist()), 2) - 2


def plainly(rows: list[tuple[int, int, float]]) -> list[set[int]]:
    """Groups of texts, of which labels of 1 make each two alike."""
    groups = [{n} for n in range(8)]
    for a, b, label in rows:
        if label == 1:
            one, other = (next(group for group in groups if n in group) for n in (a, b))
            if one is not other:
                groups.remove(other)
                one |= other
    return groups


@given(ROWS)
def test_the_closure_is_that_of_a_plain_search(rows: list[tuple[int, int, float]]) -> None:
    given, told = pairs(rows), list[str]()
    found = closed(given, told.append)
    assert all(one is other for one, other in zip(given, found, strict=False)) and len(found) >= len(given)
    more = found[len(given) :]
    new = [frozenset((text(x.a), text(x.b))) for x in more]
    alike = {frozenset(two) for group in plainly(rows) for two in itertools.combinations(group, 2)}
    assert {*new} == alike - {frozenset(row[:2]) for row in rows} and len({*new}) == len(new)
    assert all(x.label == 1 and x.a.dtype == x.b.dtype == np.int32 for x in more)
    against = sum(label == 0 and any({a, b} <= group for group in plainly(rows)) for a, b, label in rows)
    assert told == [
        f"{len(new)} further pairs follow from labels of 1; {against} labels of 0 contradict them, and stay"
    ]


@given(ROWS)
def test_what_is_closed_stays(rows: list[tuple[int, int, float]]) -> None:
    once = closed(pairs(rows))
    assert all(one is other for one, other in zip(closed(once), once, strict=True))


@given(ROWS)
def test_what_follows_is_in_the_order_of_its_texts(rows: list[tuple[int, int, float]]) -> None:
    """Group by group, as their first texts come, and in each by its first text and then by its second."""
    first = {n: place for place, n in reversed([*enumerate(itertools.chain.from_iterable(x[:2] for x in rows))])}
    of_group = {n: min(first[m] for m in group if m in first) for group in plainly(rows) for n in group if n in first}
    more = [(text(x.a), text(x.b)) for x in closed(pairs(rows))[len(rows) :]]
    order = [(of_group[a], first[a], first[b]) for a, b in more]
    assert order == sorted(order) and all(a < b for _, a, b in order)


def test_labels_that_are_not_sure_join_nothing():
    rows = [(0, 1, 0.999), (1, 2, 1.0), (2, 3, UNKNOWN), (3, 4, 0.0), (4, 5, 0.5)]
    assert len(closed(pairs(rows))) == len(rows)


def test_a_contradiction_is_counted_and_joins_nothing():
    told: list[str] = []
    rows = [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 0.0), (2, 3, 0.0), (4, 4, 0.0)]
    assert len(closed(pairs(rows), told.append)) == len(rows)
    assert told == ["0 further pairs follow from labels of 1; 2 labels of 0 contradict them, and stay"]


def test_a_chain_that_is_too_long_is_refused():
    chain = [pair([FIRST + n], [FIRST + n + 1], 1) for n in range(40)]
    with pytest.raises(DataError, match="820 pairs would follow from 40, 820 of them from one chain of labels of 1"):
        closed(chain)
    assert len(closed(chain[:15])) == 16 * 15 // 2


def test_a_text_of_unknown_numbers_is_no_other():
    """What -1 is differs from pair to pair."""
    x, y, z, both = [FIRST], [FIRST + 1], [FIRST + 2], [FIRST, -1]
    given = [pair(both, x, 1.0), pair(both, y, 1.0), pair(z, both, 1.0), pair([-1], [-1], 1.0)]
    assert len(closed(given)) == len(given)
    known = [pair(x, y, 1.0), pair(y, z, 1.0)]
    assert [(p.a.tolist(), p.b.tolist()) for p in closed([*given, *known])[len(given) + 2 :]] == [(x, z)]
    unknown = [pair(x, [100], 1.0), pair([100], y, 1.0)]
    assert len(closed(unknown, unknown=100)) == 2 and len(closed(unknown)) == 3
    told: list[str] = []
    closed([*given, pair(both, x, 0.0)], told.append)
    assert "; 0 labels of 0 contradict them" in told[0]
