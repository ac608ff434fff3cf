"""Seconds that chips talk, by hand: bytes over the rate of the slowest way in."""

import pytest

from tests.training.pods.programs import LAYERS, TRANSFER, V5E, program, slice_
from training.pods.chips import CHIPS
from training.pods.collectives import find, groups

MB = 10**6


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("replica_groups={{0,2},{1,3}}", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['x'=2,'y'=2] {'x'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['x'=2,'y'=2] {'y'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['x'=4] {'x'}", [[0, 1, 2, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_as_the_text_writes_them(written, expected):
    made = program("%a = f32[8] parameter(0)", f"ROOT %b = f32[8] all-reduce(%a), {written}, to_apply=%add")
    assert groups(made.entry.root, 4) == expected


def test_rates_by_dimension_and_ring():
    plane = slice_((4, 4, 1))
    row, all_ = [0, 1, 2, 3], [*range(16)]
    assert plane.seconds("all-gather", 100 * MB, row) == pytest.approx(100 * MB * 3 / 4 / V5E.link)
    assert plane.seconds("reduce-scatter", 100 * MB, row) == plane.seconds("all-gather", 100 * MB, row)
    assert plane.seconds("all-reduce", 100 * MB, all_) == pytest.approx(2 * 100 * MB * 15 / 16 / (2 * V5E.link))
    assert plane.seconds("all-reduce", 100 * MB, [3]) == 0
    ring = slice_((16, 16, 1))  # whole rows of a pod close: two links a dimension
    assert ring.seconds("all-gather", 100 * MB, [*range(16)]) == pytest.approx(100 * MB * 15 / 16 / (2 * V5E.link))
    assert slice_((4, 4, 4), chip=CHIPS["TPU v5"]).links == (2, 2, 2) and slice_((2, 2, 1)).links == (1, 1, 1)
    assert plane.seconds("collective-permute", 100 * MB, [0, 1]) == pytest.approx(100 * MB / V5E.link)


def test_between_slices_each_chip_sends_its_part():
    two = slice_((4, 4, 1), slices=2)
    inside = slice_((4, 4, 1)).seconds("all-reduce", 100 * MB, [*range(16)])
    across = 2 * (100 * MB / 16) * 1 / 2 / V5E.network
    assert two.seconds("all-reduce", 100 * MB, [*range(32)]) == pytest.approx(inside + across)
    assert two.seconds("all-reduce", 100 * MB, [0, 16]) == pytest.approx(2 * 100 * MB / 2 / V5E.network)


@pytest.mark.parametrize(
    ("name", "kind", "sent", "whole"),
    [
        ("all-reduce", "ALL_REDUCE", 2 * 3 / 4, 1),  # a reduce-scatter and an all-gather
        ("all-gather", "ALL_GATHER", 3, 4),
        ("reduce-scatter", "REDUCE_SCATTER", 3 / 4, 0.25),
    ],
)
def test_what_hosts_send_between_four_slices(name, kind, sent, whole):
    says, back = TRANSFER.format(name, kind), f"f32[{int(whole * 1024)},1024]{{1,0}}"
    made = program(
        "%m = f32[1024,1024]{1,0:T(8,128)} parameter(0)",
        "%t = token[] after-all()",
        f"%s = (f32[1024,1024]{{1,0}}, u32[], token[]) send(%m, %t), channel_id=2, {says}",
        f"%r = ({back}, u32[], token[]) recv(%t), channel_id=1, {says}",
        f"ROOT %d = ({back}, token[]) recv-done(%r), channel_id=1",
    ).entry
    begin, end = (find(None, made, made.instructions[x]) for x in "sd")
    assert begin.part == "start" and end.part == "done" and begin.name == end.name == f"{name}.1_0"
    assert begin.between_slices and end.between_slices
    assert begin.seconds(slice_((2, 2, 1), slices=4)) == pytest.approx(sent * 4 * 2**20 / V5E.network)


def test_what_a_program_says_in_its_loops():
    body = LAYERS.called(next(x for x in LAYERS.entry if x.opcode == "while"), "body")[0]
    (gather,) = [talk for x in body if (talk := find(LAYERS, body, x))]
    weight = 2 * 512 * 512
    assert (gather.kind, gather.part, gather.operands) == ("all-gather", "whole", weight // 2)
    plane = slice_((2, 2, 1))
    assert gather.seconds(plane) == plane.seconds("all-gather", weight, [0, 1])
