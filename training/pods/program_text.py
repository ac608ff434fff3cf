"""The text of a compiled TPU program as values: computations of instructions, in the order in which they run.

The text is `jax.stages.Compiled.as_text()`. The compiler notes its own cost of an operation in it, memory included, as
`estimated_cycles`, and by `op_name` the line of the model that it is of.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = r"%?([\w.\-]+)"
_BEGIN = re.compile(rf"(ENTRY )?{_NAME} .*\{{$")
_LINE = re.compile(rf"  (ROOT )?{_NAME} = ")


@dataclass(frozen=True)
class Array:
    dtype: str
    shape: tuple[int, ...]
    layout: str  # such as 1,0:T(8,128)(2,1)S(1)

    @cached_property
    def bytes(self) -> int:
        """In memory: the minor dimensions are filled up to whole tiles."""
        order = [int(n) for n in re.match(r"[\d,]*", self.layout)[0].split(",") if n]  # type: ignore[index]
        sides, tile = list(self.shape), re.search(r"T\(([\d,]+)\)", self.layout)
        for dimension, side in zip(order, reversed(tile[1].split(",") if tile else ()), strict=False):
            sides[dimension] = math.ceil(sides[dimension] / int(side)) * int(side)
        return math.prod(sides) * bits(self.dtype) // 8

    @property
    def in_hbm(self) -> bool:
        """Not in the core's own memory."""
        return "S(" not in self.layout


def bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return _BITS[dtype] if dtype in _BITS else int(digits[0]) if digits else 8


@dataclass(frozen=True)
class Instruction:
    name: str
    kind: str  # its shape, or that of each element of a tuple
    opcode: str
    arguments: str  # what stands in its parentheses: operands, or a constant's value, or a parameter's number
    attributes: str
    is_root: bool

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(re.findall(r"%([\w.\-]+)", self.arguments))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """What it results in: one array, or those of a tuple."""
        return arrays(self.kind)

    @cached_property
    def cycles(self) -> int | None:
        """The compiler's cost of it; None where it says none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else None

    @cached_property
    def op_name(self) -> str:
        """Where in the traced program it comes from, such as jit(step)/jvp(norm)/mul."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""

    @cached_property
    def target(self) -> str:
        """Of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Names of computations by the part that they have: calls, body, condition, branch_computations, …"""
        part = r"\b(calls|body|condition|to_apply|branch_computations|(?:true|false)_computation)="
        found = re.findall(part + r"(?:\{([^}]*)\}|%?([\w.\-]+))", self.attributes)
        return {key: tuple(re.findall(_NAME, many or one)) for key, many, one in found}


def arrays(kind: str) -> tuple[Array, ...]:
    return tuple(
        Array(dtype, tuple(int(n) for n in sides.split(",") if n), layout)
        for dtype, sides, layout in _ARRAY.findall(kind)
    )


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]

    @cached_property
    def root(self) -> Instruction:
        return next(x for x in self.instructions.values() if x.is_root)

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for one in self:
            for name in dict.fromkeys(one.operands):
                users[name].append(one)
        return users

    @cached_property
    def parameters(self) -> list[Instruction]:
        """By number."""
        found = [x for x in self if x.opcode == "parameter"]
        return sorted(found, key=lambda x: int(x.arguments))

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())


@dataclass(frozen=True)
class ProgramText:
    entry: Computation
    computations: dict[str, Computation]

    def called(self, one: Instruction, part: str) -> list[Computation]:
        return [self.computations[name] for name in one.called.get(part, ())]

    def inside(self, one: Instruction) -> Iterator[tuple[Computation, Instruction]]:
        """The instructions that a fusion is made of, those of fusions in it too."""
        for computation in self.called(one, "calls"):
            for inner in computation:
                yield computation, inner
                yield from self.inside(inner)

    def trips(self, within: Computation, loop: Instruction) -> int | None:
        """How often a `while` runs its body: to its limit from its counter's first value, which is 1 where the compiler
        has put the first turn before the loop. None where there is no limit."""
        limit = self.limit(loop)
        return None if limit is None else limit - self._first(within, loop)

    def limit(self, loop: Instruction) -> int | None:
        """The constant in a `while`'s condition; None where there is none."""
        (condition,) = self.called(loop, "condition")
        found = [*condition, *(inner for one in condition for _, inner in self.inside(one))]
        numbers = [int(x.arguments) for x in found if x.opcode == "constant" and x.arguments.isdigit()]
        return max(numbers, default=None)

    def _first(self, within: Computation, loop: Instruction) -> int:
        """The value with which the counter begins that the condition compares; 0 where the text does not show it."""
        (condition,) = self.called(loop, "condition")
        compared = (condition.instructions[name] for name in condition.root.operands)
        counter = next((x for x in compared if x.opcode == "get-tuple-element"), None)
        place = re.search(r"\bindex=(\d+)", counter.attributes) if counter else None
        given = within.instructions[loop.operands[0]]
        if place is None or given.opcode != "tuple":
            return 0
        one = within.instructions[given.operands[int(place[1])]]
        while one.opcode == "copy":
            one = within.instructions[one.operands[0]]
        return int(one.arguments) if one.opcode == "constant" and one.arguments.isdigit() else 0


def read_program(text: str) -> ProgramText:
    """Raises ValueError for a text that has no entry computation, such as of another platform."""
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if current is not None and (begin := _LINE.match(line)):
            one = _instruction(line, begin)
            current.instructions[one.name] = one
        elif line == "}" or line.startswith("}, execution_thread="):  # attributes of a kernel begin lines so too
            current = None
        elif current is None and (header := _BEGIN.match(line)) and not line.startswith("HloModule"):
            current = computations[header[2]] = Computation(header[2], {})
            entry = current if header[1] else entry
    if entry is None:
        raise ValueError("not the text of a compiled program: it has no ENTRY")
    return ProgramText(entry, computations)


def _instruction(line: str, begin: re.Match[str]) -> Instruction:
    end = _closing(line, begin.end()) if line[begin.end()] == "(" else line.index(" ", begin.end())
    kind, opening = line[begin.end() : end], line.index("(", end)
    closing = _closing(line, opening)
    return Instruction(
        name=begin[2],
        kind=kind,
        opcode=line[end:opening].strip(),
        arguments=line[opening + 1 : closing - 1],
        attributes=line[closing:],
        is_root=bool(begin[1]),
    )


def _closing(line: str, start: int) -> int:
    """Behind the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if not depth:
            return place + 1
    return len(line)
