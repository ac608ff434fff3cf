"""How long the chips of a slice, or of several, talk to each other: bytes over the published rates of their links.

Of a collective over several slices the compiler makes one within each slice, and sends each chip's part of it over the
network between them, by the hosts: `send`, and a `recv-done` at which it is back.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from training.pods.chips import Chip, chip_of
from training.pods.program_text import Computation, Instruction, ProgramText

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
TRANSFERS = ("send", "recv-done")


def kind_of(opcode: str) -> str | None:
    """all-gather of all-gather-start; None where it is no collective."""
    name = opcode.removesuffix("-start").removesuffix("-done")
    return name if name in KINDS else None


@dataclass(frozen=True)
class Slice:
    """The chips of a program, numbered as the program numbers them."""

    chip: Chip
    places: np.ndarray  # [chips, dimensions]: where each lies in its slice
    slices: np.ndarray  # [chips]: in which slice
    sides: tuple[int, ...]  # of one slice

    @cached_property
    def links(self) -> tuple[int, ...]:
        """In each dimension, over how many links a chip is reached at the least: two in a ring, one at a line's end."""
        return tuple(2 if side % self.chip.closed == 0 else 1 for side in self.sides)

    @cached_property
    def column(self) -> list[int]:
        """A chip of each slice: those that send each other their parts."""
        return np.unique(self.slices, return_index=True)[1].tolist()

    def seconds(self, kind: str, bytes: int, group: list[int]) -> float:
        """bytes: of the whole array where it is gathered, reduced or scattered; of one chip's part for the others.

        Rings over every dimension that the group spreads over, at once: (n - 1) / n of the array comes to each chip,
        twice for an all-reduce. Between slices each chip sends its part of what its slice has reduced.
        """
        n = len(group)
        if n < 2:
            return 0.0
        across = len({*self.slices[group].tolist()})
        within = n // across
        passes = 2 if kind == "all-reduce" else 1
        rate = self.chip.link * self._links_between(group)
        if kind in ("all-to-all", "ragged-all-to-all"):
            # A quarter of what gathering all parts takes, for each goes the shorter way to one place only.
            inside = bytes * (within - 1) / 4 / rate if rate else 0.0
            return inside + (bytes * (across - 1) / across / self.chip.network)
        if kind == "collective-permute":
            return bytes / (self.chip.network if across > 1 else self.chip.link)
        inside = passes * bytes * (within - 1) / within / rate if rate else 0.0
        return inside + passes * bytes / within * (across - 1) / across / self.chip.network

    def _links_between(self, group: list[int]) -> int:
        first = group[0]
        near = [n for n in group if self.slices[n] == self.slices[first]]
        spread = (self.places[near] != self.places[first]).any(0)
        return sum(links for links, used in zip(self.links, spread, strict=True) if used)


def slice_of(mesh: Mesh) -> Slice:
    """Raises ValueError for devices that are no TPUs with figures in chips.py."""
    devices: list[Any] = list(mesh.devices.flat)
    places = np.array([device.coords for device in devices])
    return Slice(
        chip=chip_of(devices[0]),
        places=places,
        slices=np.array([getattr(device, "slice_index", 0) for device in devices]),
        sides=tuple((places.max(0) - places.min(0) + 1).tolist()),
    )


@dataclass(frozen=True)
class Talk:
    """A collective in the program, or a part of it."""

    part: Literal["start", "done", "whole", "work"]  # work: an operation that moves it on while it computes
    name: str  # the same for its start and its done
    kind: str
    operands: int  # bytes on one chip
    one: Instruction

    @property
    def between_slices(self) -> bool:
        return self.one.opcode in TRANSFERS

    def seconds(self, chips: Slice) -> float:
        group = chips.column if self.between_slices else groups(self.one, len(chips.slices))[0]
        whole = self.kind in ("all-gather", "collective-broadcast")
        return chips.seconds(self.kind, self.operands * (len(group) if whole else 1), group)


def find(program: ProgramText, within: Computation, one: Instruction) -> Talk | None:
    """The collective that an instruction is, or that a fusion holds."""
    if (kind := kind_of(one.opcode)) is not None:
        part = "start" if one.opcode.endswith("-start") else "done" if one.opcode.endswith("-done") else "whole"
        if part == "done":
            return Talk("done", begun(within, one).name, kind, 0, one)
        return _talk(part, one.name, kind, within, one)
    if one.opcode in TRANSFERS:
        return _transfer(within, one)
    if one.opcode not in ("fusion", "async-start"):
        return None
    inside = [*program.inside(one)]
    held = next(((where, x) for where, x in inside if kind_of(x.opcode) is not None), None)
    if held is None:
        return None
    where, collective = held
    kind = kind_of(collective.opcode) or ""
    if one.opcode == "async-start":
        return _talk("start", one.name, kind, where, collective)
    targets = {x.target for _, x in inside}
    channel = re.search(r"channel_id=(\d+)", collective.attributes)
    name = channel[0] if channel else one.name
    if "AsyncCollectiveStart" in targets:
        return _talk("start", name, kind, where, collective)
    if "AsyncCollectiveDone" in targets:
        return _talk("done", name, kind, where, collective)
    if "async_collective" in one.called["calls"][0]:
        return _talk("work", name, kind, where, collective)
    scattered = kind == "all-reduce" and sum(x.bytes for x in one.arrays) < sum(x.bytes for x in collective.arrays)
    return _talk("whole", name, "reduce-scatter" if scattered else kind, where, collective)


def _talk(part: Any, name: str, kind: str, within: Computation, one: Instruction) -> Talk:
    operands = sum(x.bytes for name in one.operands for x in within.instructions[name].arrays)
    return Talk(part, name, kind, operands, one)


def _transfer(within: Computation, one: Instruction) -> Talk | None:
    """None for one that is not between slices."""
    says = (one if one.opcode == "send" else within.instructions[one.operands[0]]).attributes
    written = re.search(r'_xla_megascale_transfer_type="(\w+)"', says)
    name = re.search(r'_xla_host_transfer_rendezvous="([^"]+)"', says)
    if written is None or name is None:
        return None
    kind = written[1].lower().replace("_", "-")
    return _talk("start", name[1], kind, within, one) if one.opcode == "send" else Talk("done", name[1], kind, 0, one)


def begun(within: Computation, one: Instruction) -> Instruction:
    """What a -done, or an update on the way to it, waits for."""
    while not one.opcode.endswith("-start"):
        one = within.instructions[one.operands[0]]
    return one


def groups(one: Instruction, chips: int) -> list[list[int]]:
    """Who talks to whom, in any of the ways in which it is written; all with all where it is not."""
    pairs = re.search(r"source_target_pairs=\{((?:\{[\d,]*\},?)*)\}", one.attributes)
    listed = re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", one.attributes)
    if (found := pairs or listed) and found[1]:
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])]
    if tiled := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", one.attributes):
        shape, sides, order = ([int(n) for n in part.split(",")] if part else None for part in tiled.groups())
        assert shape and sides
        numbers = np.arange(prod(sides)).reshape(sides)
        return (numbers.transpose(order) if order else numbers).reshape(shape).tolist()
    if meshed := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", one.attributes):
        axes = dict(re.findall(r"'([^']*)'=(\d+)", meshed[1]))
        within = [[*axes].index(name) for name in re.findall(r"'([^']*)'", meshed[2])]
        numbers = np.arange(prod(map(int, axes.values()))).reshape([int(side) for side in axes.values()])
        moved = np.moveaxis(numbers, within, range(-len(within), 0))
        return moved.reshape(-1, prod(numbers.shape[n] for n in within)).tolist()
    return [[*range(chips)]]
