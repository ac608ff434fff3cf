"""Operations by the bundles that the compiler schedules: read from its files, shared by equals, beside HBM's rate."""

import pytest

from tests.training.pods.programs import V5E, program, slice_
from training.pods.bundles import Block, Schedule
from training.pods.roofline import roofline
from training.pods.schedules import read_schedules, scheduled

BYTES = 2 * 4 * 1024 * 1024  # read and written
WINDOWS = 'backend_config={"window_config":{"iteration_bounds":["2","4"],"estimated_cycles":"1000000"}}'
SQUARE = """%square{0} (p{0}: f32[1024,1024]) -> f32[1024,1024] {{
  %p{0} = f32[1024,1024]{{1,0:T(8,128)}} parameter(0)
  ROOT %m{0} = f32[1024,1024]{{1,0:T(8,128)}} {1}(%p{0}, %p{0}), metadata={{op_name="layer{0}/mul"}}
}}

"""
KIND = "f32[1024,1024]{1,0:T(8,128)}"
PROGRAM = program(
    f"%a = {KIND} parameter(0)",
    f"%first = {KIND} fusion(%a), kind=kLoop, calls=%square1, {WINDOWS}",
    f"%second = {KIND} fusion(%first), kind=kLoop, calls=%square2, {WINDOWS}",
    f"%other = {KIND} fusion(%second), kind=kLoop, calls=%square3, {WINDOWS}",
    f"ROOT %copied = {KIND} copy(%other), {WINDOWS}",
    computations=SQUARE.format(1, "multiply") + SQUARE.format(2, "multiply") + SQUARE.format(3, "add"),
)


def bundles(outside: int, inside: int, deeper: int = 0) -> str:
    lines = [*["   :   {"] * outside, *["   : > {"] * inside, *[" LB: > > {"] * (deeper > 0), *["   : > > {"] * deeper]
    return "LB: loop body\n\n" + "".join(f"  {n:#x}{line} %s0_s0 = nop }}\n" for n, line in enumerate(lines))


def of(outside: int, inside: int, *loops: int) -> Schedule:
    once, step, *within = (Block(n, n, 0) for n in (outside, inside, *loops))
    return Schedule(once, step, within)


@pytest.fixture
def schedules(tmp_path):
    for name, text in {
        "17-first-01-final_bundles.txt": bundles(10, 500),
        "17-first-00-schedule-analysis_final_bundles.txt": "Schedule analysis:\n",
        "18-copied-66-final_bundles.txt": bundles(3, 0),
        "18-nested.2-66-final_bundles.txt": bundles(3, 10, 9),
        "19-fusion.11-66-final_bundles.txt": bundles(7, 0),
    }.items():
        (tmp_path / name).write_text(text)
    return read_schedules(tmp_path)


def test_bundles_are_read_outside_and_inside_of_a_loop(schedules):
    assert schedules == {
        "first": of(10, 500),
        "copied": of(3, 0),
        "nested.2": of(3, 10, 10),
        "fusion.11": of(7, 0),
    }


def test_equal_operations_share_a_schedule_and_copies_and_loops_in_loops_have_none(schedules):
    found = scheduled(PROGRAM, schedules | {"other": schedules["nested.2"]})
    assert {name: (one.cycles, one.windows) for name, one in found.items()} == dict.fromkeys(
        ("first", "second"), (10 + 8 * 500, 8)
    )


@pytest.mark.parametrize("inside", [500, 50_000])
def test_an_operation_takes_its_bundles_or_the_way_from_hbm(inside):
    found = roofline(PROGRAM, slice_((1, 1, 1)), schedules=scheduled(PROGRAM, {"first": of(10, inside)}))
    first, second, other, copied = found.operations
    moved = BYTES / V5E.hbm_rate
    assert first.seconds == second.seconds == pytest.approx(max((10 + 8 * inside) / V5E.clock, moved) + moved / 8)
    assert other.seconds == copied.seconds == pytest.approx(1e6 / V5E.clock)
    assert [x.how for x in found.operations] == ["scheduled", "scheduled", "estimated", "estimated"]
