"""The distance of two sets of points of one's own."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from gan import critic_w1, w1
from gan.objectives import CRITICS, exact, gradient_penalty

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.standard_normal((40, 2)) + [3, 0], RANDOM.standard_normal((30, 2))


def test_exactly():
    assert w1(X, X + [0, 2]) == pytest.approx(2)
    assert w1([[0], [1]], [[5], [6], [5], [6]]) == pytest.approx(5)
    assert w1(X, Y) == pytest.approx(w1(Y, X)) and w1(X, Y, "l1") > w1(X, Y)
    assert w1([[1_700_000_001, 0]], [[1_700_000_000, 0]]) == w1([[2**24 + 1]], [[2**24]]) == 1


@pytest.mark.parametrize("critic", ["ortho", "c", "exact", partial(gradient_penalty, weight=1.0)])
def test_by_a_critic(critic):
    found = critic_w1(X, Y, critic, steps=400 if critic == "ortho" else 20, batch=16, seeds=2, hidden=(16, 16))
    assert found.kr.shape == found.objective.shape == (2,) and found.w1 == pytest.approx(found.kr.mean())
    if critic == "ortho":
        assert found.certified and w1(X, Y) - 0.8 < found.w1 < w1(X, Y) + 0.2 and found.steepest.max() < 1.01


def test_settings_by_name_are_those_of_the_function():
    brief = {"steps": 5, "batch": 16, "seeds": 1, "hidden": (8,)}
    by_name, plain = (critic_w1(X, Y, critic, **brief) for critic in ("gp:weight=1", "gp"))
    assert by_name.kr == critic_w1(X, Y, partial(gradient_penalty, weight=1.0), **brief).kr != plain.kr


def test_what_is_refused():
    for call in (w1, critic_w1):
        with pytest.raises(ValueError, match=r"x of shape \(2,\): \[n, D\] is needed"):
            call(X[0], Y)
        with pytest.raises(ValueError, match="y: row 0 has NaN"):
            call(X, Y * np.nan)
        with pytest.raises(ValueError, match="y of complex128"):
            call(X, Y + 0j)
        with pytest.raises(ValueError, match="of 2 .*and .*1 dimensions: they must have as many"):
            call(X, Y[:, :1])
    with pytest.raises(ValueError, match=f"critic 'wgan': it must be one of {', '.join(CRITICS)}"):
        critic_w1(X, Y, "wgan")
    with pytest.raises(ValueError, match="critic 'gp:wait=1': gp has the settings weight"):
        critic_w1(X, Y, "gp:wait=1")
    with pytest.raises(ValueError, match="metric is 'l3'"):
        w1(X, Y, "l3")
    for name, value in [("steps", 0), ("steps", 2.5), ("steps", "3"), ("batch", 4.0), ("seeds", True)]:
        with pytest.raises(ValueError, match=f"{name} is {value!r}: it must be "):
            critic_w1(X, Y, **{name: value})
    for hidden in (32, "32", (0,), (3.5,)):
        with pytest.raises(ValueError, match="hidden is"):
            critic_w1(X, Y, hidden=hidden)
    for critic in (None, ["gp"]):
        with pytest.raises(ValueError, match=r"critic is .*: give a name, or what makes"):
            critic_w1(X, Y, critic)
    with pytest.raises(ValueError, match=r"critic makes 3: it must make a gan.critic.Critic"):
        critic_w1(X, Y, lambda shape: 3)
    with pytest.raises(ValueError, match="scale the points to about 1"):
        critic_w1(X, Y, lambda shape: replace(exact(shape), read=lambda *_: {"kr": jnp.nan}), steps=2, batch=4)
