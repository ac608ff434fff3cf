"""Steps a second of certified critics on images, beside orthogonium's layers in torch, eager and compiled.

    python -m benchmarks.certified [--critic ortho aol sll] [--side 32] [--channels 3] [--batch 64] [--steps 20]

Needs the `parity` extra (`make bench` sets it up). A step draws a batch of each law, keeps the constraint, and updates
by Adam. The networks have the same kernels: 4 x 4 of stride 2, or for sll 2 x 2 of stride 2 and residual layers of
3 x 3, then one product. Ours sorts groups of 16 features, theirs pairs, which is less work.
benchmarks/harness.py says how it is timed.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from gan.critic import Shape
from gan.laws import shift
from gan.objectives import CRITICS
from gan.training import program
from training.flags import FLAT

Name = Literal["ortho", "aol", "sll"]


@dataclass(frozen=True, kw_only=True)
class Config:
    critic: tuple[Name, ...] = ("ortho", "aol", "sll")
    side: int = 32
    """Of images."""
    channels: int = 3
    features: tuple[int, ...] = (64, 128, 256)
    batch: int = 64
    steps: int = 20
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


def ours(config: Config, name: Name) -> Run:
    image = (config.side, config.side, config.channels)
    size = config.side**2 * config.channels
    critic = CRITICS[name](Shape(size=size, image=image, hidden=config.features))
    state, advance = program(critic, shift(size), batch=config.batch, seeds=1)

    def run() -> np.ndarray:
        nonlocal state
        state = advance(state, 0, config.steps)
        net = state.nets["f"]
        return np.asarray((net[-1] if isinstance(net, list) else net.last).bias)

    return run


def theirs(config: Config, name: Name, compiled: bool) -> Run:
    import torch
    from orthogonium.layers.conv.AOC.ortho_conv import AdaptiveOrthoConv2d
    from orthogonium.layers.conv.AOL.aol import AOLConv2D
    from orthogonium.layers.conv.SLL.sll_layer import SDPBasedLipschitzResBlock
    from orthogonium.layers.custom_activations import MaxMin
    from orthogonium.layers.linear.ortho_linear import OrthoLinear

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def stage(inputs: int, outputs: int) -> list[torch.nn.Module]:
        if name == "sll":
            change = AdaptiveOrthoConv2d(inputs, outputs, 2, stride=2, padding=0, padding_mode="zeros")
            return [change, SDPBasedLipschitzResBlock(outputs, 1)]
        of_kind = AOLConv2D if name == "aol" else AdaptiveOrthoConv2d
        return [of_kind(inputs, outputs, 4, stride=2, padding=1, padding_mode="zeros"), MaxMin()]

    counts = [config.channels, *config.features]
    stages = [layer for pair in zip(counts, counts[1:], strict=False) for layer in stage(*pair)]
    rest = (config.side >> len(config.features)) ** 2 * counts[-1]
    net = torch.nn.Sequential(*stages, torch.nn.Flatten(), OrthoLinear(rest, 1)).to(device)
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    # Of sizes as symbols, which layers of several shapes lead it to, it fails to compile ortho; and of each shape
    # anew more than 8 times, after which it would leave the rest eager.
    torch._dynamo.config.recompile_limit = 64
    asked = torch.compile(net, dynamic=False) if compiled else net

    def one() -> None:
        x, y = torch.randn(2, config.batch, config.channels, config.side, config.side, device=device)
        above, below = asked(torch.cat([x + x[0].numel() ** -0.5, y])).chunk(2)
        adam.zero_grad()
        (below.mean() - above.mean()).backward()
        adam.step()

    def run() -> float:
        for _ in range(config.steps):
            one()
        return float(net[-1].bias.detach())  # which waits for the device

    return run


def step(config: Config, name: Name) -> None:
    sides = {
        "ours": partial(ours, config, name),
        "torch, eager": partial(theirs, config, name, False),
        "torch, compiled": partial(theirs, config, name, True),
    }
    title = f"{name}, images {config.side} x {config.side} x {config.channels}, batch {config.batch}"
    measure(f"{title}, {config.steps} steps", sides, config.clock, work=config.steps, unit="step")


def main() -> None:
    config = tyro.cli(Config)
    in_turn(*(partial(step, config, name) for name in config.critic))


if __name__ == "__main__":
    main()
