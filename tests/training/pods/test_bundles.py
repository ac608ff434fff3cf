"""The schedule of an operation read, its loops apart, and replayed with the matrix units' rate; tests/tpu/test_flash.py
has those of kernels."""

import pytest

from training.pods.bundles import Block, read_schedule, replay


def product(unit: int, kind: str = "bf16") -> str:
    return f" 0x1 : > {{ %1 = vmatmul.{kind}.gmra.mxu{unit} %v1 }}"


NOTHING = " 0x1 : > { %v1 = vadd.f32 %v2, %v3 }"


def test_bundles_without_products_take_a_cycle_each():
    assert replay([NOTHING] * 7) == 7


@pytest.mark.parametrize("kind, rows", [("bf16", 16), ("f32", 8), ("lmr.bf16", 8), ("mubr.bf16", 8)])
def test_products_of_one_unit_wait_for_each_other_and_those_of_four_do_not(kind, rows):
    """The last two are still in the queue when the last bundle is issued."""
    assert replay([product(0, kind)] * 100) == 97 * rows + 2 + rows - 1
    assert replay([product(n % 4, kind) for n in range(4)]) == 4
    many = [product(n % 4, kind) for n in range(400)]
    assert abs(replay(many) - 100 * rows) <= 3 * rows


def test_products_far_apart_wait_for_nothing():
    assert replay(([product(0)] + [NOTHING] * 15) * 10) == 160


TEXT = """
 0x0   : {  %1 = nop }
 0x1 LB: > { %2 = vld [vmem:[#allocation2_spill]]  ;;
   %3 = vld }
 0x2 LB: >> { %4 = vst [vmem:[#allocation3_spill] sm:$0xff] %v4 }
 0x3   : > { %5 = vrcp (%p1) }
 0x4   : >> { %6 = vst }
 0x5   : > { %7 = vst [vmem:[#allocation3_spill] sm:$0xff] %v4  ;;
   %8 = vst [vmem:[#allocation4_spill] sm:$0xff] %v4 }
 0x6   : {  %9 = nop }
"""


def test_a_loop_is_from_its_begin_to_its_last_bundle():
    once, step, loops = read_schedule(TEXT)
    assert (once, step, loops) == (Block(2, 2, 0), Block(2, 2, 2), [Block(3, 3, 1)])
    two = read_schedule(TEXT + TEXT)
    assert two.loops == loops * 2 and two.step == Block(4, 4, 4)


def test_without_loops_all_is_the_step_and_what_is_outside_of_it():
    assert read_schedule(TEXT.replace(">>", ">").replace("0x2 LB", "0x2   ")) == (Block(2, 2, 0), Block(5, 5, 3), [])
    assert read_schedule("") == (Block(0, 0, 0), Block(0, 0, 0), [])


@pytest.mark.parametrize("text", [TEXT.replace("0x4   : >>", "0x4   : >>>"), TEXT.replace("0x2 LB", "0x2   ")])
def test_loops_in_loops_and_loops_without_a_beginning_are_not_read(text):
    assert read_schedule(text) is None
