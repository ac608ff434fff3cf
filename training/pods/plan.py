"""Does a training fit a TPU slice that is not here, and how long would its step take there?

The step is compiled for it by libtpu (the `tpu` extra), without a TPU, and its time reckoned from the schedules that
the compiler makes of every operation (training/pods/roofline.py). The compiler's own estimate, its `estimated_cycles`,
is 1.3 to 1.9 times as long; a plan has both. No TPU has confirmed either; docs/plan.md says what is left out.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from training.partition import abstract, axes_of, parts_of
from training.pods.collectives import slice_of
from training.pods.compilation import compile_kept
from training.pods.kernels import kernels_of
from training.pods.memory import Memory, memory_of
from training.pods.program_text import read_program
from training.pods.residuals import saved_bytes
from training.pods.roofline import Roofline, roofline
from training.pods.schedules import scheduled
from training.program import Program
from training.step import TrainState, compiler_options, trace_step


@dataclass(frozen=True, kw_only=True)
class Plan:
    mesh: Mesh
    rows: int  # of a step, over all chips
    state: TrainState  # shapes and shardings
    memory: Memory
    roofline: Roofline
    estimated: Roofline  # by the compiler's own cycles wherever it says some
    model_flops: int  # of a step, by the model's own convention; 0 where it has none

    @property
    def bound(self) -> float:
        """Seconds of a step that did the model's FLOPs at the chips' peak and nothing else."""
        return self.model_flops / (self.mesh.size * slice_of(self.mesh).chip.peak)

    @property
    def mfu(self) -> float:
        return self.bound / self.roofline.seconds

    def told(self, name: str, slice: str) -> dict[str, Any]:
        """All that is shown of it, as JSON. name: of the training, slice: of the TPUs."""
        return {
            "name": name,
            "slice": slice,
            "mesh": list(self.mesh.shape.values()),
            "rows": self.rows // parts_of("batch", self.mesh),
            "memory": {**asdict(self.memory), "all": self.memory.all},
            "seconds": self.roofline.seconds,
            "estimated_seconds": self.estimated.seconds,
            "bound": self.bound,
            "mfu": self.mfu,
            "lines": self.roofline.lines(),
            "known": self.roofline.known(),
            "network": self.roofline.network(),
            "unknown_loops": self.roofline.unknown_loops,
            "unmeasured_kernels": self.roofline.unmeasured_kernels,
        }


def plan(program: Program, mesh: Mesh, rows: int, accumulate: int = 1, kept: Path | None = None) -> Plan:
    """Compiles the program's step over `accumulate` microbatches of `rows` rows for `mesh`.

    kept: a folder for what was compiled, so that the same is not compiled twice. Raises ValueError for a mesh that
    cannot be, and DoesNotFit for a step that the compiler refuses for want of memory.
    """
    program.check(mesh, rows)

    def cut(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(None, axes_of("batch", mesh), *(None for _ in x.shape[1:]))
        return jax.ShapeDtypeStruct((accumulate, *x.shape), x.dtype, sharding=NamedSharding(mesh, spec))

    chips = slice_of(mesh)
    with jax.set_mesh(mesh):
        state = abstract(program.init)
        traced = trace_step(program.step, state, {name: cut(x) for name, x in program.shapes(rows).items()})
        compiled = compile_kept(traced.lower(), mesh, compiler_options(), kept)
    text = read_program(compiled.text)
    kernels = kernels_of(traced.jaxpr, text, compiled.schedules, chips.chip.cores)
    memory = memory_of(state, compiled.arguments, compiled.temporaries, saved_bytes(text), chips.chip)
    return Plan(
        mesh=mesh,
        rows=rows * accumulate,
        state=state,
        memory=memory,
        roofline=roofline(text, chips, kernels, scheduled(text, compiled.schedules)),
        estimated=roofline(text, chips, kernels),
        model_flops=program.flops_per_row * rows * accumulate,
    )
