"""What comes after the pooling: the same of NumPy's arrays and of jax's, and how wide it makes vectors."""

import jax
import numpy as np
import pytest

from retrieval.vectors.steps import Dense, Normalize, after

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.standard_normal((5, 4), np.float32)
KERNEL, BIAS = RANDOM.standard_normal((4, 3), np.float32), RANDOM.standard_normal(3, np.float32)
WANTED = {"Identity": lambda x: x, "Tanh": np.tanh, "ReLU": lambda x: np.where(x > 0, x, 0)}


@pytest.mark.parametrize("activation", WANTED)
def test_numpy_and_jax(activation):
    steps = (Dense(KERNEL, BIAS, activation), Normalize())
    wanted = WANTED[activation](VECTORS @ KERNEL + BIAS)
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = after(steps, VECTORS)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda x: after(steps, x))(VECTORS), wanted, rtol=1e-5)


def test_a_vector_of_zeros_stays_so():
    np.testing.assert_array_equal(after([Normalize()], np.zeros((2, 3), np.float32)), np.zeros((2, 3)))


def test_widths_and_names():
    dense = Dense(KERNEL, BIAS)
    assert (dense.width(4), Normalize().width(4)) == (3, 4) and (dense.told, Normalize().told) == (
        "Dense to 3",
        "length 1",
    )
    assert dense.fingerprint.endswith(" Identity") and Normalize().fingerprint == "unit"
