"""Points as callers give them."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.arrays import points


@pytest.mark.parametrize(
    "given, kind",
    [
        ([[1, 2**24 + 1]], np.float64),
        (np.array([[1, 2**24 + 1]], np.int32), np.float64),
        (np.ones((2, 3)), np.float64),
        (np.array([[2.0**130]], np.longdouble), np.float64),
        (np.array([[1, 2**15 - 1]], np.int16), np.float32),
        (np.ones((2, 3), np.float16), np.float32),
        (jnp.ones((2, 3), jnp.bfloat16), np.float32),
    ],
)
def test_no_number_is_rounded(given, kind):
    found = points(given, "x")
    assert found.dtype == kind and np.array_equal(found, np.asarray(given))


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
        ([[1, 2], [3]], r"x: no array of numbers \(.*inhomogeneous"),
        (np.ones((2, 2), complex), "x of complex128: give real numbers"),
        (np.ones((2, 2), bool), "x of bool"),
        ([["a"]], "x of <U1"),
        (None, "x of object"),
        (np.ones((2, 2), "V8"), r"x of \|V8: give real numbers"),
        (np.ones((2, 2), [("a", float)]), "x of .*'a'.*: give real numbers"),
        (np.ones((2, 2), "m8[s]"), "x of timedelta64"),
        (np.ma.masked_array(np.ones((2, 2)), [[0, 1], [0, 0]]), "x is a masked array, whose mask would be lost"),
        (np.array([[np.longdouble("1e400")]]), "x: row 0 has NaN or infinity"),
        ([[1.0], [np.nan]], "x: row 1 has NaN or infinity; leave it out"),
        ([[np.inf], [0.0]], "x: row 0 has NaN or infinity"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        points(given, "x")
