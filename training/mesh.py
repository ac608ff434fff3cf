"""One mesh for everything: axes `data`, `fsdp` and `tensor`, all Explicit.

`data` replicates the parameters, `fsdp` shards them with the batch, `tensor` shards heads, feed-forward and vocabulary
(the three classical ways; Xu et al. 2021, arXiv 2105.04663). On several TPU slices the slow network between them is
crossed by `data` alone.
"""

import math
from dataclasses import dataclass

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    data: int = -1
    """Copies of the model, each on its own part of the batch; -1: all devices that are left."""
    fsdp: int = 1
    """Parts of the batch that also share the parameters between them (fully sharded data parallelism)."""
    tensor: int = 1
    """Parts into which heads, feed-forward and vocabulary are cut."""


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Returns the mesh over `devices` (all of them by default). Raises ValueError if the sizes do not multiply to them."""
    devices = jax.devices() if devices is None else devices
    sizes = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
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
            "data x fsdp x tensor; choose sizes whose product is the number of devices"
        )
    shape = tuple(sizes.values())
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if slices > 1:
        if shape[0] % slices:
            raise ValueError(f"impossible mesh {shape}: data={shape[0]} must be a multiple of the {slices} TPU slices")
        grid = mesh_utils.create_hybrid_device_mesh((shape[0] // slices, *shape[1:]), (slices, 1, 1), devices)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * len(AXES))
