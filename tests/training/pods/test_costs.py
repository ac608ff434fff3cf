"""FLOPs and bytes of operations, against what the shapes say."""

from tests.training.pods.programs import LAYERS, PRODUCT, program
from training.pods.costs import copied_bytes, flops, hbm_bytes


def test_a_products_flops_and_bytes():
    (fusion,) = [x for x in PRODUCT.entry if x.opcode == "fusion"]
    assert flops(PRODUCT, PRODUCT.entry, fusion) == 2 * 4096**3
    matrix = 2 * 4096**2
    assert hbm_bytes(PRODUCT, PRODUCT.entry, fusion) == 2 * matrix  # the other operand was copied to the core before


def test_products_of_a_batch_are_convolutions_with_padding():
    made = program(
        "%a = bf16[3,4,16,32] parameter(0)",
        "%b = bf16[3,4,24,32] parameter(1)",
        "ROOT %c = f32[3,4,16,24] convolution(%a, %b), "
        "window={size=3x4 stride=2x3 pad=0_0x0_0 lhs_dilate=3x4}, dim_labels=01bf_01oi->01bf",
    )
    assert flops(made, made.entry, made.entry.root) == 2 * 3 * 4 * 16 * 24 * 32
    dot = program(
        "%a = bf16[3,16,32] parameter(0)",
        "%b = bf16[3,32,24] parameter(1)",
        "ROOT %c = f32[3,16,24] dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
        "rhs_contracting_dims={1}",
    )
    assert flops(dot, dot.entry, dot.entry.root) == 2 * 3 * 16 * 24 * 32


def test_a_convolution_counts_no_padding():
    made = program(
        "%a = bf16[2,8,8,3] parameter(0)",
        "%b = bf16[3,3,3,5] parameter(1)",
        "ROOT %c = f32[2,8,8,5] convolution(%a, %b), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
    )
    met = (8 * 3 - 2) ** 2  # of 8 x 3 places in each dimension, one at either end falls outside
    assert flops(made, made.entry, made.entry.root) == 2 * 2 * 3 * 5 * met


def test_of_a_slice_in_place_only_the_slice_moves():
    stack = """%update (p: f32[6,8,128], q: f32[8,128], n: s32[]) -> f32[6,8,128] {
  %p = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)
  %q = f32[8,128]{1,0:T(8,128)} parameter(1)
  %n = s32[] parameter(2)
  %r = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%q)
  ROOT %u = f32[6,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%p, %r, %n, %n, %n)
}

"""
    made = program(
        "%a = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)",
        "%b = f32[8,128]{1,0:T(8,128)} parameter(1)",
        "%n = s32[]{:S(2)} parameter(2)",
        "ROOT %f = f32[6,8,128]{2,1,0:T(8,128)} fusion(%a, %b, %n), kind=kLoop, calls=%update",
        computations=stack,
    )
    assert hbm_bytes(made, made.entry, made.entry.root) == 2 * 4 * 8 * 128


def test_a_collective_carried_along_moves_nothing_for_the_operation():
    """As libtpu writes a gather that runs beside a product: its arrays pass through the product's fusion."""
    carried = """%both (x: f32[8,128], w: f32[4,128]) -> (f32[8,128], f32[4,128], f32[8,128], u32[]) {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %y = f32[8,128]{1,0:T(8,128)} negate(%x)
  %w = f32[4,128]{1,0:T(8,128)} parameter(1)
  %g = f32[8,128]{1,0:T(8,128)} all-gather(%w), dimensions={0}
  %s = u32[]{:S(2)} parameter(2)
  ROOT %t = (f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) tuple(%y, %w, \
%g, %s)
}

"""
    made = program(
        "%a = f32[8,128]{1,0:T(8,128)} parameter(0)",
        "%b = f32[4,128]{1,0:T(8,128)} parameter(1)",
        "%c = u32[]{:S(2)} parameter(2)",
        "ROOT %f = (f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) "
        "fusion(%a, %b, %c), kind=kOutput, calls=%both",
        computations=carried,
    )
    assert hbm_bytes(made, made.entry, made.entry.root) == 2 * 4 * 8 * 128


def test_a_programs_flops_are_what_the_model_says():
    from tests.training.pods.programs import slice_
    from training.pods.roofline import roofline

    of_layers = 2 * 6 * 8 * 128 * 512 * 512  # the products of one pass through six layers
    of_attention = 2 * 8 * 4 * 128 * 128 * 128
    # Forward, once more, and backward in x and in w; of attention no gradient is asked for.
    found = sum(x.flops for x in roofline(LAYERS, slice_((2, 2, 1))).operations)
    assert found == 4 * of_layers + 2 * of_attention


def test_a_copy_beside_the_operations_moves_its_slice():
    made = program(
        "%a = f32[8,8,128]{2,1,0:T(8,128)} parameter(0)",
        "%s = ((f32[8,8,128]{2,1,0:T(8,128)}), f32[2,8,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%a), "
        "slice={[0:2], [0:8], [0:128]}",
        "%d = f32[2,8,128]{2,1,0:T(8,128)S(1)} slice-done(%s)",
        "%c = (f32[8,8,128]{2,1,0:T(8,128)}, f32[8,8,128]{2,1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)",
        "ROOT %e = f32[8,8,128]{2,1,0:T(8,128)} copy-done(%c)",
    )
    start = made.entry.instructions
    assert copied_bytes(made.entry, start["s"]) == 4 * 2 * 8 * 128
    assert copied_bytes(made.entry, start["c"]) == 2 * 4 * 8 * 8 * 128  # read and written


def test_rows_that_other_cores_look_up_are_read_and_written():
    made = program(
        "%t = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)",
        "%n = s32[8]{0} parameter(1)",
        '%s = ((), (), s32[8]{0}) async-start(), async_execution_thread="sparsecore", calls=%look',
        "%u = ((bf16[64,128]{1,0}, s32[8]{0}), bf16[8,128]{1,0}, s32[8]{0}) async-update(%s, %t, %n)",
        "ROOT %d = bf16[8,128]{1,0:T(8,128)(2,1)} async-done(%u)",
    )
    assert copied_bytes(made.entry, made.entry.instructions["s"]) == 2 * 2 * 8 * 128
