"""What Pallas's kernels cost, of which the compiler estimates nothing.

A kernel's cycles are those of its own schedule (training/pods/bundles.py), of a step of its grid as often as it has
steps, and of loops in a step as often as the traced kernel says. Where that does not fit the schedule, as of loops in
loops or in branches, the FLOPs of its products are a bound, with the bytes of its operands.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr

from training.pods.bundles import Block, Schedule
from training.pods.program_text import Computation, Instruction, ProgramText

KERNEL = "tpu_custom_call"  # the target of Pallas's; the compiler's own custom calls take no time
_HLO_NAMES = {"bool": "pred", "bfloat16": "bf16", "float": "f", "uint": "u", "int": "s"}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One call of a program."""

    name: str
    flops: int  # of its products
    steps: int  # of its grid that each core takes
    once: int = 0  # cycles before the first step and after the last
    step: Block | None = None  # its own loops as often as they run; None where the schedule does not tell

    @property
    def cycles(self) -> int | None:
        return None if self.step is None else self.once + self.steps * self.step.cycles


class _Call(NamedTuple):
    """As it is traced."""

    name: str
    steps: int  # of the grid
    flops: int  # of one
    trips: tuple[int, ...]  # of each loop in a step, in their order


def kernels_of(
    step: ClosedJaxpr, program: ProgramText, schedules: Mapping[str, Schedule], cores: int = 1
) -> dict[str, Kernel]:
    """Those that a traced step calls, by the name of the instruction. program: the compiled step, schedules: of its
    operations; cores: of a chip, which share the steps of a grid.

    A call is found by its name and shapes; ValueError where two that differ have the same. One that is equal to another
    is compiled once.
    """
    traced: dict[str, _Call] = {}
    for key, call in _calls(step.jaxpr):
        if traced.setdefault(key, call) != call:
            raise ValueError(f"two kernels are called {key}, and differ: each needs a name of its own")
    compiled = [(one, key_of(one, x)) for x in program.computations.values() for one in x if one.target == KERNEL]
    known = {key: schedules[one.name] for one, key in compiled if one.name in schedules}
    return {
        one.name: _kernel(traced[key], schedules.get(one.name) or known.get(key), cores)
        for one, key in compiled
        if key in traced
    }


def _kernel(call: _Call, schedule: Schedule | None, cores: int) -> Kernel:
    name, steps, flops, trips = call
    kernel = Kernel(name=name, flops=steps * flops, steps=steps // cores)
    if schedule is None or len(schedule.loops) != len(trips):
        return kernel
    blocks = [(1, schedule.step), *zip(trips, schedule.loops, strict=True)]
    each = Block(*(sum(times * block[n] for times, block in blocks) for n in range(len(Block._fields))))
    return replace(kernel, once=schedule.once.cycles, step=each)


def key_of(one: Instruction, within: Computation) -> str:
    """The same of the call in a compiled program: its op_name ends in NAME/pallas_call."""
    name = one.op_name.split("/")[-2] if "/" in one.op_name else one.name
    shapes = (array for operand in one.operands for array in within.instructions[operand].arrays)
    return _key(name, [(x.dtype, x.shape) for x in shapes])


def _key(name: str, shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return f"{name}({', '.join(dtype + str([*shape]).replace(' ', '') for dtype, shape in shapes)})"


def _calls(jaxpr: Jaxpr) -> Iterator[tuple[str, _Call]]:
    for one in jaxpr.eqns:
        if one.primitive.name == "pallas_call":
            name, body = str(one.params["name"]), one.params["jaxpr"]
            given: list[Any] = [x.aval for x in one.invars]
            shapes = [(_hlo_name(str(x.dtype)), x.shape) for x in given]
            grid = prod(n for n in one.params["grid_mapping"].grid if isinstance(n, int))
            yield _key(name, shapes), _Call(name, grid, _flops(body), tuple(_trips(body)))
        else:
            for inner in _inside(one):
                yield from _calls(inner)


def _trips(kernel: Jaxpr) -> Iterator[int]:
    """Of loops that are left as such: one that is unrolled whole is none."""
    for one in kernel.eqns:
        if one.primitive.name == "scan" and one.params["unroll"] < one.params["length"]:
            yield one.params["length"] // one.params["unroll"]


def _flops(jaxpr: Jaxpr) -> int:
    return sum(_flops_of(one) for one in jaxpr.eqns)


def _flops_of(one: Any) -> int:
    if one.primitive.name == "dot_general":
        (contracted, _), _ = one.params["dimension_numbers"]
        left = one.invars[0].aval.shape
        return 2 * prod(one.outvars[0].aval.shape) * prod(left[n] for n in contracted)
    parts = [_flops(inner) for inner in _inside(one)]
    if one.primitive.name == "cond":  # such as pl.when: a call does at most one
        return max(parts)
    return sum(parts) * (one.params["length"] if one.primitive.name == "scan" else 1)


def _inside(one: Any) -> Iterator[Jaxpr]:
    for value in one.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _hlo_name(dtype: str) -> str:
    for name, short in _HLO_NAMES.items():
        if dtype.startswith(name):
            return dtype.replace(name, short)
    return dtype
