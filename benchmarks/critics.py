"""Steps a second of a critic with gradient penalty, beside torch's, eager and compiled; several seeds; exact distances.

    python -m benchmarks.critics [--dimensions 128] [--batch 1024] [--steps 100] [--repeats 5]

Needs the `parity` extra (`make bench` sets it up). A step draws its batches, updates by Adam and is of the same network
in all. benchmarks/harness.py says how it is timed.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from gan.critic import Shape
from gan.laws import shift
from gan.objectives import gradient_penalty
from gan.training import program
from gan.transport import exact_w1
from training.flags import FLAT


@dataclass(frozen=True, kw_only=True)
class Config:
    part: tuple[Literal["step", "exact"], ...] = ("step", "exact")
    """Which are run."""
    dimensions: int = 128
    batch: int = 1024
    steps: int = 100
    seeds: int = 3
    points: int = 1024
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


def ours(config: Config, seeds: int) -> Run:
    critic, law = gradient_penalty(Shape(size=config.dimensions)), shift(config.dimensions)
    state, advance = program(critic, law, batch=config.batch, seeds=seeds)

    def run() -> np.ndarray:
        nonlocal state
        state = advance(state, 0, config.steps)
        return np.asarray(state.nets["f"][-1].bias)

    return run


def theirs(config: Config, compiled: bool) -> Run:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, width = config.dimensions, max(2 * config.dimensions, 128)
    net = torch.nn.Sequential(
        torch.nn.Linear(size, width), torch.nn.ReLU(),
        torch.nn.Linear(width, width), torch.nn.ReLU(),
        torch.nn.Linear(width, 1),
    ).to(device)  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9))
    weights = dict(net.named_parameters())

    def draw() -> tuple[torch.Tensor, ...]:
        x, y = torch.randn(2, config.batch, size, device=device)
        return x + size**-0.5, y, torch.rand(config.batch, 1, device=device)

    def eager() -> None:
        x, y, along = draw()
        between = (y + along * (x - y)).requires_grad_()
        (slope,) = torch.autograd.grad(net(between).sum(), between, create_graph=True)
        loss = 10 * ((slope.norm(dim=1) - 1) ** 2).mean() - net(x).mean() + net(y).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    def objective(weights, x, y, along):
        f = lambda z: torch.func.functional_call(net, weights, (z,))  # noqa: E731
        slope = torch.func.grad(lambda z: f(z).sum())(y + along * (x - y))
        return 10 * ((slope.norm(dim=1) - 1) ** 2).mean() - f(x).mean() + f(y).mean()

    # autograd's own second derivative cannot be compiled
    gradients = torch.compile(torch.func.grad(objective)) if compiled else None

    def fast() -> None:
        for parameter, gradient in zip(net.parameters(), gradients(weights, *draw()).values(), strict=True):
            parameter.grad = gradient
        adam.step()

    one = fast if compiled else eager

    def run() -> float:
        for _ in range(config.steps):
            one()
        return float(net[-1].bias.detach())  # which waits for the device

    return run


def samples(config: Config) -> tuple[np.ndarray, ...]:
    both = shift(config.dimensions).sample(jax.random.key(0), config.points)
    return tuple(np.asarray(x, float) for x in both)


def our_exact(config: Config) -> Run:
    return partial(exact_w1, *samples(config))


def pot(config: Config) -> Run:
    import ot
    from scipy.spatial.distance import cdist

    x, y = samples(config)
    return lambda: ot.emd2([], [], cdist(x, y), numItermax=10**7)


def step(config: Config) -> None:
    sides = {
        "ours": partial(ours, config, 1),
        f"ours, {config.seeds} seeds": partial(ours, config, config.seeds),
        "torch, eager": partial(theirs, config, False),
        "torch, compiled": partial(theirs, config, True),
    }
    title = f"gradient penalty, {config.dimensions} dimensions, batch {config.batch}, {config.steps} steps"
    measure(title, sides, config.clock, work=config.steps, unit="step")


def exact(config: Config) -> None:
    measure(
        f"exact W1 of {config.points} points in {config.dimensions} dimensions",
        {"ours": partial(our_exact, config), "POT": partial(pot, config)},
        config.clock,
        unit="distance",
        check=partial(np.testing.assert_allclose, rtol=1e-6),
    )


PARTS = {"step": step, "exact": exact}


def main() -> None:
    config = tyro.cli(Config)
    in_turn(*(partial(PARTS[part], config) for part in config.part))


if __name__ == "__main__":
    main()
