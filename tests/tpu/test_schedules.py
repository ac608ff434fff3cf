"""Operations are planned by what the compiler schedules, which its own estimate is far above."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from rope.layers.primitives import rms_norm
from training.pods.collectives import slice_of
from training.pods.compilation import compile_kept, one_chip
from training.pods.program_text import read_program
from training.pods.roofline import Operation, roofline
from training.pods.schedules import scheduled

ROWS = (32, 512, 768)  # a chip


def both(f, *shapes: tuple[int, ...]) -> list[tuple[Operation, float]]:
    """The operations of `f`, of bfloat16 arrays of these shapes on a chip of v5e, and the compiler's own estimates."""
    mesh = one_chip("v5e:2x2")
    here = NamedSharding(mesh, PartitionSpec())
    lowered = jax.jit(f).lower(*(jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=here) for s in shapes))
    compiled = compile_kept(lowered, mesh, {}, None)
    text = read_program(compiled.text)
    slice_ = slice_of(mesh)
    ours, theirs = (roofline(text, slice_, None, found) for found in (scheduled(text, compiled.schedules), None))
    estimates = {one.name: one.seconds for one in theirs.operations}
    pairs = [(one, estimates[one.name]) for one in ours.operations if one.seconds > 1e-6]
    for one, estimate in pairs:
        print(f"\n{one.line}, {one.how}: {1e6 * one.seconds:.0f} us, estimated {1e6 * estimate:.0f}", end="")
    return pairs


def test_a_norm_takes_what_hbm_does():
    pairs = both(lambda x: rms_norm(x, jnp.ones(ROWS[-1]), 1e-6), ROWS)
    assert {one.how for one, _ in pairs} == {"scheduled"}
    moved = sum(one.bytes for one, _ in pairs) / 819e9
    assert moved < sum(one.seconds for one, _ in pairs) < 1.3 * moved + 3e-5
    assert sum(estimate for _, estimate in pairs) > 2 * sum(one.seconds for one, _ in pairs)


def test_a_product_is_within_a_few_per_cent_of_the_estimate_and_above_its_bound():
    pairs = both(lambda x, w: x @ w, (4096, 4096), (4096, 4096))
    ((one, estimate),) = [pair for pair in pairs if pair[0].flops]
    assert 0.97 * estimate < one.seconds <= estimate
    assert 1 < one.seconds / (one.flops / 197e12) < 1.05
