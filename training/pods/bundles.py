"""The instruction words (bundles) that the compiler schedules for one operation, read and counted.

A TensorCore issues bundles in order, so what is scheduled is what runs, but for waits on memory and for the matrix
units: these take a row of the left factor a cycle, while the scheduler issues a product of 16 rows every 11 or 12
bundles. So the bundles are replayed with the units' rate and a queue of two before each; of a product of two matrices
of 4096 x 4096 that gives 1.02 of the units' peak time, the bundles alone 0.79. Not seen are the pushes of weights into
the units, and waits on HBM.
"""

import collections
import re
from itertools import pairwise
from typing import NamedTuple

ROWS = {"bf16": 16, "f32": 8}  # of a product's instruction, each a cycle of its matrix unit
QUEUE = 2  # products that may wait before a unit
BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+([A-Z]{2})?\+?\s*:\s*((?:>\s*)*)\{")
# lmr: of half as many rows; mubr: of a v6e, whose units take two a cycle (4096^3 is at 1.03 of the peak then).
PRODUCT = re.compile(r"vmatmul\.(lmr\.|mubr\.)?(?:\w+\.)*?(bf16|f32)[\w.]*\.mxu(\d)")
SPILL = re.compile(r"= vst \[vmem:\[#allocation\d+_spill\]")


class Block(NamedTuple):
    """Bundles that run as often as each other."""

    bundles: int
    cycles: int  # the same, with the matrix units' rate
    spills: int  # registers stored for want of room


class Schedule(NamedTuple):
    """Of one operation, which is a loop over windows, or over the steps of a kernel's grid."""

    once: Block  # before and after that loop
    step: Block  # a turn of it
    loops: list[Block]  # within a turn, in their order: a turn of each


def read_schedule(text: str) -> Schedule | None:
    """Of the compiler's `final_bundles`; None where it does not say of which loop a bundle is, as of loops in loops.

    A loop is from where it begins to its last bundle, among which are some of what follows, done in the last turn
    alone.
    """
    bundles: list[tuple[str, int, str]] = []
    for line in text.splitlines():
        if match := BUNDLE.match(line):
            bundles.append((match[1] or "", match[2].count(">"), line))
        elif bundles:
            bundles[-1] = *bundles[-1][:2], bundles[-1][2] + line
    begins = [n for n, (mark, depth, _) in enumerate(bundles) if mark == "LB" and depth > 1]
    outside, loops = bundles[: begins[0] if begins else None], []
    if any(depth > 2 for _, depth, _ in bundles) or any(depth > 1 for _, depth, _ in outside):
        return None
    for begin, beyond in pairwise([*begins, len(bundles)]):
        done = max(n for n in range(begin, beyond) if bundles[n][1] > 1) + 1
        loops.append(_block([line for _, _, line in bundles[begin:done]]))
        outside += bundles[done:beyond]
    once, step = (_block([line for _, depth, line in outside if (depth > 0) == inside]) for inside in (False, True))
    return Schedule(once, step, loops)


def replay(bundles: list[str]) -> int:
    """Cycles of these bundles, issued in order, with each matrix unit's rate and queue."""
    time, queues = 0, collections.defaultdict[str, list[int]](list)
    for bundle in bundles:
        for half, kind, unit in PRODUCT.findall(bundle):
            ends = queues[unit] = [end for end in queues[unit] if end > time]
            if len(ends) >= QUEUE:
                time = ends[-QUEUE]
                ends = queues[unit] = [end for end in ends if end > time]
            ends.append(max([time, *ends]) + ROWS[kind] // (2 if half else 1))
        time += 1
    return time


def _block(bundles: list[str]) -> Block:
    return Block(len(bundles), replay(bundles), sum(len(SPILL.findall(text)) for text in bundles))
