"""Queries and keys turned by positions of any number of coordinates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope import rotate
from rope.positions.angles import SCHEDULES, frequencies, grid
from rope.positions.extension import Extension
from rope.positions.rotary import rotate as rotate_by
from rope.positions.rotary import rotation

X = np.random.default_rng(0).standard_normal((2, 6, 3, 12)).astype(np.float32)


GRID = np.asarray(grid(2, 3))
BAD = ("abc", None, b"abc", ["a"] * 12, X > 0)


def scores(turn, positions):
    return jnp.einsum("BTNH,BSNH->BNTS", turn(X, positions), turn(X[::-1], positions))


def test_on_a_line_it_is_the_models_rotation():
    wanted = rotate_by(jnp.asarray(X), rotation(jnp.arange(6), frequencies(12, "1000^-t")), "half")
    found = rotate(X, np.arange(6), theta="1000^-t", layout="half")
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found, rotate(X, np.arange(6)[:, None], theta="1000^-t", layout="half"))
    np.testing.assert_array_equal(rotate(X, np.arange(6), frequencies(12, "t")), rotate(X, np.arange(6), theta="t"))
    assert rotate(jnp.asarray(X, jnp.bfloat16), np.arange(6)).dtype == jnp.bfloat16


@pytest.mark.parametrize("encoding", ["axial", "mixed"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_scores_depend_on_differences_alone(encoding, axes):
    places = np.random.default_rng(1).integers(0, 5, (6, axes))
    turn = partial(rotate, encoding=encoding, theta="10^-t")
    apart = np.arange(1, axes + 1) * 0.5
    np.testing.assert_allclose(scores(turn, places), scores(turn, places + apart), atol=1e-4)
    assert not np.allclose(scores(turn, places), scores(turn, 2 * places), atol=0.1)


def test_a_set_of_positions_for_each_row_and_in_a_program():
    places = np.stack([grid(2, 3), grid(3, 2)])
    found = jax.jit(partial(rotate, encoding="axial"))(X, places)
    for row in range(2):
        np.testing.assert_allclose(found[row], rotate(X[row], places[row], "axial"), atol=1e-6)


@pytest.mark.parametrize("beyond", [2**31, 2**32, 2**40])
def test_whole_positions_beyond_int32_are_those_numbers(beyond):
    places = np.arange(6) + beyond
    np.testing.assert_array_equal(rotate(X, places), rotate(X, places.astype(float)))
    assert not np.allclose(rotate(X, places), rotate(X, np.arange(6)), atol=0.1)


def test_an_extension_and_frequencies_of_ones_own(monkeypatch):
    twice = rotate(X, 2 * np.arange(6), extension=Extension(method="linear", factor=2))
    np.testing.assert_allclose(twice, rotate(X, np.arange(6)), atol=1e-6)
    monkeypatch.setitem(SCHEDULES, "falling", lambda t: 1 - t)
    found = rotate(X, np.arange(6), theta="falling")
    np.testing.assert_allclose(found, rotate(X, np.arange(6), 1 - np.arange(6) / 6), atol=1e-5)
    with pytest.raises(ValueError, match="like 10000.-t, 1000.-t, t.2 or t, or falling"):
        rotate(X, np.arange(6), theta="rising")


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: rotate(X, np.arange(5)), r"positions of shape \(5,\): \[T\] or \[..., T, d\] for T = 6"),
        (lambda: rotate(X, np.zeros((6, 2))), "positions of 2 coordinates: encoding must be axial or mixed"),
        (lambda: rotate(X, np.arange(6), "axial"), r"axial ones have coordinates, \[T, d\]"),
        (lambda: rotate(X, np.zeros((6, 5)), "axial"), "for 5 axes it must be a multiple of 10"),
        (
            lambda: rotate(X, np.arange(6), "rope"),
            "encoding is 'rope': it must be rotary, axial, mixed, or frequencies",
        ),
        (lambda: rotate(X, np.arange(6), frequencies(8)), "a rotation of 8 dimensions cannot turn a head of 12"),
        (lambda: rotate(X.astype(int), np.arange(6)), "x of int(32|64): what is turned must be of a floating type"),
        (lambda: rotate(X + 0j, np.arange(6)), "x of complex64"),
        *((lambda bad=bad: rotate(bad, np.arange(6)), "x of .*: give real") for bad in BAD),
        *((lambda bad=bad: rotate(X, bad), "positions of .*: give real") for bad in BAD),
        *((lambda bad=bad: rotate(X, np.arange(6), bad), "encoding of .*: give real") for bad in BAD[1:]),
        (lambda: rotate(X, np.arange(6), np.full(6, np.nan)), "encoding of NaN or infinity"),
        *((lambda theta=theta: rotate(X, np.arange(6), theta=theta), "theta is ") for theta in (None, 10_000)),
        (lambda: rotate(X, np.arange(6), extension="yarn"), "extension is 'yarn': it must be a rope.pos.*Extension"),
        *((lambda seed=seed: rotate(X, GRID, "mixed", seed=seed), "seed is ") for seed in (2**70, 1.5, "a")),
        *(
            (lambda shape=shape: rotate(X, GRID, np.ones(shape)), r"frequencies of shape .* do not go with x of shape")
            for shape in ((4, 2, 6), (1, 3, 2, 6), (6,))
        ),
        (
            lambda: rotate(X[:1], GRID[:, :1], np.ones(6)),
            r"positions of shape \(6, 1\) and frequencies of shape \(6,\)",
        ),
        (lambda: rotate(X, np.stack([GRID] * 3), "axial"), r"positions of shape \(3, 6, 2\) do not go with x"),
        (lambda: rotate(X[0], np.stack([GRID] * 2), "axial"), r"positions of shape \(2, 6, 2\) do not go with x"),
        (lambda: rotate(X[0, 0], np.arange(6)), r"x of shape \(3, 12\): queries or keys \[..., T, N, H\]"),
        (lambda: rotate(X, np.arange(6) + 0j), "positions of complex128: give real"),
        (lambda: rotate(X, np.full(6, np.nan)), "positions of NaN"),
        (lambda: rotate(X[..., :11], np.arange(6)), "the head size .or width. is 11"),
        (lambda: rotate(X, np.arange(6), extension=Extension(method="rerope")), "ReRoPE changes scores"),
        (lambda: rotate(X, np.zeros((6, 2)), "axial", extension=Extension()), "an extension is of rotary positions"),
        (lambda: rotate(X, np.arange(6), layout="pairs"), "layout is 'pairs'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")
def test_what_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
