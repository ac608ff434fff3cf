"""Copies: the same characters, or nearly; the first is kept; the estimate is of Jaccard's similarity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.copies import GRAM, PLACES, band_width, digest, exact_copies, near_copies, signature

TEXT = "".join(chr(0x4E00 + int(n)) for n in np.random.default_rng(0).integers(0, 3000, 2000))


def similarity(one: str, two: str) -> float:
    """By the definition, without hashes."""
    first, second = ({text[i : i + GRAM] for i in range(len(text) - GRAM + 1)} for text in (one, two))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("changed", [0, 5, 20, 60, 200, 400, 2000])
def test_the_estimate(changed):
    other = TEXT[:-changed] + TEXT[:changed][::-1] if changed else TEXT
    estimate, exact = signature(TEXT).jaccard(signature(other)), similarity(TEXT, other)
    assert abs(estimate - exact) <= 4 * np.sqrt(exact * (1 - exact) / PLACES) + 1e-6


@given(st.lists(st.text(max_size=8), max_size=30))
def test_exact_copies_are_those_that_came_before(texts):
    expected = {n for n, text in enumerate(texts) if digest(text) in map(digest, texts[:n])}
    assert exact_copies(map(digest, texts)) == expected


def test_what_is_the_same():
    assert digest("第一条 ＡＢＣ\n法律") == digest("第一条abc　法律") != digest("第二条abc法律")
    assert exact_copies([None, None, b"1", b"1"]) == {3} and near_copies([None, None], 0.8) == set()


@given(st.text(max_size=20))
def test_a_signature_is_of_the_text_alone(text):
    assert len(signature(text)) == PLACES and signature(text) == signature(f" {text}\n")


def test_the_first_is_kept():
    other = TEXT[::-1]
    texts = [TEXT, other, TEXT[:-20] + "法" * 20, other + "条", "法" + TEXT[1:]]
    assert near_copies(map(signature, texts), 0.8) == {2, 3, 4}
    assert near_copies(map(signature, texts[::-1]), 0.8) == {2, 3, 4}
    assert near_copies(map(signature, [TEXT, TEXT[:-600] + TEXT[:600][::-1]]), 0.8) == set()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1])
def test_bands_miss_few(threshold):
    width = band_width(threshold)
    assert width == 1 or (1 - threshold**width) ** (PLACES // width) <= 0.01
