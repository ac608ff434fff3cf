"""One mesh for everything: axes `data`, `fsdp` and `tensor`, all Explicit, and around them `replica`.

`data` replicates the parameters while a step computes (see training.at_rest), `fsdp` shards them with the batch,
`tensor` shards heads, feed-forward and vocabulary (the three classical ways; Xu et al. 2021, arXiv 2105.04663).
`replica` is there where there are several: whole copies of the training, optimizer and all, one a TPU slice, so that
nothing but sums crosses the slow network between slices.
"""

import math
import os
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("replica", "data", "fsdp", "tensor")  # a mesh of one replica has the last three
Rows = TypeVar("Rows", np.ndarray, list)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    replica: int | None = None
    """Whole copies of the training, of which only gradients are added up; by default one a TPU slice, elsewhere one."""
    data: int = -1
    """Copies of the model in each, every one on its own part of the batch; -1: all devices that are left."""
    fsdp: int = 1
    """Parts of the batch that also share the parameters between them (fully sharded data parallelism)."""
    tensor: int = 1
    """Parts into which heads, feed-forward and vocabulary are cut."""


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Returns the mesh over `devices` (all of them by default).
    Raises ValueError if the sizes do not multiply to them, or slices would share a replica."""
    devices = jax.devices() if devices is None else devices
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    replica = slices if config.replica is None else config.replica
    sizes = {"replica": replica, "data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    if replica == 1:
        del sizes["replica"]
    fixed = math.prod(s for s in sizes.values() if s != -1)
    free = [name for name, size in sizes.items() if size == -1]
    if any(s < 1 and s != -1 for s in sizes.values()) or len(free) > 1:
        raise ValueError(
            f"impossible mesh {tuple(sizes.values())}: sizes are 1 or more, and at most one is -1 (the rest)"
        )
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"impossible mesh {tuple(sizes.values())}: {len(devices)} device(s) cannot be arranged as "
            f"{' x '.join(sizes)}; choose sizes whose product is the number of devices"
        )
    shape = tuple(sizes.values())
    if sizes.get("replica", 1) % slices:
        raise ValueError(
            f"impossible mesh {shape}: replica={sizes.get('replica', 1)} must be a multiple of the {slices} TPU slices"
        )
    if slices > 1:
        inside, across = (shape[0] // slices, *shape[1:]), (slices, *(1 for _ in shape[1:]))
        grid = mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Explicit,) * len(sizes))


def mesh_of(given: Mesh | MeshConfig | None = None) -> Mesh:
    """The mesh that is given or described, by default the one that `jax.set_mesh` set, else one of all devices.

    Raises ValueError for a mesh that `make_mesh` does not make, and as it does.
    """
    if isinstance(given, MeshConfig):
        return make_mesh(given)
    mesh = jax.sharding.get_mesh() if given is None else given
    if given is None and mesh.empty:
        return make_mesh(MeshConfig())
    ours = isinstance(mesh, Mesh) and mesh.axis_names in (AXES, AXES[1:])
    if not ours or {*mesh.axis_types} != {AxisType.Explicit}:
        raise ValueError(f"{mesh!r:.80}: give a mesh of training.mesh.make_mesh, or a MeshConfig")
    return mesh


class Share(NamedTuple):
    """What a process holds of every batch: part number `part` of `parts` equal ones."""

    part: int = 0
    parts: int = 1

    def of(self, rows: Rows) -> Rows:
        """This part of all rows of a batch."""
        return rows[self.part * len(rows) // self.parts : (self.part + 1) * len(rows) // self.parts]


WHOLE = Share()  # one process alone


def data_share(mesh: Mesh) -> Share:
    """Which part of every batch this process holds.

    Processes whose devices hold the same rows, as where `tensor` crosses hosts, have the same part. Raises ValueError
    for a mesh that gives the processes unequal or scattered parts.
    """
    shards = mesh.devices.reshape(-1, mesh.shape["tensor"])
    held: dict[int, set[int]] = {}
    for part, devices in enumerate(shards):
        for device in devices:
            held.setdefault(device.process_index, set()).add(part)
    size = len(held[jax.process_index()])
    for parts in held.values():
        if (
            len(parts) != size
            or len(shards) % size
            or parts != {*range(min(parts), min(parts) + size)}
            or min(parts) % size
        ):
            raise ValueError(
                f"impossible mesh {tuple(mesh.shape.values())}: the processes would hold unequal parts of a batch; "
                "choose a tensor that divides the devices of a process, or is a multiple of them"
            )
    return Share(min(held[jax.process_index()]) // size, len(shards) // size)


def join_processes() -> None:
    """Joins the processes of a job through jax.distributed; ValueError where they cannot be found.

    On TPU pods, under Slurm and under mpirun they are found without help, elsewhere by the environment:
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [os.environ.get(name) for name in names]
    try:
        if any(given[1:]):
            jax.distributed.initialize(given[0], int(given[1] or ""), int(given[2] or ""))
        else:
            jax.distributed.initialize()
    except ValueError as error:
        found = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
        raise ValueError(f"the processes of the job cannot be joined ({error}): {found}; set all three") from None
