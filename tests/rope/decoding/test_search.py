"""What a search may be, and the best tokens by chunks."""

import jax
import numpy as np
import pytest

from rope.decoding.search import Marks, Search
from rope.decoding.tokens import top_k


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beams": 0}, "beams is 0: it must be 1 or more"),
        (
            {"beams": 2, "temperature": 1.0},
            "temperature is 1.0: drawing goes with one beam; leave out --temperature or --beams",
        ),
        ({"beams": np.nan}, "beams is nan: it must be a whole number"),
        ({"beams": None}, "beams is None"),
        ({"beams": 2.5}, "beams is 2.5: it must be a whole number"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be at least 1e-06"),
        ({"temperature": 1e-300}, "temperature is 1e-300"),
        ({"temperature": np.nan}, "temperature is nan"),
        ({"temperature": "1"}, "temperature is '1': it must be a number"),
        ({"beams": 2, "length_penalty": np.nan}, "length_penalty is nan"),
        ({"beams": 2, "length_penalty": 1e6}, "length_penalty is 1000000.0: it must be at least -10 and below 10"),
        ({"temperature": 1.0, "top_k": 2.5}, "top_k is 2.5: it must be a whole number"),
        ({"top_k": 5}, "top_k is 5: it restricts what is drawn at random: give --temperature 1.0 too"),
        ({"top_p": 0.5}, "top_p is 0.5: it restricts"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0: it must be above 0 and at most 1"),
        ({"min_length": -1}, "min_length is -1: it must be 0 or more"),
        ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size is 1.5: it must be a whole number"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0: it must be at least 0.01"),
        ({"answers": 2}, "answers is 2: give --temperature 1.0, to draw them, or --beams 2 with"),
        ({"answers": 3, "beams": 2}, "or --beams 3"),
        ({"answers": 2, "beams": 4, "length_penalty": None}, "with a number as --length-penalty"),
    ],
)
def test_impossible_searches_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Search(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"never": ((1,),)}, "the end token 1 is forbidden: .* min_length"),
        ({"never": ((),)}, "a forbidden word has no ids"),
        ({"first": (4, 1)}, r"\(4, 1\) ends a text"),
        ({"first": (0,)}, "ends a text"),
    ],
)
def test_impossible_words_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Marks(start=2, end=1, **wrong)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_top_k_by_chunks_is_that_of_jax_to_the_last_tie(count):
    x = np.random.default_rng(0).integers(0, 30, (2, 3, 1001)).astype(np.float32)
    for ours, theirs in zip(jax.jit(top_k, static_argnums=1)(x, count), jax.lax.top_k(x, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)
