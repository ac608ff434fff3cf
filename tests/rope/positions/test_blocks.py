"""Rotations that do not commute: spheres and learned generators, against NumPy and SciPy in float64, and their laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from rope.layers.attention import attention
from rope.positions.angles import grid, mixed_frequencies
from rope.positions.blocks import BlockRotation
from rope.positions.blocks import turn_blocks as turn_by
from rope.positions.lie import exponential, lie_parameters, lie_rotation, skew
from rope.positions.rotary import rotate, rotation
from rope.positions.spherical import spherical_frequencies, spherical_rotation
from tests.rope.positions.reference import attention64

HEADS, SIZE = 3, 11  # three triplets, and two dimensions that are left
turn_blocks, spherical, lie = jax.jit(turn_by), jax.jit(spherical_rotation), jax.jit(lie_rotation)
THETA = np.asarray(spherical_frequencies(SIZE, "10^-t"))
LEARNED = np.asarray(lie_parameters(jax.random.key(0), HEADS, SIZE))
PLACES = np.random.default_rng(0).uniform(-6, 6, (5, 2)).astype(np.float32)
KINDS = {"spherical": lambda places: spherical(places, THETA), "lie": lambda places: lie(places, LEARNED)}


def about(axis: int, angle: float) -> np.ndarray:
    """exp of the angle times the generator of rotations about an axis of three."""
    others = [i for i in range(3) if i != axis]
    by = np.zeros((3, 3))
    by[others[1], others[0]], by[others[0], others[1]] = angle, -angle
    return expm(by)


def matrices(kind: str, places: np.ndarray) -> np.ndarray:
    """R of each position and head, [T, N, H, H], by what the code does to unit vectors."""
    unit = np.broadcast_to(np.eye(SIZE, dtype=np.float32)[:, None, None], (SIZE, len(places), HEADS, SIZE))
    return np.moveaxis(np.asarray(turn_blocks(unit, KINDS[kind](places)), np.float64), 0, -1)


def test_a_triplet_is_turned_about_one_axis_and_then_another():
    ours = matrices("spherical", PLACES)
    for t, g in np.ndindex(len(PLACES), SIZE // 3):
        a, b = PLACES[t] * THETA[:, g].astype(np.float64)
        np.testing.assert_allclose(
            ours[t, 0, 3 * g : 3 * g + 3, 3 * g : 3 * g + 3], about(2, a) @ about(0, b), atol=1e-5
        )
    np.testing.assert_array_equal(ours[:, :, 9:], np.broadcast_to(np.eye(SIZE)[9:], (5, HEADS, 2, SIZE)))
    np.testing.assert_array_equal(THETA[0], np.asarray(spherical_frequencies(9, "10^-t"))[1])


def test_generators_are_exponentiated():
    ours, by = matrices("lie", PLACES), np.triu(LEARNED, 1).astype(np.float64)[:, :, 0]
    by = by - by.swapaxes(-1, -2)
    np.testing.assert_array_equal(skew(jnp.asarray(LEARNED))[:, :, 0], by.astype(np.float32))
    for t, n in np.ndindex(len(PLACES), HEADS):
        np.testing.assert_allclose(ours[t, n], expm(PLACES[t, 0] * by[n, 0] + PLACES[t, 1] * by[n, 1]), atol=2e-5)
    fastest = np.abs(np.linalg.eigvals(by)).max(-1)
    assert 0.4 < fastest.min() and fastest.max() < 1.6


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0, 5.0, 7.5, 15.5, 200.0])
def test_an_exponential_is_right_of_any_norm(size):
    by = np.asarray(skew(np.random.default_rng(0).standard_normal((2, 3, 7, 7)).astype(np.float32))) / 4 * size
    found = jax.jit(exponential)(by)
    np.testing.assert_allclose(found, expm(by.astype(np.float64)), atol=1e-6 * (1 + size))
    with jax.enable_x64(True):
        wide = by.astype(np.float64)
        np.testing.assert_allclose(exponential(jnp.asarray(wide)), expm(wide), atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_rotations_which_tell_places_apart(kind):
    cells = np.asarray(grid(4, 5), np.float32)
    ours = matrices(kind, cells)
    np.testing.assert_allclose(
        ours @ ours.swapaxes(-1, -2), np.broadcast_to(np.eye(SIZE), (20, HEADS, SIZE, SIZE)), atol=2e-5
    )
    np.testing.assert_allclose(np.linalg.det(ours), 1, atol=1e-4)
    apart = np.abs(ours[:, None] - ours).max((2, 3, 4)) + 9 * np.eye(20)
    assert apart.min() > 0.05


def scores(kind: str, places: np.ndarray) -> np.ndarray:
    by = KINDS[kind](places.astype(np.float32))
    query, key = np.random.default_rng(1).standard_normal((2, len(places), HEADS, SIZE)).astype(np.float32)
    return np.einsum("TNH,SNH->NTS", turn_blocks(query, by), turn_blocks(key, by))


def test_on_spheres_differences_of_the_first_coordinate_are_all_that_scores_see_of_it():
    here = scores("spherical", PLACES)
    np.testing.assert_allclose(scores("spherical", PLACES + [[3.5, 0]]), here, atol=1e-4)
    assert np.abs(scores("spherical", PLACES + [[0, 3.5]]) - here).max() > 0.5


def test_generators_see_differences_along_a_line_through_the_origin_alone():
    line = np.arange(5)[:, None] * np.array([[0.5, -1.25]])
    np.testing.assert_allclose(scores("lie", line + [[1, -2.5]]), scores("lie", line), atol=1e-4)
    for shift in ([[1.5, 0]], [[0, 1.5]], [[1, 2.5]]):
        assert np.abs(scores("lie", line + shift) - scores("lie", line)).max() > 0.5


def test_generators_of_pairs_commute_and_are_mixed_rotary_positions():
    theta = np.asarray(mixed_frequencies(jax.random.key(2), HEADS, 8))  # [N, 2, 4]
    pairs = np.zeros((HEADS, 2, 4, 2, 2), np.float32)
    pairs[..., 0, 1] = -theta  # above the diagonal, as a turn has it
    x = np.random.default_rng(3).standard_normal((5, HEADS, 8)).astype(np.float32)
    ours = turn_blocks(x, lie(PLACES, pairs))
    np.testing.assert_allclose(ours, jax.jit(rotate)(x, rotation(PLACES, theta)), atol=2e-5)
    assert lie_parameters(jax.random.key(0), 2, 8, 3, 2).shape == (2, 3, 4, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_turns_by_them_as_by_hand(kind):
    x = np.random.default_rng(4).standard_normal((3, 2, 5, HEADS, SIZE)).astype(np.float32)
    by, turned = KINDS[kind](PLACES), matrices(kind, PLACES)
    query, key = (np.einsum("TNij,BTNj->BTNi", turned, a) for a in x[:2])
    wanted = attention64(query, key, x[2], scale=SIZE**-0.5)
    np.testing.assert_allclose(jax.jit(attention)(*x, rotation=by), wanted, atol=2e-5)
    for row in range(2):  # of each row its own, too
        rows = BlockRotation(jnp.stack([by.matrix, by.matrix]))
        np.testing.assert_allclose(jax.jit(attention)(*x, rotation=rows)[row], wanted[row], atol=2e-5)
    coarse = turn_blocks(x[0].astype(jnp.bfloat16), by)
    assert coarse.dtype == jnp.bfloat16


def test_what_a_position_becomes_is_no_matter_of_the_others():
    places = jnp.array([[1.0, 2.0], [700.0, 800.0]])
    alone, beside = (np.asarray(lie_rotation(x, LEARNED).matrix) for x in (places[:1], places))
    np.testing.assert_array_equal(beside[:1], alone)


@pytest.mark.parametrize(("of", "learned"), [(lie_rotation, LEARNED), (spherical_rotation, np.stack([THETA] * 3))])
def test_gradients_reach_what_is_learned(of, learned):
    cotangent = np.random.default_rng(5).standard_normal((5, HEADS, SIZE)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def objective(learned):
        return (turn_by(cotangent[::-1], of(PLACES, learned)) * cotangent).sum()

    gradient = np.asarray(objective(learned)[1])
    step = 2e-3 * np.random.default_rng(6).standard_normal(learned.shape).astype(np.float32)
    difference = (objective(learned + step)[0] - objective(learned - step)[0]) / 2
    np.testing.assert_allclose((gradient * step).sum(), difference, rtol=2e-2)
    assert np.abs(gradient).max() > 0.1


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda: spherical_frequencies(2), "the head size is 2"),
        (lambda: spherical_rotation(jnp.zeros((4, 3)), THETA), "spherical ones have 2 coordinates"),
        (lambda: lie_rotation(jnp.zeros((4, 3)), LEARNED), "the generators have 2 axes"),
        (lambda: lie_parameters(jax.random.key(0), 2, 9, block=2), "blocks of 2 dimensions for a head of 9"),
        (lambda: turn_by(jnp.zeros((4, 1, 6)), spherical_rotation(jnp.zeros((4, 2)), THETA)), "3 groups of 3"),
        (partial(attention, *jnp.zeros((3, 2, 4, 2, SIZE)), rotation=lie_rotation(jnp.zeros((4, 2)), LEARNED)), "3 h"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(of, message):
    with pytest.raises(ValueError, match=message):
        of()
