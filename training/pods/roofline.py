"""Where the time of a step goes on a TPU that is not here, reckoned from what the compiler has scheduled.

A TensorCore runs what is scheduled, in order: so a step is the sum of its operations, a loop's body as often as it
runs. An operation takes its schedule's instruction words, or the compiler's own estimate (`estimated_cycles`) where
there are none to read, or where that of a product is less; by that estimate alone a step is 1.3 to 1.9 times as long.
Collectives and copies that run beside the operations cost what does not hide behind them. What is left out is in
docs/plan.md; no TPU has confirmed it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from training.pods.chips import Chip
from training.pods.collectives import Slice, Talk, begun, find
from training.pods.costs import copied_bytes, flops, hbm_bytes
from training.pods.kernels import KERNEL, Kernel
from training.pods.lines import COLLECTIVES, COPIES, NETWORK, PHASES, Phase, line_of, phase_of
from training.pods.program_text import Computation, Instruction, ProgramText
from training.pods.schedules import Scheduled

# How a time is known: by the compiler's schedule, its cycles, FLOPs and bytes, a kernel's own schedule, the rate of the
# links, of the network between slices, or of HBM.
How = Literal["scheduled", "estimated", "bounded", "kernel", "collective", "network", "copy"]
# What runs beside the operations.
BESIDE: dict[How, str] = {"collective": COLLECTIVES, "network": NETWORK, "copy": COPIES}
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "async-update",
    "send",
    "recv",
    "send-done",
    "recv-done",
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One instruction of the program, over all of its runs in a step."""

    name: str
    opcode: str
    op_name: str
    line: str
    phase: Phase
    how: How
    times: int
    seconds: float  # that the step waits for it
    busy: float  # that it takes, hidden or not
    flops: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Roofline:
    chip: Chip
    operations: tuple[Operation, ...]
    unknown_loops: int  # whose trips the text does not say: counted once

    @property
    def seconds(self) -> float:
        """Of a step."""
        return _waited(self.operations)

    @property
    def unmeasured_kernels(self) -> int:
        return sum(x.opcode == "custom-call" and x.how == "bounded" for x in self.operations)

    def lines(self) -> list[dict[str, Any]]:
        """By line of the model, the longest first: seconds by phase, and what each bound alone would take of them."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for one in self.operations:
            found[one.line].append(one)
        lines = [
            {
                "line": name,
                "seconds": {p: spent for p in PHASES if (spent := _waited(x for x in ones if x.phase == p))},
                "bounds": {
                    "products": sum(x.flops for x in ones) / self.chip.peak,
                    "HBM": sum(x.bytes for x in ones) / self.chip.hbm_rate,
                    "links": _waited(x for x in ones if x.how == "collective"),
                    "network": _waited(x for x in ones if x.how == "network"),
                },
            }
            for name, ones in found.items()
        ]
        return sorted((x for x in lines if x["seconds"]), key=lambda x: -sum(x["seconds"].values()))

    def network(self) -> dict[str, float]:
        """Between slices, of a chip and step: bytes it sends, at which rate, the seconds they take, and those that the
        step waits for them."""
        of, rate = self.known()["network"], self.chip.network
        return {"bytes": of["busy"] * rate, "rate": rate, "busy": of["busy"], "seconds": of["seconds"]}

    def known(self) -> dict[str, dict[str, float]]:
        """How the times are known: operations, the seconds that the step waits for them, and those that they take."""
        kinds: dict[str, dict[str, float]] = {}
        for how in get_args(How):
            ones = [x for x in self.operations if x.how == how]
            kinds[how] = {"operations": len(ones), "seconds": _waited(ones), "busy": sum(x.busy for x in ones)}
        return kinds


def _waited(operations: Iterable[Operation]) -> float:
    return sum(x.seconds for x in operations)


def roofline(
    program: ProgramText,
    chips: Slice,
    kernels: Mapping[str, Kernel] | None = None,
    schedules: Mapping[str, Scheduled] | None = None,
) -> Roofline:
    """Every operation of the program that takes time, with it. kernels: what is known of Pallas's, see `kernels_of`;
    schedules: of the operations themselves, see `scheduled`."""
    run = _Run(_Step(program, chips, kernels or {}, schedules or {}), program.entry, 1, "outside")
    return Roofline(chip=chips.chip, operations=tuple(run.operations), unknown_loops=run.unknown_loops)


@dataclass(frozen=True)
class _Step:
    program: ProgramText
    chips: Slice
    kernels: Mapping[str, Kernel]
    schedules: Mapping[str, Scheduled]

    def seconds(self, one: Instruction, within: Computation) -> tuple[float, How]:
        """How long an operation takes, and how that is known."""
        estimated = None if one.cycles is None else one.cycles / self.chips.chip.clock
        if one.name in self.schedules:
            issued = self.by_schedule(self.schedules[one.name], one, within)
            # Of a product's step a part runs at times only: so the lesser of the two, which may flatter.
            if not self.flops(one, within) or estimated is None or issued < estimated:
                return issued, "scheduled"
        if estimated is not None:
            return estimated, "estimated"
        kernel = self.kernels.get(one.name)
        if kernel is not None and kernel.cycles is not None:
            return kernel.cycles / self.chips.chip.clock, "kernel"
        return self.bound(one, within), "bounded"

    def by_schedule(self, schedule: Scheduled, one: Instruction, within: Computation) -> float:
        """The core works on a window while others are on their way: but for the way of the first and the last."""
        moved = hbm_bytes(self.program, within, one) / self.chips.chip.hbm_rate
        return max(schedule.cycles / self.chips.chip.clock, moved) + moved / schedule.windows

    def bound(self, one: Instruction, within: Computation) -> float:
        moved = hbm_bytes(self.program, within, one) / self.chips.chip.hbm_rate
        return max(self.flops(one, within) / self.chips.chip.peak, moved)

    def flops(self, one: Instruction, within: Computation) -> int:
        kernel = self.kernels.get(one.name)
        return flops(self.program, within, one) if kernel is None else kernel.flops


@dataclass
class _Lane:
    """What runs beside the operations, one after the other: talk over the links, or over the network between slices, or
    copies to and from HBM."""

    free: float = 0.0
    begun: dict[str, tuple[float, float]] = field(default_factory=dict)  # name -> (its end, the seconds it takes)

    def start(self, name: str, now: float, seconds: float) -> None:
        self.free = max(now, self.free) + seconds
        self.begun[name] = (self.free, seconds)


class _Run:
    """One run of a computation, which runs `times` times in a step. phase: of what the text does not name."""

    def __init__(self, step: _Step, within: Computation, times: int, phase: Phase):
        self.step, self.within, self.times, self.phase = step, within, times, phase
        self.now, self.unknown_loops = 0.0, 0
        self.operations: list[Operation] = []
        self.links, self.network, self.copies = _Lane(), _Lane(), _Lane()
        for one in within:
            self._take(one)

    def _take(self, one: Instruction) -> None:
        if one.opcode == "while":
            trips = self.step.program.trips(self.within, one)
            self.unknown_loops += trips is None
            (body,) = self.step.program.called(one, "body")
            self._add(self._inner(one, body, trips or 1), trips or 1)
        elif one.opcode in ("conditional", "call"):
            self._add(max((self._inner(one, x, 1) for x in self._branches(one)), key=lambda run: run.now), 1)
        elif (talk := find(self.step.program, self.within, one)) is not None and talk.part != "work":
            self._talk(one, talk)
        elif one.opcode in FREE:
            pass
        elif one.opcode.endswith("-start"):
            seconds = copied_bytes(self.within, one) / self.step.chips.chip.hbm_rate
            self.copies.start(one.name, self.now, seconds)
        elif one.opcode.endswith("-done"):
            self._wait(one, self.copies, begun(self.within, one).name, "copy")
        elif one.opcode != "custom-call" or one.target == KERNEL:
            seconds, how = self.step.seconds(one, self.within)
            self._record(one, how, seconds, seconds)

    def _branches(self, one: Instruction) -> list[Computation]:
        """Of a conditional all, of which the longest counts."""
        parts = ("branch_computations", "true_computation", "false_computation", "to_apply")
        return [computation for part in parts for computation in self.step.program.called(one, part)]

    def _inner(self, one: Instruction, within: Computation, trips: int) -> "_Run":
        return _Run(self.step, within, self.times * trips, self._phase(one))

    def _add(self, run: "_Run", trips: int) -> None:
        self.now += run.now * trips
        self.operations += run.operations
        self.unknown_loops += run.unknown_loops

    def _talk(self, one: Instruction, talk: Talk) -> None:
        lane = self.network if talk.between_slices else self.links
        if talk.part != "done":
            lane.start(talk.name, self.now, talk.seconds(self.step.chips))
        if talk.part != "start":
            self._wait(one, lane, talk.name, "network" if talk.between_slices else "collective")

    def _wait(self, one: Instruction, lane: _Lane, name: str, how: How) -> None:
        end, busy = lane.begun[name]
        self._record(one, how, max(end - self.now, 0.0), busy)

    def _phase(self, one: Instruction) -> Phase:
        return phase_of(one.op_name) if "/" in one.op_name else self.phase  # without: an argument's name, or none

    def _record(self, one: Instruction, how: How, seconds: float, busy: float) -> None:
        self.now += seconds
        self.operations.append(
            Operation(
                name=one.name,
                opcode=one.opcode,
                op_name=one.op_name,
                line=BESIDE.get(how) or line_of(one.op_name, one.opcode),
                phase=self._phase(one),
                how=how,
                times=self.times,
                seconds=seconds * self.times,
                busy=busy * self.times,
                flops=0 if how in BESIDE else self.step.flops(one, self.within) * self.times,
                bytes=0 if how in BESIDE else hbm_bytes(self.step.program, self.within, one) * self.times,
            )
        )
