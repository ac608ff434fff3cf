"""Numbers that a config cannot have are refused by name."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.ranges import check_lists, check_ranges


@dataclass
class Config:
    x: float | None


@given(st.floats(), st.floats(-9, 9), st.floats(-9, 9) | st.none())
def test_a_number_is_refused_where_it_is_outside(x, least, bound):
    limits = least if bound is None else (least, bound)
    if least <= x < (math.inf if bound is None else bound):
        return check_ranges(Config(x), x=limits)
    with pytest.raises(ValueError, match=r"^x is .*: it must be (.* or more|at least .* and below .*)$"):
        check_ranges(Config(x), x=limits)


@pytest.mark.parametrize(
    ("x", "limits", "words"),
    [
        (0, 1, "x is 0: it must be 1 or more"),
        (math.nan, 0, "x is nan: it must be 0 or more"),
        (math.inf, 0, "x is inf: it must be at least 0 and below inf"),
        (1.0, (0, 1), "x is 1.0: it must be at least 0 and below 1"),
    ],
)
def test_what_is_said(x, limits, words):
    with pytest.raises(ValueError) as caught:
        check_ranges(Config(x), x=limits)
    assert str(caught.value) == words
    check_ranges(Config(None), x=limits)


@pytest.mark.parametrize("value, kind", [(2.0, int), ("2", int), (True, int), (None, int), ("2", float), (2j, float)])
def test_a_number_is_of_its_kind(value, kind):
    one = dataclass(type("One", (), {"__annotations__": {"n": kind}}))
    with pytest.raises(ValueError, match=f"it must be a {'whole ' * (kind is int)}number$"):
        check_ranges(one(value), n=1)
    check_ranges(one(np.int64(2)), n=1)


def test_lists_have_allowed_values_once():
    @dataclass
    class Lists:
        sizes: tuple[int, ...] = (2, 3)
        names: tuple[str, ...] = ("a",)

    allowed = {"sizes": range(2, 10), "names": ("a", "b")}
    check_lists(Lists(), **allowed)
    check_lists(Lists(sizes=(2, 2)), repeated=True, **allowed)
    for wrong, message in (
        (Lists(sizes=()), "sizes is \\(\\): give one or more, each once"),
        (Lists(sizes=(2, 2)), "each once"),
        (Lists(sizes=(1,)), "sizes has 1: it must be from 2 to 9"),
        (Lists(names=("a", "c")), "names has 'c': it must be one of a, b"),
    ):
        with pytest.raises(ValueError, match=message):
            check_lists(wrong, **allowed)
