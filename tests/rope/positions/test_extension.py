"""Beyond the trained length: each method keeps what it says it keeps. (Equality with transformers: tests/parity.)"""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.encoder.roformer import RoFormerConfig
from rope.positions.angles import frequencies
from rope.positions.extension import (
    Extension,
    base_of,
    dynamic_ntk,
    extended_rotation,
    hierarchical,
    interpolated,
    ntk_aware,
    slowed,
    slowed_rotation,
    yarn,
    yarn_magnitude,
)
from rope.positions.rerope import LongRotation
from rope.positions.rotary import rotation

SIZES, FACTORS = st.sampled_from([4, 16, 64, 128]), st.floats(1, 64)


@settings(max_examples=30)
@given(SIZES, FACTORS)
def test_ntk_keeps_the_highest_and_interpolates_the_lowest_frequency(size, factor):
    plain, ours = frequencies(size), ntk_aware(size, factor)
    np.testing.assert_allclose(ours[0], 1)
    np.testing.assert_allclose(ours[-1], interpolated(plain, factor)[-1], rtol=2e-5)
    assert (ours <= plain * (1 + 1e-5)).all() and (ours >= plain / factor * (1 - 2e-5)).all()


@settings(max_examples=30)
@given(SIZES, FACTORS, st.integers(32, 4096))
def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones(size, factor, trained):
    plain, ours = np.asarray(frequencies(size)), np.asarray(yarn(size, factor, trained))
    turns = trained * plain / (2 * np.pi)
    step = 10_000 ** (2 / size)  # the bounds are rounded to whole pairs
    kept, slow = turns > 32 * step, turns < 1 / step**2
    np.testing.assert_allclose(ours[kept], plain[kept], rtol=1e-5)
    np.testing.assert_allclose(ours[slow], plain[slow] / factor, rtol=1e-5)
    assert (ours <= plain * (1 + 1e-5)).all() and (ours >= plain / factor * (1 - 1e-5)).all()
    assert yarn_magnitude(factor) == pytest.approx(1 + 0.1 * np.log(factor))


@settings(max_examples=20)
@given(st.integers(1, 512), FACTORS)
def test_dynamic_changes_nothing_within_the_trained_length(length, factor):
    np.testing.assert_allclose(dynamic_ntk(64, factor, length, 512), frequencies(64), rtol=1e-6)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_dynamic_by_the_length_of_each_text(size):
    lengths, positions = np.array([[5, 5, 40], [130, 31, 32]]), np.array([[0, 4, 39], [129, 3, 31]])
    e = Extension(method="dynamic", factor=3, trained=32)
    found = extended_rotation(e, jnp.asarray(positions), size, jnp.asarray(lengths))
    assert found.cos.shape == (2, 3, 1, size // 2)
    for at in np.ndindex(2, 3):
        grown = (3 * max(lengths[at], 32) / 32 - 2) ** (size / max(size - 2, 1))
        base = 10_000 * grown if size > 2 else 10_000.0
        theta = positions[at] * base ** -(np.arange(size // 2) / (size // 2))
        np.testing.assert_allclose(found.cos[at][0], np.cos(theta), atol=2e-5)
        np.testing.assert_allclose(found.sin[at][0], np.sin(theta), atol=2e-5)
        alone = extended_rotation(e, jnp.asarray(positions[at])[None], size, int(lengths[at]))
        np.testing.assert_allclose(found.sin[at][0], alone.sin[0, 0], atol=2e-5)


FACTORS_OF_16 = tuple(np.linspace(1, 9, 8).tolist())


@pytest.mark.parametrize("method", ["dynamic-yarn", "longrope"])
def test_a_text_is_turned_by_its_own_length(method):
    """Beside others as alone, in frequencies and magnitude."""
    e = Extension(method=method, factor=3, trained=32, long_factors=FACTORS_OF_16, short_factors=FACTORS_OF_16[::-1])
    lengths, positions = np.array([[5, 5, 40], [130, 31, 33]]), np.array([[0, 4, 39], [129, 3, 31]])
    found = extended_rotation(e, jnp.asarray(positions), 16, jnp.asarray(lengths))
    assert found.cos.shape == (2, 3, 1, 8)
    for at in np.ndindex(2, 3):
        alone = extended_rotation(e, jnp.asarray(positions[at])[None], 16, int(lengths[at]))
        for ours, wanted in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours[at], wanted[0], atol=2e-5)
    # What a text is divided by: of short texts YaRN's factor is 1, LongRoPE has factors of its own.
    short, long = (slowed(e, 16, length)[0] for length in (32, 33))
    ratio = np.asarray(frequencies(16) / short), np.asarray(frequencies(16) / long)
    wanted = (FACTORS_OF_16[::-1], FACTORS_OF_16) if method == "longrope" else (np.ones(8), ratio[1])
    np.testing.assert_allclose(ratio, wanted, rtol=1e-5)
    assert ratio[1][-1] == pytest.approx(9 if method == "longrope" else 33 / 32)


def test_longropes_short_texts_are_as_trained_unless_told():
    e = Extension(method="longrope", factor=4, trained=16, long_factors=[2.0] * 4)
    assert e.long_factors == (2.0,) * 4 and e == Extension(**vars(e))  # lists, as JSON has them
    np.testing.assert_array_equal(slowed(e, 8, 16)[0], frequencies(8))
    np.testing.assert_array_equal(slowed(e, 8, 17)[0], frequencies(8) / 2)
    assert slowed(e, 8, 16)[1] == slowed(e, 8, 17)[1] == pytest.approx(1.5**0.5)  # ln 4 / ln 16 is a half


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda: Extension(method="longrope"), "needs long_factors, one for each pair"),
        (lambda: Extension(method="longrope", trained=1, long_factors=(1.0,)), "trained of 2 or more"),
        (lambda: Extension(long_factors=(1.0, 0.0)), "long_factors is 0.0: it must be at least"),
        (lambda: Extension(short_factors=(float("nan"),)), "short_factors is nan"),
        (
            lambda: slowed(Extension(method="longrope", long_factors=(1.0,) * 3), 8, 4),
            "long_factors are 3: a head of 8 has 4 pairs",
        ),
        (
            lambda: RoFormerConfig(extension=Extension(method="longrope", long_factors=(1.0,) * 3)),
            "long_factors are 3: a head of 64 has 32 pairs",
        ),
    ],
)
def test_factors_that_cannot_be(of, message):
    with pytest.raises(ValueError, match=message):
        of()


@pytest.mark.parametrize(
    "method", ["none", "linear", "ntk", "dynamic", "yarn", "dynamic-yarn", "longrope", "rerope", "leaky"]
)
def test_a_factor_of_one_is_no_extension(method):
    places = jnp.arange(40)
    e = Extension(method=method, trained=64, window=50, long_factors=(1.0,) * 8)
    by = extended_rotation(e, places, 16, 40)
    by = by.near if isinstance(by, LongRotation) else by
    for ours, plain in zip(by, rotation(places, frequencies(16)), strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5)


@pytest.mark.parametrize("method", ["rerope", "leaky", "hierarchical"])
def test_what_is_no_matter_of_frequencies_alone(method):
    with pytest.raises(ValueError, match=method):
        slowed_rotation(Extension(method=method), jnp.arange(4), 16, 4)


def test_a_table_is_continued_by_its_own_rows():
    table = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
    ours = np.asarray(hierarchical(table, 25), np.float64)
    np.testing.assert_allclose(ours[:5], table, atol=1e-6)
    basis = (np.asarray(table, np.float64) - 0.4 * np.asarray(table[0])) / 0.6
    for i, j in np.ndindex(5, 5):
        np.testing.assert_allclose(ours[5 * i + j], 0.4 * basis[i] + 0.6 * basis[j], atol=1e-5)
    with pytest.raises(ValueError, match="a table of 5 positions can be continued to 25, not to 26"):
        hierarchical(table, 26)


def test_small_heads_and_odd_bases():
    np.testing.assert_array_equal(ntk_aware(2, 8.0), [1])
    assert np.isfinite(ntk_aware(4, 1e9)).all() and base_of("500000^-t") == 500_000
    with pytest.raises(ValueError, match="YaRN needs one above 1"):
        yarn(16, 2.0, 64, base=1.0)
    for theta in ("t^2", "t", "x^-t"):
        with pytest.raises(ValueError, match="theta is"):
            base_of(theta)
    with pytest.raises(ValueError, match="factor is 0.5"):
        Extension(factor=0.5)
    with pytest.raises(ValueError, match="method is 'YaRN': it must be none, linear"):
        Extension(method="YaRN")
    with pytest.raises(ValueError, match="theta is '1e400"):
        frequencies(4, "1e400^-t")


def test_unsigned_positions_and_coarse_frequencies_lose_nothing():
    e = Extension(method="rerope", window=2)
    unsigned, signed = (extended_rotation(e, jnp.arange(5, dtype=d), 8, 5) for d in (jnp.uint8, jnp.int32))
    np.testing.assert_array_equal(unsigned.positions, signed.positions)
    found = rotation(jnp.arange(4096), frequencies(64).astype(jnp.bfloat16)).cos[:, 0]
    assert len(np.unique(np.asarray(found), axis=0)) == 4096
