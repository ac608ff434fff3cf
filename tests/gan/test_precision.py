"""Products of critics and GANs are of float32 on every device, whoever begins them: a certified bound rests on it."""

import re
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from gan import critic_w1
from gan.critic import Shape, precise
from gan.experiments.gans import GansConfig, train
from gan.objectives import gradient_penalty, orthogonal
from gan.program import gan_program
from gan.trainer import Generator, Recipe


def recipe(image: tuple[int, int, int] | None) -> Recipe:
    critic = gradient_penalty(Shape(size=64, hidden=(4,), image=image))
    return Recipe(critic=critic, generator=Generator(size=64, latent=3, hidden=(4,), image=image), n_critic=1)


@pytest.mark.parametrize("image", [None, (8, 8, 1)])
def test_the_engines_programs(image):
    program = gan_program(recipe(image), 0)
    state, rows = jax.eval_shape(program.init), program.shapes(4)
    batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in rows.items()}
    images = {"images": jax.ShapeDtypeStruct((4, 64), np.float32)}
    for function, given in ((program.step, (state, batch)), (program.evaluate, (state.model, images))):
        lowered = jax.jit(function).lower(*given).as_text()
        products = re.findall(r".*stablehlo\.(?:dot_general|convolution)\b.*", lowered)
        assert len(products) >= 4 and all("HIGHEST" in x and "DEFAULT" not in x for x in products)
    assert jax.config.jax_default_matmul_precision is None


def watched(shape: Shape, seen: set, make) -> object:
    """A critic whose functions note the precision that they are traced at."""
    made = make(shape)

    def noting(name: str):
        def run(*args):
            seen.add((name, jax.config.jax_default_matmul_precision))
            return getattr(made, name)(*args)

        return run

    return replace(made, **{name: noting(name) for name in ("init", "step", "read", "potential")})


def test_critics_alone():
    seen: set = set()
    x = np.random.default_rng(0).standard_normal((16, 2))
    critic_w1(x, x + 1, partial(watched, seen=seen, make=orthogonal), steps=2, batch=4, seeds=1, hidden=(4, 4))
    assert seen == {(name, "highest") for name in ("init", "step", "read", "potential")}


def test_gans_of_the_experiments():
    seen: set = set()
    made = replace(recipe(None), critic=watched(Shape(size=64, hidden=(4,)), seen, gradient_penalty))
    config = GansConfig(steps=2, seeds=1, readings=2, scored=10)
    for _ in train(made, np.ones((8, 64), np.float32), batch=4, config=config):
        assert jax.config.jax_default_matmul_precision is None  # between its steps others' products are their own
    assert seen == {(name, "highest") for name in ("init", "step", "read")}


def test_it_ends_with_what_it_is_around():
    within = precise(lambda: precise(lambda: jax.config.jax_default_matmul_precision)())
    assert within() == "highest" and jax.config.jax_default_matmul_precision is None
