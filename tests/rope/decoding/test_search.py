"""What a search may be, and the best tokens by chunks."""

import jax
import numpy as np
import pytest

from rope.decoding.search import Search
from rope.decoding.tokens import top_k


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beams": 0}, "beams = 0"),
        ({"beams": 2, "temperature": 1.0}, "beams = 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": np.nan}, "above 0"),
        ({"beams": 2, "length_penalty": np.nan}, "length_penalty = nan"),
        ({"top_k": 5}, "give a temperature"),
        ({"temperature": 1.0, "top_p": 0.0}, r"top_p in \(0, 1\]"),
    ],
)
def test_impossible_searches_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Search(**wrong)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_top_k_by_chunks_is_that_of_jax_to_the_last_tie(count):
    x = np.random.default_rng(0).integers(0, 30, (2, 3, 1001)).astype(np.float32)
    for ours, theirs in zip(jax.jit(top_k, static_argnums=1)(x, count), jax.lax.top_k(x, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)
