"""Does a preset fit a TPU slice? python -m scripts.plan --help"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import tyro

from pegasus_zh import mt5
from pegasus_zh.objective import loss
from training.command import run
from training.mesh import MeshConfig
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import check_divisible
from training.plan import plan, tpu_mesh


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Compiles the training step for a TPU slice that is not here, and prints the memory that each chip needs."""

    preset: Literal[tuple(mt5.PRESETS)] = "t5-pegasus-base"
    """Shape of the model."""
    topology: str = "v5e:4x4"
    """The slice: v5e:4x4, v5p:2x2x2, v6e:8x8, …"""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How its chips are arranged."""
    rows: int = 128
    """Rows of a step over all chips."""
    source: int = 512
    """Encoder positions of a row."""
    target: int = 160
    """Decoder positions of a row."""
    accumulate: int = 1
    """Microbatches of a step."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """Its moments take memory: two copies of the parameters, or nearly none."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the computation."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes."""


def main() -> None:
    config = tyro.cli(PlanConfig, prog="python -m scripts.plan")
    model = replace(mt5.PRESETS[config.preset], dtype=config.dtype, remat=config.remat)
    mesh = tpu_mesh(config.topology, config.mesh)
    rows = config.rows // config.accumulate
    check_divisible(mesh, {"rows / accumulate": ("batch", rows)} | mt5.sizes(model))
    source, target = (config.rows, config.source), (config.rows, config.target)
    batch = {"source": source, "source_segments": source} | dict.fromkeys(
        ("target", "target_inputs", "target_segments"), target
    )
    tx = make_optimizer(OptimizerConfig(optimizer=config.optimizer), steps=1_000_000)
    planned = plan(partial(mt5.init, model), partial(loss, config=model), tx, mesh, batch, config.accumulate)
    print(f"{config.preset} on {config.topology}, data x fsdp x tensor = {tuple(mesh.shape.values())}: {planned}")


if __name__ == "__main__":
    run(main)
