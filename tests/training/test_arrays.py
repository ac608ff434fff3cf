"""Points as callers give them."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.arrays import points


def test_what_is_taken():
    assert points([[1, 2], [3, 4]], "x").dtype == np.float32
    assert points(np.ones((2, 3), np.float64), "x").dtype == np.float64
    assert points(jnp.ones((2, 3), jnp.bfloat16), "x").dtype == np.float32
    assert points(np.ones((2, 3), np.float16), "x").dtype == np.float32


@pytest.mark.parametrize(
    "given, said",
    [
        (
            np.ones(3),
            r"x of shape \(3,\): \[n, D\] is needed; one vector is x\[None\], numbers on a line are x\[:, None\]",
        ),
        (np.ones((2, 3, 4)), r"x of shape \(2, 3, 4\)"),
        (np.ones((0, 3)), r"x of shape \(0, 3\): \[n, D\] is needed, n and D from 1"),
        ([], r"x of shape \(0,\)"),
        (1.0, r"x of shape \(\)"),
        ([[1, 2], [3]], r"x: no array \[n, D\]"),
        (np.ones((2, 2), complex), "x of complex128: give real numbers"),
        (np.ones((2, 2), bool), "x of bool"),
        ([["a"]], "x of <U1"),
        ([[1.0], [np.nan]], "x: row 1 has NaN or infinity; leave it out"),
        ([[np.inf], [0.0]], "x: row 0 has NaN or infinity"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        points(given, "x")
