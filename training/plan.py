"""Does it fit? The training step compiled for TPUs that are not here, and the memory it takes on each.

Needs libtpu (the `tpu` extra), no TPU. It proves that the program compiles and fits, and says nothing about speed.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from training.mesh import MeshConfig, make_mesh
from training.partition import RULES
from training.step import LossFn, TrainState, compile_step, init_state


@dataclass(frozen=True)
class Plan:
    """Bytes on each chip, and FLOPs of a step over all chips by XLA's own count."""

    state: TrainState  # shapes and shardings
    arguments: int  # parameters, optimizer state and batch
    temporaries: int  # activations and communication buffers at their peak
    flops: float
    program: str  # the compiled HLO

    def __str__(self) -> str:
        total = self.arguments + self.temporaries
        return (
            f"{total / 2**30:.2f} GiB a chip: {self.arguments / 2**30:.2f} state and batch, "
            f"{self.temporaries / 2**30:.2f} activations and buffers; {self.flops / 1e12:.2f} TFLOP a chip and step"
        )


def tpu_mesh(topology: str, config: MeshConfig) -> Mesh:
    """The mesh over a TPU slice that is not here, such as v5e:4x4. ValueError where libtpu is missing or knows it not."""
    try:
        devices = topologies.get_topology_desc(topology, platform="tpu").devices
    except Exception as error:
        raise ValueError(
            f"no TPU topology {topology!r} ({str(error).splitlines()[0][:120]}); names are like v5e:4x4, "
            "and libtpu must be installed (pip install libtpu, the `tpu` extra)"
        ) from error
    return make_mesh(config, list(devices))


def abstract(make, mesh: Mesh) -> Any:
    """The shapes and shardings of what `make()` returns, nothing computed."""

    def leaf(x):
        sharding = x.sharding if isinstance(x.sharding, NamedSharding) else None
        spec = sharding.spec if sharding else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(leaf, jax.eval_shape(make))


def plan(
    init,
    loss: LossFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    batch: dict[str, tuple[int, ...]],
    microbatches: int = 1,
) -> Plan:
    """Compiles the training step for `mesh`. batch: the name and shape [rows, ...] of each int32 array of one step."""
    with jax.set_mesh(mesh):
        state = abstract(partial(init_state, init, tx, 0), mesh)

        def array(shape: tuple[int, ...]):
            shape = (microbatches, shape[0] // microbatches, *shape[1:])
            spec = PartitionSpec(None, RULES["batch"], *(None for _ in shape[2:]))
            return jax.ShapeDtypeStruct(shape, "int32", sharding=NamedSharding(mesh, spec))

        compiled = compile_step(loss, tx, state, {name: array(shape) for name, shape in batch.items()})
    memory = compiled.memory_analysis()
    return Plan(
        state=state,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=compiled.cost_analysis()["flops"],
        program=compiled.as_text(),
    )
