"""What one operation of a program computes and moves: FLOPs of its products, bytes between it and HBM."""

import re
from itertools import product as pairs
from math import prod

from training.pods.collectives import kind_of
from training.pods.program_text import Array, Computation, Instruction, ProgramText

MOVED_IN_PART = ("dynamic-slice", "slice", "gather")  # of their first operand they read as much as they result in


def flops(program: ProgramText, within: Computation, one: Instruction) -> int:
    """Of all products in an operation, 2 a multiply-add; elementwise work does not count."""
    if one.opcode in ("convolution", "dot"):
        return _product_flops(within, one)
    return sum(_product_flops(computation, inner) for computation, inner in program.inside(one))


def _product_flops(within: Computation, one: Instruction) -> int:
    if one.opcode not in ("convolution", "dot"):
        return 0
    left, right = (within.instructions[name].arrays[0].shape for name in one.operands[:2])
    out = one.arrays[0].shape
    if one.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
        return 2 * prod(out) * prod(left[int(n)] for n in (contracted[1] if contracted else "").split(",") if n)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert labels is not None  # every convolution has them
    of_left, of_right, of_out = labels.groups()
    window = _window(one.attributes, len(of_out) - 2)
    # Products with a batch are written as convolutions over it, of which all but one place of the window is padding.
    places = prod(
        _meeting(left[of_left.index(d)], right[of_right.index(d)], out[of_out.index(d)], **window[int(d)])
        for d in sorted(set(of_out) - {"b", "f"})
    )
    return 2 * out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")] * places


def _window(attributes: str, dimensions: int) -> list[dict[str, int]]:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    parts = dict(part.split("=") for part in (found[1].split() if found else ()))

    def of(name: str, default: str) -> list[str]:
        return parts[name].split("x") if name in parts else [default] * dimensions

    names = {"stride": "1", "lhs_dilate": "1", "rhs_dilate": "1"}
    window = [{name: int(of(name, default)[d]) for name, default in names.items()} for d in range(dimensions)]
    for d, pad in enumerate(of("pad", "0_0")):
        window[d]["pad"] = int(pad.split("_")[0])
    return window


def _meeting(size: int, window: int, out: int, *, stride: int, lhs_dilate: int, rhs_dilate: int, pad: int) -> int:
    """In how many pairs of (place of the result, place of the window) an element of the left side is met."""
    at = (o * stride + w * rhs_dilate - pad for o, w in pairs(range(out), range(window)))
    return sum(0 <= place <= (size - 1) * lhs_dilate and place % lhs_dilate == 0 for place in at)


def hbm_bytes(program: ProgramText, within: Computation, one: Instruction) -> int:
    """Read from HBM and written there; of an array of which a slice is read or written, that slice; of what passes
    through, or is moved by a collective that runs beside the operation, nothing."""
    operands = [within.instructions[name] for name in one.operands]
    bodies = program.called(one, "calls")
    if one.opcode == "fusion" and bodies:
        (body,) = bodies
        read = sum(_read(body, inside, outside) for inside, outside in zip(body.parameters, operands, strict=False))
        return read + sum(_written(body, inside, outside) for inside, outside in _results(body, one))
    if one.opcode == "dynamic-update-slice":
        return 2 * _in_hbm(operands[1].arrays)
    if one.opcode in MOVED_IN_PART:
        return 2 * _in_hbm(one.arrays)
    return _in_hbm(one.arrays) + sum(_in_hbm(x.arrays) for x in operands)


def copied_bytes(within: Computation, one: Instruction) -> int:
    """Between HBM and elsewhere, or twice within HBM, by a copy beside the operations, of which `one` is the start;
    so too what the SparseCores look up, whose start takes nothing yet."""
    end = one
    while not end.opcode.endswith("-done"):
        end = within.users[end.name][0]
    moved = sum(x.bytes for x in end.arrays)
    sides = (within.instructions[one.operands[0]].arrays if one.operands else end.arrays, end.arrays)
    return moved * sum(all(x.in_hbm for x in side) for side in sides)


def _in_hbm(arrays: tuple[Array, ...]) -> int:
    return sum(x.bytes for x in arrays if x.in_hbm)


def _read(body: Computation, inside: Instruction, outside: Instruction) -> int:
    whole = _in_hbm(outside.arrays)
    users = [(user, name) for user, name in _through_views(body, inside) if not _carries(body, user)]
    if not users and body.users[inside.name]:
        return 0
    if not users or not all(_is_part(user, name) for user, name in users):
        return whole
    return min(whole, sum(user.arrays[0].bytes for user, _ in users if user.opcode in MOVED_IN_PART))


def _is_part(user: Instruction, name: str) -> bool:
    """Does it read a slice of `name`, or write one into it in place?"""
    return user.opcode in (*MOVED_IN_PART, "dynamic-update-slice") and user.operands[0] == name


def _carries(body: Computation, user: Instruction) -> bool:
    """Is it a collective, or the tuple of an operation's results?"""
    return kind_of(user.opcode) is not None or (user is body.root and user.opcode == "tuple")


def _through_views(body: Computation, one: Instruction) -> list[tuple[Instruction, str]]:
    """Who uses an array, by what name, looking through bitcasts."""
    users: list[tuple[Instruction, str]] = []
    for user in body.users[one.name]:
        users += _through_views(body, user) if user.opcode == "bitcast" else [(user, one.name)]
    return users


def _results(body: Computation, one: Instruction) -> list[tuple[Instruction, Array]]:
    root = body.root
    inside = [body.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return list(zip(inside, one.arrays, strict=False))


def _written(body: Computation, inside: Instruction, outside: Array) -> int:
    while inside.opcode == "bitcast":
        inside = body.instructions[inside.operands[0]]
    whole = _in_hbm((outside,))
    if inside.opcode == "parameter" or kind_of(inside.opcode):
        return 0
    if inside.opcode == "dynamic-update-slice":
        return min(whole, body.instructions[inside.operands[1]].arrays[0].bytes)
    return whole
