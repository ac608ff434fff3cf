"""How long the operations of a program take by the schedule that the compiler makes of each.

Its `estimated_cycles` of what is no product counts tiles, not what is done with them: of a norm whose input and output
are in the core's own memory it says nine times the instruction words (bundles) that are scheduled, of a copy from and
to HBM two and a half times what HBM takes. A core issues bundles in order, so these are counted instead: those outside
and inside of the one loop over windows that such an operation is, the loop's as often as the windows of its text say.
While one window is worked on, the next is on its way from HBM and the last on its way back.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.pods.bundles import Schedule, read_schedule
from training.pods.program_text import Computation, Instruction, ProgramText

# For libtpu, before it is loaded: of every operation, the bundles as they run are written to a folder.
FLAGS = ("--xla_jf_dump_llo_text=true", "--xla_jf_dump_llo_pass_label_regex=^final_bundles", "--xla_jf_dump_to=")
COPIES = ("copy", "transpose", "reshape", "bitcast-convert")  # moved by the DMA engine, which bundles only start


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    cycles: int  # all that the core issues, with the matrix units' rate
    windows: int


def read_schedules(folder: Path) -> dict[str, Schedule]:
    """By operation, of those whose loops `read_schedule` knows."""
    found: dict[str, Schedule] = {}
    for file in folder.glob("*-final_bundles.txt"):
        name = re.match(r"\d+-(.+?)(-schedule-analysis|-\d+)*-final_bundles\.txt", file.name)
        if name is None or "schedule-analysis" in file.name:
            continue
        if (schedule := read_schedule(file.read_text("utf-8", errors="replace"))) is not None:
            found[name[1]] = schedule
    return found


def scheduled(program: ProgramText, schedules: Mapping[str, Schedule]) -> dict[str, Scheduled]:
    """By name of the instruction, of those with one loop at the most. One that is equal to another in all but its name
    is compiled once."""
    running = [(within, one) for within, one in _running(program, program.entry) if one.opcode not in COPIES]
    known = {_identity(program, within, one): schedules[one.name] for within, one in running if one.name in schedules}
    found: dict[str, Scheduled] = {}
    for within, one in running:
        schedule, windows = known.get(_identity(program, within, one)), _windows(one)
        if schedule is not None and not schedule.loops and (windows or not schedule.step.bundles):
            cycles = schedule.once.cycles + schedule.step.cycles * (windows or 1)
            found[one.name] = Scheduled(cycles=cycles, windows=windows or 1)
    return found


def _running(program: ProgramText, within: Computation) -> Iterator[tuple[Computation, Instruction]]:
    """The instructions that are operations of the core, in loops and branches too."""
    for one in within:
        if one.opcode in ("while", "conditional", "call"):
            for names in one.called.values():
                for name in names:
                    yield from _running(program, program.computations[name])
        elif one.cycles is not None:
            yield within, one


def _windows(one: Instruction) -> int | None:
    found = re.search(r'"iteration_bounds":\[([^\]]*)\]', one.attributes)
    return math.prod(int(n) for n in re.findall(r"\d+", found[1])) if found and found[1] else None


def _identity(program: ProgramText, within: Computation, one: Instruction) -> tuple:
    """Equal for those that do the same to arrays of the same types, layouts and memories, in the same windows."""
    window = re.search(r'"window_config":\{.*?"estimated_cycles"', one.attributes)
    kinds = tuple(within.instructions[name].kind for name in one.operands)
    inner = tuple(_body(program, computation) for computation in program.called(one, "calls"))
    return one.opcode, one.kind, kinds, window[0] if window else "", inner


def _body(program: ProgramText, body: Computation) -> tuple:
    number = {one.name: n for n, one in enumerate(body)}
    return tuple(
        (
            one.opcode,
            one.kind,
            tuple(number[name] for name in one.operands) or one.arguments,
            re.sub(r"(metadata|backend_config)=.*|%[\w.\-]+", "", one.attributes),
            tuple(_body(program, inner) for inner in program.called(one, "calls")),
        )
        for one in body
    )
