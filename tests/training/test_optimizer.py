"""Schedules, decay and the two optimizers against the papers' formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from training.optimizer import OptimizerConfig, learning_rate, make_optimizer


def rates(steps=100, **settings):
    rate = learning_rate(OptimizerConfig(learning_rate=2.0, warmup=10, **settings), steps)
    return [float(rate(step)) for step in (0, 4, 9, 54, 99)]


def test_schedules():
    np.testing.assert_allclose(rates(schedule="constant"), [0.2, 1.0, 2.0, 2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="linear"), [0.2, 1.0, 2.0, 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="cosine"), [0.2, 1.0, 2.0, 1.0, 0.0], rtol=1e-6, atol=1e-6)
    rsqrt = [0.2, 1.0, 2.0, 2 * (10 / 55) ** 0.5, 2 * 0.1**0.5]
    np.testing.assert_allclose(rates(schedule="rsqrt"), rsqrt, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "rsqrt"])
@pytest.mark.parametrize(("steps", "warmup"), [(100_000, 10_000), (1_000_000, 300), (50, 50), (40, 0)])
def test_every_rate_is_exact_to_float32_however_small(schedule, steps, warmup):
    config = OptimizerConfig(learning_rate=1e-3, warmup=warmup, schedule=schedule)
    ours = jax.jit(jax.vmap(learning_rate(config, steps)))(np.arange(steps))
    step, warmup = np.arange(1.0, steps + 1), max(warmup, 1)
    after = {
        "constant": np.ones(steps),
        "linear": (steps - step) / max(steps - warmup, 1),
        "rsqrt": np.sqrt(warmup / step),
    }[schedule]
    np.testing.assert_allclose(ours, 1e-3 * np.where(step < warmup, step / warmup, after), rtol=1e-6)


def run(config: OptimizerConfig, params, gradients):
    tx = make_optimizer(config, 100)
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_adamw_equals_its_formulas():
    config = OptimizerConfig(learning_rate=0.1, warmup=1, weight_decay=0.05, clip=1.0)
    p, gradients = random(0, 5, 4), [random(n, 5, 4) for n in (1, 2, 3)]
    ours = run(config, {"kernel": jnp.asarray(p)}, [{"kernel": jnp.asarray(g)} for g in gradients])["kernel"]
    p, m, v = p.astype(np.float64), 0.0, 0.0
    for n, g in enumerate(gradients, 1):
        g = g / max(1.0, np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 0.1 * (m / (1 - 0.9**n) / (np.sqrt(v / (1 - 0.999**n)) + 1e-6) + 0.05 * p)
    # 1 - 0.999^n loses five digits in float32, so each step of 0.1 is exact to about 1e-6.
    np.testing.assert_allclose(ours, p, atol=5e-6)


def test_adafactor_equals_its_formulas():
    """Algorithm 5 of the paper: factored second moment, clipping of the update,
    step relative to the parameter's scale."""
    config = OptimizerConfig(optimizer="adafactor", learning_rate=0.1, warmup=1, weight_decay=0.05, clip=0)
    p, gradients = random(0, 130, 150) * 0.3, [random(n, 130, 150) * 3.0**n for n in (1, 2, 3)]
    ours = run(config, {"kernel": jnp.asarray(p)}, [{"kernel": jnp.asarray(g)} for g in gradients])["kernel"]
    p, rows, columns = p.astype(np.float64), 0.0, 0.0
    for n, g in enumerate(gradients, 1):
        decay = 1 - n**-0.8
        rows = decay * rows + (1 - decay) * (g.astype(np.float64) ** 2).mean(1)
        columns = decay * columns + (1 - decay) * (g.astype(np.float64) ** 2).mean(0)
        update = g / np.sqrt(np.outer(rows, columns) / rows.mean())
        update /= max(1.0, np.sqrt((update**2).mean()))
        p = p - 0.1 * (update * max(np.sqrt((p**2).mean()), 1e-3) + 0.05 * p)
    np.testing.assert_allclose(ours, p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_without_a_gradient_only_what_decays_changes(optimizer):
    config = OptimizerConfig(optimizer=optimizer, learning_rate=0.1, warmup=1, weight_decay=0.5)
    params = {"head": jnp.ones((3, 4)), "final_norm": jnp.ones(3), "relative_bias": jnp.ones((2, 2))}
    after = run(config, params, [jax.tree.map(jnp.zeros_like, params)] * 2)
    np.testing.assert_allclose(after["head"], 0.95**2, rtol=1e-6)
    for name in ("final_norm", "relative_bias"):
        np.testing.assert_array_equal(after[name], params[name])


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_stack_of_layers_trains_as_its_layers_alone(optimizer):
    config = OptimizerConfig(optimizer=optimizer, learning_rate=0.05, warmup=1, clip=0)
    layers = [random(n, 130, 140) * 10.0**n for n in range(3)]
    gradients = [[random(10 * step + n, 130, 140) * 0.1**n for n in range(3)] for step in (1, 2)]
    stacked = run(config, {"blocks": {"w": jnp.stack(layers)}}, [{"blocks": {"w": jnp.stack(g)}} for g in gradients])
    for n, layer in enumerate(layers):
        alone = run(config, {"w": jnp.asarray(layer)}, [{"w": jnp.asarray(g[n])} for g in gradients])
        np.testing.assert_allclose(stacked["blocks"]["w"][n], alone["w"], rtol=2e-5, atol=1e-7)


def test_adafactor_factors_stacked_matrices():
    params = {"blocks": {"w": jnp.zeros((4, 256, 512))}}
    state = make_optimizer(OptimizerConfig(optimizer="adafactor"), 10).init(params)
    assert sum(x.size for x in jax.tree.leaves(state)) < 4 * (256 + 512) + 100
