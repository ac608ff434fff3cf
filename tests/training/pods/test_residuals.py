"""What a loop stacks for a later loop counts as saved; weights that go through both, and what nobody reads, do not."""

import pytest

from tests.training.pods.programs import LAYERS
from training.pods.program_text import read_program
from training.pods.residuals import saved_bytes

STACK = "f32[6,8,128]{2,1,0:T(8,128)}"
TUPLE = f"({STACK}, {STACK}, {STACK})"
TEXT = f"""HloModule made

%trips (p: {TUPLE}) -> pred[] {{
  %p = {TUPLE} parameter(0)
  %six = s32[] constant(6)
  ROOT %less = pred[] compare(%six, %six), direction=LT
}}

%forward (p: {TUPLE}) -> {TUPLE} {{
  %p = {TUPLE} parameter(0)
  %weights = {STACK} get-tuple-element(%p), index=0
  %saved = {STACK} get-tuple-element(%p), index=1
  %written = {STACK} negate(%saved)
  %unread = {STACK} negate(%weights)
  ROOT %t = {TUPLE} tuple(%weights, %written, %unread)
}}

ENTRY %main (p: {TUPLE}) -> {TUPLE} {{
  %p = {TUPLE} parameter(0)
  %w = {TUPLE} while(%p), condition=%trips, body=%forward
  %a = {STACK} get-tuple-element(%w), index=0
  %b = {STACK} get-tuple-element(%w), index=1
  %c = {STACK} get-tuple-element(%w), index=2
  %d = {STACK} copy(%b)
  %again = {TUPLE} tuple(%a, %d, %a)
  ROOT %v = {TUPLE} while(%again), condition=%trips, body=%forward
}}
"""


@pytest.mark.parametrize(("layout", "arrays"), [("", 1), ("S(1)", 0)])
def test_stacked_by_one_loop_and_read_by_the_next(layout, arrays):
    text = TEXT.replace("T(8,128)", f"T(8,128){layout}")
    assert saved_bytes(read_program(text)) == arrays * 4 * 6 * 8 * 128


def test_what_stays_in_the_core_takes_no_hbm():
    assert saved_bytes(LAYERS) == 0
