"""A step's time out of its operations': loops, what hides behind what, kernels, and what nobody has estimated."""

import pytest

from tests.training.pods.programs import LAYERS, PRODUCT, TRANSFER, V5E, program, slice_
from training.pods.bundles import Block
from training.pods.kernels import Kernel
from training.pods.lines import COLLECTIVES, NETWORK, line_of, phase_of
from training.pods.roofline import roofline

WORK = '%{0} = f32[8]{{0}} fusion(%a), kind=kLoop, calls=%work, backend_config={{"estimated_cycles":"{1}"}}'
NOTHING = "%work (p: f32[8]) -> f32[8] {\n  ROOT %p = f32[8]{0} parameter(0)\n}\n\n"
MATRIX = 4 * 1024 * 1024


def test_the_clock_is_that_of_the_published_peak():
    found = roofline(PRODUCT, slice_((1, 1, 1)))
    (product,) = [x for x in found.operations if x.how == "estimated"]
    assert product.seconds == pytest.approx(1_083_068 / V5E.clock) and V5E.clock == pytest.approx(1.503e9, rel=1e-3)
    assert 1 < product.seconds / (2 * 4096**3 / V5E.peak) < 1.05


def test_a_loops_body_counts_as_often_as_it_runs():
    found = roofline(LAYERS, slice_((2, 2, 1)))
    assert {x.times for x in found.operations} == {1, 6}
    assert found.seconds == pytest.approx(sum(x.seconds for x in found.operations))
    for phase in ("forward", "recomputed", "backward"):
        products = [x for x in found.operations if x.line == "feed-forward" and x.phase == phase and x.flops]
        assert sum(x.flops for x in products) == (2 if phase == "backward" else 1) * 2 * 6 * 8 * 128 * 512 * 512
    assert found.unknown_loops == 0
    lines = {line["line"]: line for line in found.lines()}
    assert sum(sum(line["seconds"].values()) for line in lines.values()) == pytest.approx(found.seconds)
    assert lines[COLLECTIVES]["bounds"]["links"] == pytest.approx(sum(lines[COLLECTIVES]["seconds"].values()))


@pytest.mark.parametrize("cycles", [1_000, 1_000_000])
def test_a_collective_hides_behind_what_runs_between_its_ends(cycles):
    made = program(
        "%a = f32[8]{0} parameter(0)",
        "%m = f32[1024,1024]{1,0:T(8,128)} parameter(1)",
        "%s = (f32[1024,1024]{1,0}, f32[4096,1024]{1,0}) all-gather-start(%m), replica_groups=[1,4]<=[4]",
        WORK.format("w", cycles),
        "%d = f32[4096,1024]{1,0} all-gather-done(%s)",
        "ROOT %r = f32[8]{0} copy(%w)",
        computations=NOTHING,
    )
    found = roofline(made, slice_((2, 2, 1)))
    takes, work = 4 * MATRIX * 3 / 4 / (2 * V5E.link), cycles / V5E.clock
    (talk,) = [x for x in found.operations if x.how == "collective"]
    assert talk.busy == pytest.approx(takes) and talk.seconds == pytest.approx(max(takes - work, 0))
    assert found.known()["collective"] == {"operations": 1, "seconds": talk.seconds, "busy": talk.busy}


@pytest.mark.parametrize("cycles", [1_000, 10_000_000])
def test_what_crosses_slices_has_a_lane_of_its_own(cycles):
    """It hides behind the operations and behind what goes over the links."""
    says = TRANSFER.format("all-reduce", "ALL_REDUCE")
    made = program(
        "%a = f32[8]{0} parameter(0)",
        "%m = f32[1024,1024]{1,0:T(8,128)} parameter(1)",
        "%t = token[] after-all()",
        f"%s = (f32[1024,1024]{{1,0}}, u32[], token[]) send(%m, %t), {says}",
        f"%r = (f32[1024,1024]{{1,0}}, u32[], token[]) recv(%t), {says}",
        "%g = f32[4096,1024]{1,0} all-gather(%m), replica_groups={{0,1,2,3}}, dimensions={0}",
        WORK.format("w", cycles),
        "%e = token[] send-done(%s)",
        "%d = (f32[1024,1024]{1,0}, token[]) recv-done(%r)",
        "ROOT %z = f32[8]{0} copy(%w)",
        computations=NOTHING,
    )
    found = roofline(made, slice_((2, 2, 1), slices=2))
    takes, links = MATRIX / V5E.network, 4 * MATRIX * 3 / 4 / (2 * V5E.link)
    (across,) = [x for x in found.operations if x.how == "network"]
    assert across.line == NETWORK and across.seconds == pytest.approx(max(takes - links - cycles / V5E.clock, 0))
    assert found.network() == pytest.approx(
        {"bytes": MATRIX, "rate": V5E.network, "busy": takes, "seconds": across.seconds}
    )
    (line,) = [x for x in found.lines() if x["line"] == NETWORK] or [{"bounds": {"network": 0}}]
    assert line["bounds"]["network"] == across.seconds
    assert {x.how for x in found.operations} == {"collective", "estimated", "bounded", "network"}


def test_a_collective_in_fusions_begins_and_ends_by_its_channel():
    inside = """%begin (p: f32[1024,1024]) -> (f32[1024,1024], f32[4096,1024]) {
  %p = f32[1024,1024]{1,0:T(8,128)} parameter(0)
  %g = f32[4096,1024]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %c = (f32[1024,1024]{1,0}, f32[4096,1024]{1,0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: f32[1024,1024]) -> f32[8] {
  %p = f32[1024,1024]{1,0:T(8,128)} parameter(0)
  %g = f32[4096,1024]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %c = f32[8]{0} slice(%g)
}

%end (p: f32[1024,1024]) -> f32[4096,1024] {
  %p = f32[1024,1024]{1,0:T(8,128)} parameter(0)
  %g = f32[4096,1024]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %c = f32[4096,1024]{1,0} custom-call(%g), custom_call_target="AsyncCollectiveDone"
}

"""
    made = program(
        "%m = f32[1024,1024]{1,0:T(8,128)} parameter(0)",
        "%s = (f32[1024,1024]{1,0}, f32[4096,1024]{1,0}) fusion(%m), kind=kCustom, calls=%begin",
        "%w = f32[8]{0} fusion(%m), kind=kOutput, calls=%async_collective_fusion.1, "
        'backend_config={"estimated_cycles":"1000"}',
        "ROOT %d = f32[4096,1024]{1,0} fusion(%m), kind=kCustom, calls=%end",
        computations=inside,
    )
    found = roofline(made, slice_((2, 2, 1)))
    takes = 4 * MATRIX * 3 / 4 / (2 * V5E.link)
    assert found.seconds == pytest.approx(takes) and [x.how for x in found.operations] == ["estimated", "collective"]


def test_what_is_not_estimated_is_bounded_and_kernels_are_measured():
    made = program(
        "%a = f32[1024,1024]{1,0:T(8,128)} parameter(0)",
        "%b = f32[1024,1024]{1,0:T(8,128)} negate(%a)",
        '%k = f32[1024,1024]{1,0:T(8,128)} custom-call(%b), custom_call_target="tpu_custom_call"',
        'ROOT %n = f32[1024,1024]{1,0:T(8,128)} custom-call(%k), custom_call_target="AllocateBuffer"',
    )
    bound = 2 * MATRIX / V5E.hbm_rate
    unknown = roofline(made, slice_((1, 1, 1)))
    assert unknown.seconds == pytest.approx(2 * bound) and unknown.unmeasured_kernels == 1
    bounded = roofline(made, slice_((1, 1, 1)), {"k": Kernel(name="k", flops=10**9, steps=3)})
    assert bounded.seconds == pytest.approx(bound + max(bound, 10**9 / V5E.peak))
    assert [x.flops for x in bounded.operations] == [0, 10**9]
    measured = Kernel(name="k", flops=10**9, steps=3, once=30, step=Block(900, 990, 0))
    found = roofline(made, slice_((1, 1, 1)), {"k": measured})
    assert found.unmeasured_kernels == 0
    assert found.seconds == pytest.approx(bound + 3_000 / V5E.clock)
    assert {how: one["operations"] for how, one in found.known().items() if one["operations"]} == {
        "bounded": 1,
        "kernel": 1,
    }


@pytest.mark.parametrize(
    ("op_name", "line", "phase"),
    [
        ("jit(step)/jvp()/while/body/closed_call/norm/mul", "norms", "forward"),
        ("jit(step)/transpose(jvp())/while/body/closed_call/checkpoint/norm/mul", "norms", "backward"),
        (
            "jit(step)/transpose(jvp(x))/checkpoint/rematted_computation/feed_forward/dropout/xor",
            "dropout",
            "recomputed",
        ),
        ("jit(step)/jvp()/while/body/attention/BTNH,BSNH->BNTS/dot_general", "attention: scores", "forward"),
        ("jit(step)/jvp()/while/body/dynamic_update_slice", "stacking of residuals", "forward"),
        ("jit(step)/optimizer/sqrt", "optimizer", "outside"),
        ("jit(step)/jvp()/while/body/attention/flash/pallas_call", "kernel flash", "forward"),
        ("jit(step)/jvp()/add", "residual stream and other elementwise", "forward"),
        ("jit(step)/jvp()/dot_general", "other products", "forward"),
    ],
)
def test_lines_of_the_model(op_name, line, phase):
    assert (line_of(op_name, "fusion"), phase_of(op_name)) == (line, phase)
    assert line_of(op_name, "copy") == "layout copies"
