"""What Pallas's kernels cost, of which the compiler estimates nothing.

A kernel's cycles are those of its own schedule (training/pods/schedules.py), of a step of its grid as often as it has
steps; of one with loops of its own the FLOPs of its products are a bound, with the bytes of its operands.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

from training.pods.program_text import Computation, Instruction, ProgramText

KERNEL = "tpu_custom_call"  # the target of Pallas's; the compiler's own custom calls take no time
_HLO_NAMES = {"bool": "pred", "bfloat16": "bf16", "float": "f", "uint": "u", "int": "s"}


@dataclass(frozen=True)
class Kernel:
    flops: int  # of the products of one call
    cycles: int | None  # of one call; None where its schedule is not known


def kernels_of(
    step: ClosedJaxpr, program: ProgramText, schedules: Mapping[str, Sequence[int]], cores: int = 1
) -> dict[str, Kernel]:
    """Those that a traced step calls, by name and shapes. program: the compiled step, schedules: of its operations;
    cores: of a chip, which share the steps of a grid."""
    known = {
        key_of(one, within): schedules[one.name]
        for within in program.computations.values()
        for one in within
        if one.target == KERNEL and one.name in schedules
    }
    found = {}
    for key, steps, flops in _calls(step.jaxpr):
        once, _, each = known.get(key, (0, 0, 0))
        found[key] = Kernel(steps * flops, once + steps // cores * each if key in known else None)
    return found


def key_of(one: Instruction, within: Computation) -> str:
    """The same of the call in a compiled program: its op_name ends in NAME/pallas_call."""
    name = one.op_name.split("/")[-2] if "/" in one.op_name else one.name
    shapes = (array for operand in one.operands for array in within.instructions[operand].arrays)
    return _key(name, [(x.dtype, x.shape) for x in shapes])


def _key(name: str, shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return f"{name}({', '.join(dtype + str([*shape]).replace(' ', '') for dtype, shape in shapes)})"


def _calls(jaxpr: Jaxpr) -> Iterator[tuple[str, int, int]]:
    """Key, steps of the grid, FLOPs of one."""
    for one in jaxpr.eqns:
        if one.primitive.name == "pallas_call":
            given: list[Any] = [x.aval for x in one.invars]
            shapes = [(_hlo_name(str(x.dtype)), x.shape) for x in given]
            grid = prod(n for n in one.params["grid_mapping"].grid if isinstance(n, int))
            yield _key(one.params["name"], shapes), grid, _flops(one.params["jaxpr"])
        else:
            for inner in _inside(one):
                yield from _calls(inner)


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


def loaded_sources() -> list[Path]:
    """The files of this project's modules that are loaded by now, those of a training with all that it uses."""
    ours = {path.parent.name for path in Path(__file__).parents[2].glob("*/__init__.py")}
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] in ours]
    return sorted(Path(file) for module in modules if (file := getattr(module, "__file__", None)))
