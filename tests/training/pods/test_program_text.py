"""What a compiled program's text says, read back: the texts are libtpu's own."""

import pytest

from tests.training.pods.programs import LAYERS, PRODUCT, program
from training.pods.program_text import arrays, read_program


def test_the_compilers_cost_and_the_line_of_the_model():
    (fusion,) = [x for x in PRODUCT.entry if x.opcode == "fusion"]
    assert fusion.cycles == 1_083_068 and fusion.op_name == "jit(<lambda>)/dot_general" and fusion.is_root
    assert fusion.operands == ("copy-done", "b.1") and fusion.called["calls"] == ("fused_computation",)
    assert [x.opcode for _, x in PRODUCT.inside(fusion)].count("convolution") == 1
    assert PRODUCT.entry.instructions["copy-start"].cycles is None


def test_loops_run_as_often_as_their_condition_says():
    loops = [x for x in LAYERS.entry if x.opcode == "while"]
    assert [LAYERS.trips(LAYERS.entry, x) for x in loops] == [6, 6]
    assert all(LAYERS.called(x, "body")[0].root.opcode == "tuple" for x in loops)


@pytest.mark.parametrize("first", [0, 1])
def test_a_loops_first_turn_may_stand_before_it(first):
    inside = """%body (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  ROOT %p = (f32[8], s32[]) parameter(0)
}

%condition (p: (f32[8], s32[])) -> pred[] {
  %p = (f32[8], s32[]) parameter(0)
  %n = s32[] constant(12)
  %i = s32[] get-tuple-element(%p), index=1
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

"""
    made = program(
        "%a = f32[8] parameter(0)",
        f"%begin = s32[] constant({first})",
        "%copy = s32[] copy(%begin)",
        "%given = (f32[8], s32[]) tuple(%a, %copy)",
        "ROOT %w = (f32[8], s32[]) while(%given), condition=%condition, body=%body",
        computations=inside,
    )
    loop = made.entry.root
    assert (made.trips(made.entry, loop), made.limit(loop)) == (12 - first, 12)


def test_arrays_are_filled_up_to_tiles():
    one, two, three = arrays(
        "(bf16[4,160]{1,0:T(8,128)(2,1)S(1)}, f32[10]{0:T(1024)}, /*index=2*/pred[3,64]{0,1:T(8,128)})"
    )
    assert (one.bytes, two.bytes, three.bytes) == (8 * 256 * 2, 1024 * 4, 128 * 64)
    assert (one.in_hbm, two.in_hbm) == (False, True)
    (plain,) = arrays("s32[]")
    assert plain.bytes == 4


def test_a_kernels_attributes_may_have_lines_of_their_own():
    read = program(
        "%a = f32[8]{0} parameter(0)",
        '%k = f32[8]{0} custom-call(%a), custom_call_target="tpu_custom_call", backend_config={"body":"module {',
    )
    assert [x.opcode for x in read.entry] == ["parameter", "custom-call"]
    text = "HloModule m\n\nENTRY %e (a: f32[]) -> f32[] {\n  %a = f32[] custom-call(), b={\n}, c={\n}}\n"
    text += "  ROOT %b = f32[] add(%a, %a)\n}\n"
    assert [*read_program(text).entry.instructions] == ["a", "b"]
    assert read_program(text).entry.users["a"] == [read_program(text).entry.root]


def test_a_computation_of_other_cores_ends_too():
    text = "HloModule m\n\n%look (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}, "
    text += 'execution_thread="sparsecore"\n'
    text += "\nENTRY %e (a: f32[]) -> f32[] {\n  ROOT %a = f32[] parameter(0)\n}\n"
    read = read_program(text)
    assert [*read.computations] == ["look", "e"] and [*read.entry.instructions] == ["a"]


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        read_program("module @jit_step {\n}")
