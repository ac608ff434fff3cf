"""The search for LongRoPE's factors: it goes on, keeps to its bounds, and finds what is less than where it began."""

import json

import numpy as np
import pytest

from rope.experiments.factors import BEYOND, CHILDREN, GENERATIONS, children_of, find_factors

WANTED = np.array([1.0, 1.0, 2.0, 5.0])
STARTS = [np.full(4, 8.0), np.array([1.0, 2.0, 4.0, 8.0])]


def distance(factors: np.ndarray) -> float:
    return float(np.abs(np.log(factors / WANTED)).sum())


def test_factors_come_nearer_to_what_is_best_and_keep_their_bounds(tmp_path):
    file = tmp_path / "1024.json"
    found = find_factors(distance, STARTS, 8.0, file)
    assert distance(np.array(found)) < 0.6 * min(map(distance, STARTS))
    tried = json.loads(file.read_text())["tried"]
    assert len(tried) == len(STARTS) + GENERATIONS * CHILDREN
    assert distance(np.array(found)) == min(x["loss"] for x in tried)
    for factors in (np.array(x["factors"]) for x in tried):
        assert (np.diff(factors) >= 0).all() and factors[0] >= 1 and factors[-1] <= BEYOND * 8 + 1e-9


def test_a_search_goes_on_where_it_was_stopped(tmp_path):
    once = find_factors(distance, STARTS, 8.0, tmp_path / "once.json")
    calls = []

    def stopping(factors: np.ndarray) -> float:
        calls.append(factors)
        if len(calls) == len(STARTS) + 2 * CHILDREN + 3:  # within the third generation
            raise KeyboardInterrupt
        return distance(factors)

    with pytest.raises(KeyboardInterrupt):
        find_factors(stopping, STARTS, 8.0, tmp_path / "twice.json")
    assert find_factors(stopping, STARTS, 8.0, tmp_path / "twice.json") == once
    assert len(calls) == len(STARTS) + GENERATIONS * CHILDREN + 3  # what a generation had tried is tried again
    assert (tmp_path / "twice.json").read_bytes() == (tmp_path / "once.json").read_bytes()
    assert find_factors(pytest.fail, STARTS, 8.0, tmp_path / "once.json") == once  # read, and nothing else


def test_children_differ_from_generation_to_generation():
    one, other = children_of(STARTS, 1, 8.0), children_of(STARTS, 2, 8.0)
    assert len(one) == CHILDREN and not np.array_equal(one, other)
    np.testing.assert_array_equal(one, children_of(STARTS, 1, 8.0))
