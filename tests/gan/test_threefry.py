"""The generator is Threefry, and its keys draw numbers that are independent and uniform as far as these tests see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gan.threefry import key_of, threefry

# Known answers of Random123: key, counter, block.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize("key, counter, block", KNOWN)
def test_known_answers(key, counter, block):
    assert tuple(map(int, threefry(*(tuple(map(jnp.uint32, words)) for words in (key, counter))))) == block


def test_numbers_are_uniform_and_streams_apart():
    first = jax.random.bits(key_of(0), (3, 5, 7))
    assert first.dtype == np.uint32 and (first == jax.random.bits(key_of(0), (3, 5, 7))).all()
    keys = [
        key_of(1),
        key_of(2),
        *jax.random.split(key_of(1), 3),
        jax.random.fold_in(key_of(1), 0),
        jax.random.fold_in(key_of(1), 7),
    ]
    drawn = np.stack([jax.random.uniform(key, (20_000,)) for key in keys])
    for uniform in drawn:
        assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(drawn) - np.eye(len(keys))).max() < 0.04
    assert stats.kstest(np.asarray(jax.random.normal(key_of(3), (20_000,))), "norm").pvalue > 1e-4


def test_other_widths():
    for kind in (np.uint8, np.uint16):
        drawn = np.asarray(jax.random.bits(key_of(4), (20_000,), kind)) / (np.iinfo(kind).max + 1)
        assert stats.kstest(drawn + 0.5 / (np.iinfo(kind).max + 1), "uniform").pvalue > 1e-4
    with jax.enable_x64(True):
        drawn = np.asarray(jax.random.uniform(key_of(4), (20_000,), np.float64))
    assert drawn.dtype == np.float64 and stats.kstest(drawn, "uniform").pvalue > 1e-4


def test_seeds_at_once_are_seeds_alone():
    at_once = jax.vmap(lambda seed: jax.random.normal(jax.random.fold_in(key_of(seed), 3), (4,)))(jnp.arange(3))
    for seed, row in enumerate(at_once):
        np.testing.assert_array_equal(row, jax.random.normal(jax.random.fold_in(key_of(seed), 3), (4,)))
    keys = jax.random.split(key_of(5), (2, 3))
    assert keys.shape == (2, 3) and len(np.unique(jax.random.key_data(keys).reshape(-1, 2), axis=0)) == 6
