"""docs/wgan.md's tables of critics are of these critics: trained for a moment, they say what they said as the tables
were made."""

import jax
import numpy as np
import pytest

from gan.critic import Critic, Shape
from gan.image_laws import squares
from gan.laws import Law, shells
from gan.objectives import CRITICS
from gan.training import program, train
from tests.figures import tied

pytestmark = pytest.mark.usefixtures("one_device")


def says(critic: Critic, law: Law) -> list[float]:
    """Of 16 points, after 100 steps of 8."""
    state, advance = program(critic, law, batch=8, seeds=1)
    state = jax.tree.map(lambda x: x[0], advance(state, 0, 100))
    told = jax.jit(critic.read)(state, *law.sample(jax.random.key(7), 16))
    return [float(told[name]) for name in sorted(told)]


def test_points():
    law, shape = shells(2), Shape(size=2, hidden=(8,))
    found = {name: says(make(shape), law) for name, make in CRITICS.items() if name != "exact"}
    ((reading, _),) = train(CRITICS["gp"](shape), law, steps=100, batch=8, seeds=1, chunk=100, scored=16)
    said = [reading.kr, reading.objective, reading.best, reading.cosine, reading.l2, reading.steepest]
    tied("docs/wgan.md", "static", found | {"what is read": np.ravel(said)})


def test_images():
    law = squares(8)
    shape = Shape(size=law.dimensions, image=law.image, hidden=(4,))
    found = {name: says(CRITICS[name](shape), law) for name in ("gp", "sn", "ortho", "aol", "sll")}
    tied("docs/wgan.md", "static of images", found)
