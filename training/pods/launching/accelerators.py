"""TPU slices by the names that clouds give them.

Of v4 and v5p a name counts TensorCores, two a chip, of v5e and v6e chips:
https://docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e, which also say the shapes.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """TPUs of a generation."""

    plan: str  # as scripts.plan --topology calls them
    runtime: str  # https://docs.cloud.google.com/tpu/docs/runtimes
    gke: str  # cloud.google.com/gke-tpu-accelerator: https://docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
    cores: int  # that a name counts of each chip
    alone: int  # chips of the largest slice that gcloud makes one machine of; of larger ones each machine has four
    shapes: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
KINDS = {
    "v4": Kind(
        plan="v4", runtime="tpu-ubuntu2204-base", gke="tpu-v4-podslice", cores=2, alone=4, shapes=_CUBES
    ),
    "v5litepod": Kind(
        plan="v5e", runtime="v2-alpha-tpuv5-lite", gke="tpu-v5-lite-podslice", cores=1, alone=8, shapes=_FLAT
    ),
    "v5p": Kind(
        plan="v5p", runtime="v2-alpha-tpuv5", gke="tpu-v5p-slice", cores=2, alone=4,
        shapes=(*_CUBES, "16x16x16", "16x16x24"),
    ),
    "v6e": Kind(plan="v6e", runtime="v2-alpha-tpuv6e", gke="tpu-v6e-slice", cores=1, alone=8, shapes=_FLAT),
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    name: str  # such as v5litepod-16
    kind: Kind
    shape: str

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def hosts(self) -> int:
        """Machines, as gcloud makes them."""
        return 1 if self.chips <= self.kind.alone else self.chips // 4

    @property
    def topology(self) -> str:
        """As scripts.plan has it, such as v5e:4x4."""
        return f"{self.kind.plan}:{self.shape}"


SLICES = {
    f"{name}-{math.prod(map(int, shape.split('x'))) * kind.cores}": (kind, shape)
    for name, kind in KINDS.items()
    for shape in kind.shapes
}


def slice_named(name: str) -> Slice:
    """Raises ValueError for a name that is not of the table."""
    if name not in SLICES:
        same = [known for known in SLICES if known.partition("-")[0] == name.partition("-")[0]]
        raise ValueError(f"accelerator {name!r} is not known: give one of {', '.join(same or SLICES)}")
    return Slice(name, *SLICES[name])
