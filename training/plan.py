"""Does it fit? The training step compiled for TPUs that are not here, and the memory it takes on each.

Needs libtpu (the `tpu` extra), no TPU. It proves that the program compiles and fits, and says nothing about speed.
"""

from dataclasses import dataclass

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from training.mesh import MeshConfig, make_mesh
from training.partition import RULES, abstract
from training.program import Program
from training.step import TrainState, compile_step


@dataclass(frozen=True)
class Plan:
    """Bytes on each chip, and its FLOPs of a step by XLA's own count."""

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
    """The mesh over a TPU slice that is not here, such as v5e:4x4.
    ValueError where libtpu is missing or knows it not."""
    try:
        devices = topologies.get_topology_desc(topology, platform="tpu").devices
    except Exception as error:
        raise ValueError(
            f"no TPU topology {topology!r}: names are like v5e:4x4, and libtpu must be there, which `make plan ARGS=…` "
            f"sees to ({str(error).splitlines()[0][:120]})"
        ) from error
    return make_mesh(config, list(devices))


def plan(program: Program, mesh: Mesh, rows: int, accumulate: int = 1) -> Plan:
    """Compiles the program's step over `accumulate` microbatches of `rows` rows for `mesh`.
    Raises ValueError for a mesh that cannot be."""
    program.check(mesh, rows)

    def cut(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(None, RULES["batch"], *(None for _ in x.shape[1:]))
        return jax.ShapeDtypeStruct((accumulate, *x.shape), x.dtype, sharding=NamedSharding(mesh, spec))

    with jax.set_mesh(mesh):
        state = abstract(program.init)
        compiled = compile_step(program.step, state, {name: cut(x) for name, x in program.shapes(rows).items()})
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    if memory is None or cost is None or text is None:
        raise ValueError(f"the compiler for {mesh.devices.flat[0].platform} does not tell what a program needs")
    return Plan(
        state=state,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=cost["flops"],
        program=text,
    )
