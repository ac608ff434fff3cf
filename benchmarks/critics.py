"""Steps a second of a critic with gradient penalty, beside torch's, eager and compiled; several seeds; exact distances.

    python -m benchmarks.critics [--dimensions 128] [--batch 1024] [--steps 100] [--repeats 5]

Needs the `parity` extra (`make bench` sets it up). A step draws its batches, updates by Adam and is of the same network
in all. They take turns; medians are printed, and the medians of each round's ratio.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import ot
import torch
import tyro
from scipy.spatial.distance import cdist

from gan.critic import Shape
from gan.estimate import program
from gan.laws import shift
from gan.objectives import gradient_penalty
from gan.transport import exact_w1


@dataclass(frozen=True, kw_only=True)
class Config:
    dimensions: int = 128
    batch: int = 1024
    steps: int = 100
    repeats: int = 5
    seeds: int = 3
    points: int = 1024


def ours(config: Config, seeds: int) -> Callable[[], object]:
    critic, law = gradient_penalty(Shape(size=config.dimensions)), shift(config.dimensions)
    state, advance = program(critic, law, batch=config.batch, seeds=seeds)

    def run() -> np.ndarray:
        nonlocal state
        state = advance(state, 0, config.steps)
        return np.asarray(state.nets["f"][-1].bias)

    return run


def theirs(config: Config, compiled: bool) -> Callable[[], object]:
    size, width = config.dimensions, max(2 * config.dimensions, 128)
    net = torch.nn.Sequential(
        torch.nn.Linear(size, width), torch.nn.ReLU(),
        torch.nn.Linear(width, width), torch.nn.ReLU(),
        torch.nn.Linear(width, 1),
    )  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9))
    weights = dict(net.named_parameters())

    def draw() -> tuple[torch.Tensor, ...]:
        x, y = torch.randn(2, config.batch, size)
        return x + size**-0.5, y, torch.rand(config.batch, 1)

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

    gradients = torch.compile(torch.func.grad(objective))  # autograd's own second derivative cannot be compiled

    def fast() -> None:
        for parameter, gradient in zip(net.parameters(), gradients(weights, *draw()).values(), strict=True):
            parameter.grad = gradient
        adam.step()

    one = fast if compiled else eager
    return lambda: [one() for _ in range(config.steps)]


def take_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    random = np.random.default_rng(0)
    for turn in range(repeats + 1):
        for name in random.permutation(list(calls)):
            start = time.perf_counter()
            calls[name]()
            if turn:  # the first compiles and warms up
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> str:
    each = [a / b for a, b in zip(times[name], times[base], strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def main() -> None:
    config = tyro.cli(Config)
    several = f"ours, {config.seeds} seeds"
    calls = {
        "ours": ours(config, 1),
        several: ours(config, config.seeds),
        "torch, eager": theirs(config, False),
        "torch, compiled": theirs(config, True),
    }
    times = take_turns(calls, config.repeats)
    print(
        f"gradient penalty, {config.dimensions} dimensions, batch {config.batch}: "
        f"median of {config.repeats} runs of {config.steps} steps"
    )
    for name, taken in times.items():
        print(
            f"  {name:18} {config.steps / statistics.median(taken):8.1f} steps/s   "
            f"{ratio(times, name, 'ours')} x the time of ours"
        )
    x, y = (np.asarray(z, float) for z in shift(config.dimensions).sample(jax.random.key(0), config.points))
    exact = {"ours": partial(exact_w1, x, y), "POT": lambda: ot.emd2([], [], cdist(x, y), numItermax=10**7)}
    np.testing.assert_allclose(exact["ours"](), exact["POT"](), rtol=1e-6)
    times = take_turns(exact, config.repeats)
    print(f"exact W1 of {config.points} points in {config.dimensions} dimensions")
    for name, taken in times.items():
        print(f"  {name:18} {1e3 * statistics.median(taken):8.1f} ms   {ratio(times, name, 'ours')} x the time of ours")


if __name__ == "__main__":
    main()
