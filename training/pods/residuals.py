"""What a loop over layers saves for the backward pass: arrays that it stacks and a later loop reads."""

import re

from training.pods.program_text import Array, Computation, Instruction, ProgramText

VIEWS = ("bitcast", "copy", "copy-start", "copy-done", "opt-barrier", "get-tuple-element", "tuple")


def saved_bytes(program: ProgramText) -> int:
    """On a chip, by the most that one computation's loops stack."""
    return max((_saved_in(program, computation) for computation in program.computations.values()), default=0)


def _saved_in(program: ProgramText, within: Computation) -> int:
    saved = 0
    for loop in within:
        if loop.opcode != "while":
            continue
        for element in within.users[loop.name]:
            if (number := _index(element)) is not None:
                array = loop.arrays[number]
                if _is_stacked(program, loop, number, array) and _reaches_a_loop(within, element):
                    saved += array.bytes
    return saved


def _is_stacked(program: ProgramText, loop: Instruction, number: int, array: Array) -> bool:
    """As many as the loop's limit, in HBM, and not what it was given."""
    (body,) = program.called(loop, "body")
    inside = body.instructions[body.root.operands[number]]
    same = inside.opcode == "get-tuple-element" and _index(inside) == number
    return array.shape[:1] == (program.limit(loop),) and array.in_hbm and not same


def _reaches_a_loop(within: Computation, one: Instruction) -> bool:
    users = within.users[one.name]
    return any(x.opcode == "while" or x.opcode in VIEWS and _reaches_a_loop(within, x) for x in users)


def _index(one: Instruction) -> int | None:
    found = re.search(r"\bindex=(\d+)", one.attributes) if one.opcode == "get-tuple-element" else None
    return int(found[1]) if found else None
