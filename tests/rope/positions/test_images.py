"""Golden directions, sections of axes and normalised coordinates, against their formulas in float64 and their laws."""

import itertools

import jax
import numpy as np
import pytest
from scipy.stats import norm

from rope.positions.angles import axial_frequencies, frequencies, grid
from rope.positions.golden import golden_directions, golden_frequencies, golden_ratio
from rope.positions.normalised import TURN, augmented, normalised
from rope.positions.rotary import rotate, rotation
from rope.positions.sections import section_axes, section_frequencies, sequence_positions

turned = jax.jit(lambda x, places, theta: rotate(x, rotation(places, theta)))
GOLDEN3 = np.asarray(golden_frequencies(3, 10, 3))
SECTIONS = {
    name: np.asarray(section_frequencies(14, (3, 2, 2), "100^-t", interleaved=name == "interleaved"))
    for name in ("in turn", "interleaved")
}


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_golden_directions_follow_their_formula_and_are_even(axes):
    ratio = golden_ratio(axes)
    assert ratio ** (axes + 1) == pytest.approx(ratio + 1, rel=1e-14)
    ours = golden_directions(2000, axes)
    for i in (1, 7, 2000):
        wanted = norm.ppf([(i * ratio**-a) % 1 for a in range(1, axes + 1)])
        np.testing.assert_allclose(ours[i - 1], wanted / np.sqrt((wanted**2).sum()), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1)
    # As evenly spread as a sphere: no mean, and the same second moment along all axes.
    np.testing.assert_allclose(ours.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(ours.T @ ours / 2000, np.eye(axes) / axes, atol=0.02)
    drawn = np.random.default_rng(0).standard_normal((2000, axes))
    assert (
        axes == 1 or np.abs(ours.mean(0)).max() < np.abs((drawn / np.linalg.norm(drawn, axis=1)[:, None]).mean(0)).max()
    )


def test_golden_frequencies_are_directions_at_the_schedules_speed():
    ours, speed = GOLDEN3, np.asarray(frequencies(10, "10^-t"))
    assert ours.shape == (3, 3, 5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.broadcast_to(speed, (3, 5)), rtol=1e-6)
    np.testing.assert_allclose(ours[1, :, 2] / speed[2], golden_directions(15, 3)[7], atol=1e-6)
    with pytest.raises(ValueError, match="axes is 0"):
        golden_directions(3, 0)


@pytest.mark.parametrize("theta", [GOLDEN3, *SECTIONS.values()], ids=["golden", *SECTIONS])
def test_scores_see_differences_alone_and_cells_are_told_apart(theta):
    places, size = np.random.default_rng(0).uniform(-8, 8, (4, 3)).astype(np.float32), 2 * theta.shape[-1]
    query, key = np.random.default_rng(1).standard_normal((2, 4, 3, size)).astype(np.float32)

    def scores(places):
        return np.einsum("TNH,SNH->NTS", turned(query, places, theta), turned(key, places, theta))

    shift = np.array([[3, -1.5, 0.25]], np.float32)
    np.testing.assert_allclose(scores(places), scores(places + shift), atol=2e-4)
    assert np.abs(scores(places) - scores(2 * places)).max() > 0.1
    angle = np.einsum("ta,...af->...tf", np.asarray(grid(3, 4, 2)), theta).reshape(-1, 24, theta.shape[-1])
    points = np.exp(1j * angle)
    apart = np.abs(points[:, :, None] - points[:, None]).max((0, -1)) + 9 * np.eye(24)
    assert apart.min() > 0.03  # one cell at the slowest axis: 0.037


def test_sections_are_those_of_qwen2_vl_and_of_qwen3_vl():
    np.testing.assert_array_equal(section_axes((16, 24, 24)), [0] * 16 + [1] * 24 + [2] * 24)
    # Qwen3-VL begins with time everywhere, and writes height and width at every third place of 60.
    wanted = np.zeros(64, int)
    wanted[1:60:3], wanted[2:60:3] = 1, 2
    np.testing.assert_array_equal(section_axes((24, 20, 20), interleaved=True), wanted)
    theta = 1_000_000.0 ** -(np.arange(64) / 64)
    for interleaved in (False, True):
        sections = (24, 20, 20)
        ours = section_frequencies(128, sections, "1000000^-t", interleaved=interleaved)
        axes = section_axes(sections, interleaved)
        np.testing.assert_allclose(ours, np.where(np.arange(3)[:, None] == axes, theta, 0), rtol=2e-6)
        np.testing.assert_array_equal(np.bincount(axes), sections)


@pytest.mark.parametrize("theta", SECTIONS.values(), ids=SECTIONS)
def test_text_is_turned_as_by_positions_on_a_line(theta):
    x = np.random.default_rng(2).standard_normal((9, 2, 14)).astype(np.float32)
    alike = np.repeat(np.arange(9)[:, None], 3, 1)
    np.testing.assert_allclose(turned(x, alike, theta), turned(x, np.arange(9), frequencies(14, "100^-t")), atol=2e-6)


def test_a_sequence_counts_on_after_the_largest_coordinate():
    found = sequence_positions([2, (1, 2, 3), 1, (2, 1, 1), 0, 1])
    wanted = [[0] * 3, [1] * 3, *([2, 2 + r, 2 + c] for r, c in itertools.product(range(2), range(3))), [5] * 3]
    np.testing.assert_array_equal(found, [*wanted, [6, 6, 6], [7, 6, 6], [8] * 3])
    assert sequence_positions([]).shape == (0, 3)
    np.testing.assert_array_equal(sequence_positions([(1, 1, 2)]), [[0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda: section_axes(()), "give each axis its number of pairs"),
        (lambda: section_axes((3, -1)), "give each axis"),
        (lambda: section_axes((1, 4, 1), interleaved=True), "axis 1 would go beyond the last pair"),
        (lambda: section_frequencies(16, (3, 2, 2)), "7 pairs: a head of 16 has 8"),
    ],
)
def test_sections_that_cannot_be_are_refused(of, message):
    with pytest.raises(ValueError, match=message):
        of()


def test_an_images_edges_are_minus_one_and_one():
    ours = np.asarray(normalised(grid(3, 5), (3, 5))).reshape(3, 5, 2)
    for r, c in np.ndindex(3, 5):
        np.testing.assert_allclose(ours[r, c], [2 * (r + 0.5) / 3 - 1, 2 * (c + 0.5) / 5 - 1], atol=1e-6)
    # An image twice as large has the same angles between its patches' centres.
    fine = np.asarray(normalised(grid(6, 10), (6, 10))).reshape(3, 2, 5, 2, 2).mean((1, 3))
    np.testing.assert_allclose(fine, ours, atol=1e-6)
    theta = np.asarray(axial_frequencies(12, 2, "100^-t"))
    x = np.random.default_rng(3).standard_normal((15, 1, 12)).astype(np.float32)
    angle = 2 * np.pi * ours.reshape(15, 2).astype(np.float64) @ theta
    product = (x[:, 0, ::2] + 1j * x[:, 0, 1::2]) * np.exp(1j * angle)
    found = np.asarray(turned(x, TURN * ours.reshape(15, 2), theta))[:, 0]
    np.testing.assert_allclose(found[:, ::2] + 1j * found[:, 1::2], product, atol=2e-5)


def test_what_training_changes_of_coordinates():
    places, keys = np.asarray(normalised(grid(2, 3), (2, 3))), [jax.random.key(n) for n in range(300)]
    change = jax.jit(augmented, static_argnames=("shift", "jitter", "rescale"))
    np.testing.assert_array_equal(change(places, keys[0]), places)

    def lines(**options):
        """Of each draw how much each axis is stretched, and then moved: [300, 2, 2]."""
        found = np.stack([change(places, key, **options) for key in keys])
        slope = (found[:, -1] - found[:, 0]) / (places[-1] - places[0])
        np.testing.assert_allclose(found, found[:, :1] + slope[:, None] * (places - places[0]), atol=1e-5)
        return np.stack([slope, found[:, 0] - slope * places[0]], -1)

    stretch, move = np.moveaxis(lines(rescale=2.0), -1, 0)
    np.testing.assert_allclose(stretch[:, 0], stretch[:, 1], rtol=1e-5)  # both axes alike
    np.testing.assert_allclose(move, 0, atol=1e-6)
    stretch, _ = np.moveaxis(lines(jitter=1.5), -1, 0)
    assert np.abs(stretch[:, 0] - stretch[:, 1]).max() > 0.3
    for most, found in ((2.0, lines(rescale=2.0)), (1.5, lines(jitter=1.5))):
        logs = np.log(found[..., 0]) / np.log(most)
        assert -1.0001 < logs.min() < -0.95 and 0.95 < logs.max() < 1.0001 and abs(logs.mean()) < 0.1
    stretch, move = np.moveaxis(lines(shift=0.5), -1, 0)
    np.testing.assert_allclose(stretch, 1, atol=1e-5)
    assert -0.5 <= move.min() < -0.48 and 0.48 < move.max() <= 0.5 and np.abs(move[:, 0] - move[:, 1]).max() > 0.5
    both = lines(shift=0.5, rescale=2.0)  # moved first, then stretched with what it was moved by
    assert np.abs(both[..., 1] / both[..., 0]).max() <= 0.5001 and np.abs(both[..., 1]).max() > 0.6
    assert TURN == 2 * np.pi
