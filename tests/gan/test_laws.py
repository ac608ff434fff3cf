"""The distances that laws claim, against exact transport and against their own potentials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan import image_laws, laws, named
from gan.metric import lengths
from gan.transport import exact_plan, exact_w1
from training.files.errors import DataError
from training.files.images import Images

ALIKE = Images(np.ones((5, 2, 2, 1), np.float32), np.zeros(5, np.int32))
PICTURES = Images(np.random.default_rng(0).random((30, 3, 7, 3), np.float32), np.zeros(30, np.int32))
KNOWN = {
    "shift": laws.shift(3, 2.0),
    "scale": laws.scale(2),
    "shells": laws.shells(3),
    "a point and a sphere": laws.shells(2, 1.0, 0.0),
    "mixture": laws.mixture_on_a_line(),
    "null": laws.with_null_dimensions(laws.shells(1, 3.0, 0.5), 2),
    "funnels": laws.min_funnel(2, 4),
    "marked": image_laws.marked(PICTURES),
}


@pytest.mark.parametrize("name", KNOWN)
def test_claims(name):
    law = KNOWN[name]
    x, y = (np.asarray(z) for z in law.sample(jax.random.key(0), 1000))
    assert exact_w1(x, y) == pytest.approx(law.w1, rel=0.12)
    if law.gradient is not None:
        steep = jnp.linalg.norm(law.gradient(x), axis=1)
        assert (jnp.abs(steep[steep > 0] - 1) < 1e-5).all() and (steep > 0).mean() > 0.95
    if law.potential is not None:  # an optimal critic reaches the distance, and its gradient is that
        told = law.potential(x).mean() - law.potential(y).mean()
        assert told == pytest.approx(law.w1, rel=0.12)
        found = jax.grad(lambda x: law.potential(x).sum())(jnp.asarray(x))
        np.testing.assert_allclose(found[steep > 0], law.gradient(x)[steep > 0], atol=1e-3)


@pytest.mark.parametrize("dimensions, count", [(2, 4), (2, 64), (16, 16), (128, 256)])
def test_funnels_move_points_along_rays(dimensions, count):
    """u falls by as much as a point moves, so the plan is optimal; moved points stay in the box."""
    a = laws.funnels_of(dimensions, count)
    y = jax.random.uniform(jax.random.key(1), (300, dimensions), minval=-laws.SIDE, maxval=laws.SIDE)
    x = laws.moved(y, a, 8)
    far = lengths(x - y)
    u = [laws.height(z, a) for z in (x, y)]
    np.testing.assert_allclose(u[1] - u[0], far, atol=2e-4)
    assert np.abs(x).max() <= laws.SIDE + 1e-5
    assert exact_plan(x, y).cost == pytest.approx(float(far.mean()), rel=1e-4)


@pytest.mark.parametrize("dimensions, count, published", [(2, 4, 0.82), (16, 4, 1.94), (128, 64, 1.04), (2, 256, 0.13)])
def test_funnels_have_the_published_distance(dimensions, count, published):
    assert laws.min_funnel(dimensions, count, samples=1 << 15).w1 == pytest.approx(published, rel=0.03)


def test_funnels_that_are_not_published():
    with pytest.raises(ValueError, match="not 3-4: give a seed for others"):
        laws.min_funnel(3, 4)
    assert 0 < laws.min_funnel(3, 5, seed=1, samples=1 << 12).w1 < 5


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda: laws.shift(0), "dimensions is 0"),
        (lambda: laws.shift(2, -1.0), "distance is -1"),
        (lambda: laws.scale(2, 1.0, 2.0), "large is 1.0: it must be 2 or more"),
        (lambda: laws.shells(2, 1.0, 2.0), "outer is 1.0"),
        (lambda: image_laws.squares(1), "side is 1"),
        (lambda: laws.toy("8gaussian"), "law '8gaussian': it must be one of 8gaussians"),
        (lambda: named.law_of("null:1", None), "null:1: shells 2:1 alone has 2 dimensions"),
        (lambda: image_laws.halves(ALIKE), "all images are one"),
        (lambda: image_laws.classes(ALIKE), "have one label"),
    ],
)
def test_laws_that_cannot_be(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()


def test_classes_are_halves_of_the_labels_there_are():
    images = Images(np.random.default_rng(0).random((9, 2, 2, 1), np.float32), np.repeat([5, 7, 9], 3).astype(np.int32))
    law = image_laws.classes(images)
    assert law.image == (2, 2, 1)
    assert law.w1 == pytest.approx(exact_w1(images.pixels[:6], images.pixels[6:]))


def test_points_of_two_files(tmp_path):
    """On a line exactly apart at any size; a file that changes is another law."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 1, 7000), rng.normal(0, 2, 6000)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "y.txt").write_text("\n".join(map(repr, y.tolist())))
    name = f"files:{tmp_path / 'x.npy'}:{tmp_path / 'y.txt'}"
    law = named.law_of(name, None)
    assert law.dimensions == 1 and law.w1 == pytest.approx(exact_w1(x[:, None], y[:, None]), rel=1e-12)
    drawn = [np.asarray(z) for z in law.sample(jax.random.key(0), 50)]
    for points, among in zip(drawn, (x, y), strict=True):
        assert points.shape == (50, 1) and np.isin(points[:, 0], np.float32(among)).all()
    named.file_name.cache_clear()
    before = named.file_name(name)
    assert before.startswith("files-x-y-") and named.file_name("funnels:2:4") == "funnels-2-4"
    np.save(tmp_path / "x.npy", x + 1)
    named.file_name.cache_clear()
    assert named.file_name(name) != before
    (tmp_path / "y.txt").write_text("1, 2\n3 4\n")
    np.save(tmp_path / "x.npy", np.eye(2))
    assert named.law_of(name, None).w1 == exact_w1(np.eye(2), np.array([[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1 2\n3\n", "line 2: 1 numbers, where line 1 has 2"),
        ("a b\n", "line 1: 'a b' is not numbers, apart by spaces or commas; remove a line of names"),
        ("", r"an array \(0, 1\)"),
        ("1\nnan\n", "no finite number in point 1"),
        ("1 2 3\n", "1 dimensions, .* 3: they must have as many"),
        (None, "No such file"),
    ],
)
def test_files_that_hold_no_points(tmp_path, text, expected):
    np.save(tmp_path / "x.npy", np.arange(3.0))
    if text is not None:
        (tmp_path / "y.txt").write_text(text)
    with pytest.raises(DataError, match=expected):
        named.law_of(f"files:{tmp_path / 'x.npy'}:{tmp_path / 'y.txt'}", None)


def test_a_law_is_its_keys_alone():
    law = KNOWN["funnels"]
    for first, again in zip(law.sample(jax.random.key(3), 9), law.sample(jax.random.key(3), 9), strict=True):
        np.testing.assert_array_equal(first, again)
