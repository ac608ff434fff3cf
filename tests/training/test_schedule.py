"""The replay of a schedule by its laws; that of real kernels is in tests/tpu/test_flash.py."""

import pytest

from training.schedule import _loops_of, replay, schedule


def product(unit: int, kind: str = "bf16") -> str:
    return f" 0x1 : > {{ %1 = vmatmul.{kind}.gmra.mxu{unit} %v1 }}"


NOTHING = " 0x1 : > { %v1 = vadd.f32 %v2, %v3 }"


def test_bundles_without_products_take_a_cycle_each():
    assert replay([NOTHING] * 7) == 7


@pytest.mark.parametrize("kind, rows", [("bf16", 16), ("f32", 8)])
def test_products_of_one_unit_wait_for_each_other_and_those_of_four_do_not(kind, rows):
    """The last two are still in the queue when the last bundle is issued."""
    assert replay([product(0, kind)] * 100) == 97 * rows + 2 + rows - 1
    assert replay([product(n % 4, kind) for n in range(4)]) == 4
    many = [product(n % 4, kind) for n in range(400)]
    assert abs(replay(many) - 100 * rows) <= 3 * rows


def test_products_far_apart_wait_for_nothing():
    assert replay(([product(0)] + [NOTHING] * 15) * 10) == 160


def test_what_does_not_compile_is_refused_with_the_compilers_words():
    with pytest.raises(ValueError, match="no schedule for v0:1x1: "):
        schedule(abs, topology="v0:1x1")


def test_a_loop_is_from_its_begin_to_its_last_bundle():
    text = """
 0x0   : {  %1 = nop }
 0x1 LB: > { %2 = vld [vmem:[#allocation2_spill]]  ;;
   %3 = vld }
 0x2 LB: >> { %4 = vst }
 0x3   : > { %5 = vrcp (%p1) }
 0x4   : >> { %6 = vst }
 0x5   : > { %7 = vst }
 0x6   : {  %8 = nop }
"""
    outside, loops = _loops_of(text)
    assert [len(outside), *map(len, loops)] == [2, 3] and "%3" in outside[0] and "%5" in loops[0][1]
    flat, none = _loops_of(text.replace(">>", ">").replace("0x2 LB", "0x2   "))
    assert len(flat) == 5 and none == []
