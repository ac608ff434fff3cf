"""Does a preset fit a TPU slice that is not here?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import jax

from pegasus_zh.t5 import mt5
from pegasus_zh.t5.objective import batch_shapes, loss
from training.loop import microbatch
from training.mesh import MeshConfig
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import check_divisible
from training.plan import plan, tpu_mesh
from training.ranges import check_ranges
from training.step import init_state, make_train_step


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

    def __post_init__(self):
        check_ranges(self, rows=1, source=1, target=1, accumulate=1)


def plan_preset(config: PlanConfig, say: Callable = print) -> None:
    """Says what each chip needs. Raises ValueError for a slice or a mesh that cannot be."""
    model = replace(mt5.PRESETS[config.preset], dtype=config.dtype, remat=config.remat)
    mesh = tpu_mesh(config.topology, config.mesh)
    rows = microbatch(config.rows, config.accumulate)
    check_divisible(mesh, {"rows / accumulate": ("batch", rows)} | mt5.sizes(model))
    shapes = batch_shapes(rows, config.source, config.target)
    batch = {name: jax.ShapeDtypeStruct((config.accumulate, *shape), "int32") for name, shape in shapes.items()}
    tx = make_optimizer(OptimizerConfig(optimizer=config.optimizer), steps=1_000_000)
    step = make_train_step(partial(loss, config=model), tx)
    say(f"compiling {config.preset} for {config.topology}: a minute or more")
    planned = plan(partial(init_state, partial(mt5.init, model), tx, 0), step, mesh, batch)
    say(f"{config.preset} on {config.topology}, data x fsdp x tensor = {tuple(mesh.shape.values())}: {planned}")
