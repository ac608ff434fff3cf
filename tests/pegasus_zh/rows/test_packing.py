"""Packing: every pair once, little padding on several kinds of documents, records that decode to the pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.rows.packing import (
    IDS,
    MULTIPLE,
    SOURCE,
    TARGET,
    choose_row_shape,
    decode_rows,
    encode_row,
    pack,
    padding,
)

LONGEST = (384, 127)
lengths_up_to_40_and_16 = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 16)), max_size=150)


@given(lengths_up_to_40_and_16)
def test_every_pair_is_in_one_row_and_fits(pairs):
    lengths = np.array(pairs, np.int64).reshape(-1, 2)
    rows = pack(lengths, (40, 16))
    assert sorted(pair for row in rows for pair in row) == list(range(len(pairs)))
    assert all((lengths[row].sum(0) <= (40, 16)).all() for row in rows)


@given(lengths_up_to_40_and_16)
def test_a_row_is_closed_only_when_nothing_left_fits(pairs):
    lengths = np.array(pairs, np.int64).reshape(-1, 2)
    rows = pack(lengths, (40, 16))
    for i, row in enumerate(rows):
        later = [pair for other in rows[i + 1 :] for pair in other]
        assert (lengths[row].sum(0) + lengths[later] > (40, 16)).any(1).all()


def test_finds_the_complements():
    """Pairs cut out of full rows at random are put together again."""
    rng = np.random.default_rng(0)
    cuts = np.stack([rng.integers(10, 90, 400), rng.integers(10, 30, 400)], 1)
    lengths = np.concatenate([cuts, (100, 40) - cuts])
    assert len(pack(lengths, (100, 40))) < 1.04 * 400


def test_one_pair_that_fills_the_row_is_preferred_to_two_that_do_not():
    lengths = np.array([(60, 24)] * 10 + [(40, 16)] * 10 + [(15, 6)] * 60)
    assert len(pack(lengths, (100, 40))) == 20


def test_a_pair_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([[10, 2], [9, 5]]), (10, 4))


@given(st.lists(st.integers(1, 40), max_size=150), st.integers(1, 6))
def test_one_side_and_a_limit(examples, most):
    """As many as fit, at most so many: the limit is a side of which each takes one."""
    lengths = np.array(examples, np.int64).reshape(-1, 1)
    rows = pack(lengths, (40,), most)
    assert sorted(example for row in rows for example in row) == list(range(len(examples)))
    assert all(lengths[row].sum() <= 40 and len(row) <= most for row in rows)
    assert rows == pack(np.concatenate([lengths, np.ones_like(lengths)], 1), (40, most))


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 16), st.integers(1, 9)), max_size=80))
def test_any_number_of_sides(examples):
    lengths = np.array(examples, np.int64).reshape(-1, 3)
    rows = pack(lengths, (40, 16, 9))
    assert sorted(example for row in rows for example in row) == list(range(len(examples)))
    assert all((lengths[row].sum(0) <= (40, 16, 9)).all() for row in rows)


def test_padding_by_side():
    source, target, both = padding(np.array([[10, 3], [6, 1]]), rows=2, row=(10, 4))
    assert (source, target, both) == pytest.approx((0.2, 0.5, 8 / 28))


def kinds_of_documents() -> dict[str, np.ndarray]:
    """Lengths as news, novels, statutes and short posts have them."""
    rng = np.random.default_rng(1)

    def pairs(source: np.ndarray, ratio: float, spread: float) -> np.ndarray:
        target = source * np.exp(rng.normal(np.log(ratio), spread, len(source)))
        return np.stack([np.clip(source, 8, 384), np.clip(target, 4, 127)], 1).astype(int)

    return {
        "news": pairs(rng.gamma(3, 65, 1500), 0.36, 0.35),
        "novels": pairs(np.where(rng.random(1500) < 0.9, 384, rng.uniform(100, 384, 1500)), 0.33, 0.1),
        "statutes": pairs(rng.normal(300, 40, 1500), 0.32, 0.25),
        "posts": pairs(rng.gamma(1.5, 90, 1500), 0.38, 0.4),
    }


@pytest.mark.parametrize(("kind", "lengths"), kinds_of_documents().items())
def test_padding_is_at_most_four_percent(kind, lengths):
    row = choose_row_shape(lengths[:700], LONGEST, (0, 0))
    assert row[0] % 384 == 0 and row[1] % MULTIPLE == 0 and row[1] >= 127
    share = padding(lengths, len(pack(lengths, row)), row)[2]
    assert share <= 0.04, (row, share)


def test_the_shortest_row_that_will_do_is_chosen():
    full = np.tile([384, 127], (100, 1))
    assert choose_row_shape(full, LONGEST, (0, 0)) == (384, 128)
    half = np.tile([200, 60], (100, 1))  # one in 384, three in 768, five in 1152, seven in 1536
    assert choose_row_shape(half, LONGEST, (0, 0))[0] > 768


def test_a_given_side_is_kept():
    lengths = kinds_of_documents()["news"][:300]
    assert choose_row_shape(lengths, LONGEST, (1000, 0))[0] == 1000
    assert choose_row_shape(lengths, LONGEST, (0, 200))[1] == 200
    assert choose_row_shape(lengths, LONGEST, (1000, 200)) == (1000, 200)
    assert choose_row_shape(lengths, (500, 299), (0, 0))[0] % MULTIPLE == 0


def test_record_format():
    """Number of pairs, source lengths, target lengths, source ids, target ids; little-endian."""
    pairs = [(np.array([7, 8, 9]), np.array([258, 2])), (np.array([5]), np.array([2]))]
    assert encode_row(pairs, "<u2") == bytes([2, 0, 3, 0, 1, 0, 2, 0, 1, 0, 7, 0, 8, 0, 9, 0, 5, 0, 2, 1, 2, 0, 2, 0])
    assert len(encode_row(pairs, "<u4")) == 2 * len(encode_row(pairs, "<u2"))


def test_decoded_arrays():
    pairs = [(np.array([7, 8, 9]), np.array([4, 2])), (np.array([5]), np.array([6, 6, 2]))]
    row = {
        name: array[0].tolist()
        for name, array in decode_rows([encode_row(pairs, "<u2")], "<u2", {SOURCE: 6, TARGET: 7}, 0, 101).items()
    }
    assert row == {
        "source": [7, 8, 9, 5, 0, 0],
        "source_segments": [1, 1, 1, 2, 0, 0],
        "target": [4, 2, 6, 6, 2, 0, 0],
        "target_inputs": [101, 4, 101, 6, 6, 0, 0],
        "target_segments": [1, 1, 2, 2, 2, 0, 0],
    }


def test_a_row_of_one_side():
    """Plain text has no target, on disk or in a batch."""
    examples = [(np.array([7, 8, 9]),), (np.array([5]),)]
    record = encode_row(examples, "<u2")
    assert record == bytes([2, 0, 3, 0, 1, 0, 7, 0, 8, 0, 9, 0, 5, 0])
    batch = decode_rows([record, b""], "<u2", {IDS: 6}, 0, 101)
    assert {name: array.tolist() for name, array in batch.items()} == {
        "ids": [[7, 8, 9, 5, 0, 0], [0] * 6],
        "segments": [[1, 1, 1, 2, 0, 0], [0] * 6],
    }
    assert choose_row_shape(np.tile([[200]], (100, 1)), (384,), (0,))[0] > 768


ids = st.lists(st.integers(0, 250_000), min_size=1, max_size=20).map(lambda values: np.array(values, "<u4"))


@given(st.lists(st.lists(st.tuples(ids, ids), max_size=5), min_size=1, max_size=4), st.integers(0, 3))
def test_records_decode_to_the_pairs(rows, spare):
    records = [encode_row(row, "<u4") if row else b"" for row in rows]
    batch = decode_rows(records, "<u4", {SOURCE: 100 + spare, TARGET: 100 + spare}, 0, 9)
    assert all(array.dtype == np.int32 and array.shape == (len(rows), 100 + spare) for array in batch.values())
    for i, row in enumerate(rows):
        here = {name: array[i] for name, array in batch.items()}
        for segment, (source, target) in enumerate(row, 1):
            np.testing.assert_array_equal(here["source"][here["source_segments"] == segment], source)
            inside = here["target_segments"] == segment
            np.testing.assert_array_equal(here["target"][inside], target)
            np.testing.assert_array_equal(here["target_inputs"][inside], [9, *target[:-1]])
        assert here["source_segments"].max() == here["target_segments"].max() == len(row)
        padding = here["target_segments"] == 0
        assert not here["target"][padding].any() and not here["target_inputs"][padding].any()
        assert not here["source"][here["source_segments"] == 0].any()
