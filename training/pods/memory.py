"""What a chip's memory holds, by kind, and what the compiler says where it does not fit."""

import re
from dataclasses import dataclass
from typing import Any

import jax

from training.pods.chips import Chip
from training.step import TrainState

GIB = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class DoesNotFit(ValueError):
    """The compiler refuses the program for want of memory."""

    def __init__(self, needed: float, room: float):
        self.needed, self.room = needed, room  # bytes a chip
        sizes = f"{needed / GIB:.2f} GiB a chip of {room / GIB:.2f}, {(needed - room) / GIB:.2f} too much"
        super().__init__(
            f"does not fit: {sizes}; give fewer rows a chip, more --accumulate, --remat full, or cut the parameters by "
            "--mesh.fsdp"
        )


def refused(error: str) -> DoesNotFit | None:
    """What the compiler's error says, if it is one on memory."""
    found = re.search(r"([\d.]+)([KMGT])\b\)? (?:of|exceeds available HBM \() ?([\d.]+)([KMGT])", error)
    if found is None:
        return None
    needed, unit, room, its = found.groups()
    return DoesNotFit(float(needed) * _UNITS[unit], float(room) * _UNITS[its])


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each chip."""

    parameters: int
    optimizer: int
    batch: int  # and the step's number and key
    saved: int  # by loops over layers, for the backward pass
    temporaries: int  # what else the step needs at its peak
    hbm: float

    @property
    def all(self) -> int:
        return self.parameters + self.optimizer + self.batch + self.saved + self.temporaries


def memory_of(state: TrainState, arguments: int, temporaries: int, saved: int, chip: Chip) -> Memory:
    """arguments, temporaries: the compiler's bytes of what the step is given, and of what it needs beside that; `saved`
    is a part of the latter."""
    parameters, optimizer = bytes_of(state.model), bytes_of(state.optimizer)
    rest = max(arguments - parameters - optimizer, 0)
    saved = min(saved, temporaries)
    of_state = {"parameters": parameters, "optimizer": optimizer, "batch": rest}
    return Memory(**of_state, saved=saved, temporaries=temporaries - saved, hbm=chip.hbm)


def bytes_of(tree: Any) -> int:
    """On each device, of shapes with shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype).size * x.dtype.itemsize for x in leaves)
