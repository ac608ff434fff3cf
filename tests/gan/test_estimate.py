"""What is said of two files: bounds that no points, potentials or plans break, and a command that goes on."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan.bounds import ascended, couplings, lengths, lower, mean
from gan.experiments import estimate
from gan.experiments import estimate_cells as cells
from gan.experiments.estimate import EstimateConfig, read_both
from gan.experiments.estimate_cells import Points
from gan.experiments.estimate_report import Facts, extrapolated, fitted, limits
from gan.files import read_cloud
from gan.laws import clouds
from gan.transport import exact_w1, sinkhorn
from tests.listening import listening
from training.experiment.statistics import Estimate
from training.files.errors import DataError

pytestmark = pytest.mark.usefixtures("one_device")


@st.composite
def samples(draw):
    """Two samples of few points, perhaps of unequal sizes, on a line, with repeats, far from 0, or tiny."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, m, dimensions = draw(st.integers(1, 14)), draw(st.integers(1, 14)), draw(st.sampled_from([1, 2, 5]))
    x, y = rng.normal(size=(n, dimensions)), rng.normal(size=(m, dimensions)) + rng.normal()
    if draw(st.booleans()):
        x, y = np.round(x), np.round(y)
    scale, offset = draw(st.sampled_from([1e-9, 1.0, 1e6])), draw(st.sampled_from([0.0, 1.0, 1e5]))
    return scale * (x + offset), scale * (y + offset), rng


@settings(max_examples=150, deadline=None)
@given(samples(), st.sampled_from([0.0, 0.1, 1.0, 100.0]))
def test_the_exact_distance_is_between_the_bounds(both, steep):
    """Whatever the potential; and each plan is no dearer than the one before, with all mass where it belongs."""
    x, y, rng = both
    exact = exact_w1(x, y)
    spread = max(np.ptp(x), np.ptp(y), 1e-30)
    slack = 1e-12 * max(np.abs(x).max(), np.abs(y).max())  # of what is exact
    on_x, on_y = (steep * spread * rng.normal(size=len(z)) for z in (x, y))
    assert lower(x, y, on_x, on_y) <= exact + slack
    better = lower(x, y, *ascended(x, y, on_x, exact, passes=5))
    assert lower(x, y, on_x, np.full(len(y), 1e30)) - slack <= better <= exact + slack
    before = np.inf
    for plan in islice(couplings(x, y, block=6), 5):
        cost = plan.cost(x, y)
        assert exact - slack <= cost <= before * (1 + 1e-6) + slack
        before = cost
        for place, z, other in ((plan.source, x, y), (plan.target, y, x)):
            at = np.bincount(place, plan.units, len(z))
            assert (at == len(other) // np.gcd(len(x), len(y))).all()


@settings(max_examples=50, deadline=None)
@given(samples())
def test_a_transform_loses_nothing_of_a_potential_of_slope_1(both):
    x, y, rng = both
    lines = rng.normal(size=(x.shape[1], 4))
    lines /= np.maximum(np.linalg.norm(lines, axis=0, keepdims=True), 1e-300)
    on_x, on_y = ((z @ lines).max(1) for z in (x, y))
    size = max(np.abs(x).max(), np.abs(y).max())
    assert mean(on_x) - mean(on_y) <= lower(x, y, on_x, on_y) + 1e-6 * size


@pytest.mark.parametrize(
    ("x", "y", "on_x", "on_y", "told"),
    [
        (np.zeros(3), np.zeros((2, 1)), np.zeros(3), np.zeros(2), r"points of shapes \(3,\) and \(2, 1\)"),
        (np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(3), np.zeros(2), r"\[n, D\] and \[m, D\] are needed"),
        (np.zeros((3, 1)), np.zeros((2, 1)), np.zeros((3, 1)), np.zeros(2), r"shapes \(3, 1\) and \(2,\): \[3\] and"),
        (np.zeros((3, 1)), np.zeros((2, 1)), np.zeros(3), np.zeros(3), r"\[3\] and \[2\], one a point"),
        (np.zeros((3, 1)), np.zeros((2, 1)), np.full(3, np.nan), np.zeros(2), "no finite numbers"),
    ],
)
def test_what_is_no_potential_of_the_points_is_refused(x, y, on_x, on_y, told):
    with pytest.raises(ValueError, match=told) as found:
        lower(x, y, on_x, on_y)
    assert "\n" not in str(found.value)


def test_one_block_of_all_is_the_best_plan():
    rng = np.random.default_rng(0)
    for n, m in ((40, 40), (30, 20)):
        x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
        *_, plan = islice(couplings(x, y, block=1000), 2)
        assert plan.cost(x, y) == pytest.approx(exact_w1(x, y), rel=1e-9)


def test_more_rounds_come_near_to_the_best_plan():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 4)), rng.normal(size=(600, 4)) * 2
    costs = [plan.cost(x, y) for plan in islice(couplings(x, y, block=100), 12)]
    assert costs[0] > 1.5 * costs[-1] and costs[-1] < 1.03 * exact_w1(x, y)


def test_an_ascent_comes_near_to_the_exact_distance():
    rng = np.random.default_rng(0)
    for n, m in ((300, 300), (300, 200)):
        x, y = rng.normal(size=(n, 8)), rng.normal(size=(m, 8)) + 0.3
        exact, still = exact_w1(x, y), np.zeros(n)
        begin, end = (lower(x, y, *ascended(x, y, still, 1.02 * exact, passes)) for passes in (1, 30))
        assert begin < 0.98 * exact and 0.995 * exact < end <= exact


def known() -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Points of which W1 is known: (x, y, W1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    images = rng.random((60, 36)) / 2
    stretched = 2 * x[rng.permutation(300)]  # along rays, whose potential is the length
    return {
        "points moved": (x, x[::-1] + np.array([0, 3, 0, 4, 0]), 5.0),
        "images made brighter": (images, images + 0.25, 0.25 * 6),
        "points stretched": (stretched, x, float(lengths(x).mean())),
        "repeats": (np.repeat(x, 2, 0), x + 1, 5**0.5),
        "one point": (x[:1], x[:1] + 2, 2 * 5**0.5),
    }


@pytest.mark.parametrize("name", known())
def test_where_the_truth_is_known(name):
    """All that is called a bound is one, and the best two are not far apart."""
    x, y, truth = known()[name]
    points, over = Points(x, y), cells.Sinkhorn(100, 0.05, 500)
    rows = [
        *cells.exact(points),
        *cells.untrained(points),
        *cells.plans(points, block=100, rounds=8),
        *cells.sinkhorn(points, over=over),
        *cells.ascent(points, over=over, passes=10, block=100, rounds=8),
        *cells.critic(points, "ortho", steps=40, batch=32, hidden=(16,), held_out=0.2),
        *cells.critic(points, "wc:bound=1", steps=10, batch=32, hidden=(16,), held_out=0.2),
    ]
    kinds = {one["what"]: one["kind"] for one in rows}
    assert kinds["ortho"] == kinds["wc:bound=1, transformed"] == "lower" and kinds["wc:bound=1"] == "none"
    for one in (one for one in rows if one["of"] == "files"):
        if one["kind"] == "lower":
            assert one["value"] <= truth * (1 + 1e-9), one
        if one["kind"] in ("upper", "exact"):
            assert one["value"] >= truth * (1 - 1e-9), one
    low, high = limits([one for one in rows if one["kind"] != "exact"], "files")
    assert 0.9 * truth < low["bound"] <= truth * (1 + 1e-9) <= high["bound"] * (1 + 2e-9) < 1.15 * truth


def test_what_a_critic_is_trained_on_is_of_no_point_held_out(monkeypatch):
    given, held = [], [np.random.default_rng(seed).permutation(20)[:4] for seed in (0, 1)]
    monkeypatch.setattr(cells, "clouds", lambda name, *seen: given.append(seen) or clouds(name, *seen))
    for moved in (0.0, 9.0):
        points = Points(*np.random.default_rng(3).normal(size=(2, 20, 3)))
        for z, rows in zip(points, held, strict=True):
            z[rows] += moved
        cells.critic(points, "wc", steps=1, batch=4, hidden=(4,), held_out=0.2)
    np.testing.assert_array_equal(*given)


def test_what_has_not_converged_is_said():
    rng = np.random.default_rng(0)
    points = Points(rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) + 2)
    for iterations, told in ((1, r"not converged: [\d.]+% of the mass"), (2000, r"; converged$")):
        (divergence, potential) = cells.sinkhorn(points, over=cells.Sinkhorn(40, 0.05, iterations))
        assert re.search(told, divergence["note"]) and divergence["kind"] == "other"
        assert potential["value"] <= exact_w1(*points)  # whether it has or not
    assert 0.9 * exact_w1(*points) < potential["value"]
    assert divergence["value"] == pytest.approx(float(sinkhorn(*points, epsilon=0.05)["debiased"]), abs=2e-3)


def test_sliced_is_at_most_w1_and_on_a_line_it():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(31, 3)) + 1
    (told,) = cells.sliced(Points(x, y), directions=20)
    assert told["low"] < told["value"] < exact_w1(x, y) and told["kind"] == "other"
    (line,) = cells.sliced(Points(x[:, :1], y[:, :1]), directions=20)
    assert line["value"] == pytest.approx(exact_w1(x[:, :1], y[:, :1]), rel=1e-12)


def test_no_point_is_in_two_subsets():
    """So that draws are independent: of 100 points there are five subsets of 20, and not nine."""
    parts = cells._subsets(100, 20, 9, 0)
    assert len(parts) == 5 and len(np.unique(np.concatenate(parts))) == 100
    points = Points(np.arange(100.0)[:, None], np.arange(60.0)[:, None])
    (told,) = cells.subsets(points, count=20, draws=9)
    assert len(told["draws"]) == 3 and told["low"] < told["value"] == pytest.approx(np.mean(told["draws"]))


def test_an_extrapolation_finds_the_curve_that_it_is_of():
    rng = np.random.default_rng(0)
    sets = {n: (2 + 3 * n**-0.5 + 0.01 * rng.normal(size=5)).tolist() for n in (16, 64, 256, 1024)}
    fit = fitted(sets, (5000, 20_000), 8)
    for name, wanted in {"laws": 2, "files": 2 + 1.5 * (5000**-0.5 + 20_000**-0.5)}.items():
        assert fit[name].mean == pytest.approx(wanted, abs=0.05) and fit[name].low <= wanted <= fit[name].high
    assert fit["exponent"] == pytest.approx(0.5, abs=0.1)


def test_an_extrapolation_beyond_the_bounds_says_so():
    """Of points moved by 2 in 16 dimensions, subsets do not tell the limit from the exponent."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 16))
    points = Points(x, x + 2 * np.eye(16)[0][None])
    subsets = [one for n in (16, 64, 128) for one in cells.subsets(points, count=n, draws=3)]
    facts = Facts.of("x", "y", "16", *points)
    (of_laws,) = (one for one in extrapolated(subsets, facts) if one["what"] == "extrapolated")
    assert "beyond" not in of_laws["note"]
    for side, told in ((2.0, True), (of_laws["value"] / 2, False)):
        below = cells.row("f, held out", "lower", "laws", Estimate(side, side, side))
        *_, found = extrapolated([*subsets, below], facts)
        assert ("beyond the bounds of the laws, so the curve does not fit" in found["note"]) == told


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory's peak begins anew on Linux alone")
def test_memory_is_that_of_the_method_alone():
    idle = cells.measured(list)["memory"]
    busy = cells.measured(lambda: [] if np.ones(1 << 25).sum() else [])["memory"]
    assert busy - idle > 200 << 20 and cells.measured(list)["memory"] < busy - (200 << 20)


SMALL = EstimateConfig(
    critics=("ortho", "gp:weight=1"),
    steps=20,
    batch=16,
    hidden=(16,),
    points=(4, 8, 16, 32, 1000),
    draws=3,
    directions=8,
    sinkhorn=30,
    block=30,
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    np.save(folder / "x.npy", x)
    np.savetxt(folder / "y.csv", np.concatenate([x[:70], x[:1]]) + [3, 0, 4], delimiter=",")
    config = replace(SMALL, p=str(folder / "x.npy"), q=str(folder / "y.csv"), folder=str(folder / "run"))
    with listening() as told:
        estimate.estimate(config)
    return config, Path(config.folder), told[-1]


def test_what_the_command_leaves(ran):
    config, folder, told = ran
    found = json.loads((folder / "estimate.json").read_text())
    rows = {one["what"]: one for one in found["rows"]}
    exact = rows["exact"]["value"]
    assert exact == exact_w1(*read_both(config.p, config.q)[0])
    for one in (one for one in rows.values() if one["of"] == "files" and one["kind"] in ("lower", "upper")):
        assert (one["value"] - exact) * (1 if one["kind"] == "upper" else -1) >= -1e-9, one
    assert {"ortho, held out", "gp:weight=1, transformed", "extrapolated", "exact, 32 points"} <= rows.keys()
    assert "exact, 1,000 points" not in rows and rows["gp:weight=1"]["kind"] == "none"
    assert f"The files' points are {exact:.6g} apart, exactly." in told
    assert re.search(r"drawn from are, with 95 % each, at least [\d.]+ \(ortho, held out\) and at most [\d.]+", told)
    assert "no two alike" in told and "71 points of 3 numbers" in told and "1 of them repeats of others" in told
    table = list(csv.DictReader((folder / "estimate.csv").open()))
    assert len(table) == len(rows)
    assert all(float(one["seconds"]) > 0 and float(one["memory"]) > 1e8 for one in table if one["seconds"])
    assert "<script" not in (page := (folder / "report.html").read_text()) and "data:image/png" in page


def test_the_same_command_goes_on(ran, monkeypatch, said):
    config, folder, told = ran
    (folder / "cells" / "blocks.json").write_text("{}")
    (folder / "cells" / "critic-ortho.json").unlink()
    made, once = [], cells.measured
    monkeypatch.setattr(cells, "measured", lambda rows: made.append(rows.func.__name__) or once(rows))
    estimate.estimate(config)
    assert made == ["plans", "critic"]
    numbers = re.compile(r"\| [\d.]+ \| [\d.]+ GB \|")  # seconds and memory
    assert numbers.sub("", said[-1]) == numbers.sub("", told)
    with pytest.raises(DataError, match="its cells were made with steps 20, not 21"):
        estimate.estimate(replace(config, steps=21))
    np.save(folder.parent / "other.npy", np.ones((5, 3)))
    told = r"its cells were made with files x.npy and y.csv \(of digest \w+\), not other.npy and y.csv \(of digest"
    with pytest.raises(DataError, match=told):
        estimate.estimate(replace(config, p=str(folder.parent / "other.npy")))


def test_more_points_than_are_solved_exactly(ran, said):
    """The files are then between two bounds, and what subsets point to is an estimate of them, too."""
    config, folder, _ = ran
    estimate.estimate(replace(config, exact=0, folder=str(folder.parent / "bounded"), critics=("ortho",)))
    exact = exact_w1(*read_both(config.p, config.q)[0])
    told = re.search(r"files' points are at least ([\d.]+) \(ascent\) and at most ([\d.]+) \(blocks\)", said[-1])
    low, high = map(float, told.groups())
    assert 0.95 * exact < low <= exact * 1.0001 and exact <= high * 1.0001 < 1.05 * exact
    assert "extrapolated to all points" in said[-1] and "| exact |" not in said[-1].replace("| exact | exact |", "")


def test_more_pairs_than_are_passed_over(ran, monkeypatch, said):
    """A certified critic's bound is left, and a plan's."""
    config, folder, _ = ran
    monkeypatch.setattr(cells, "MOST_PAIRS", 10)
    estimate.estimate(replace(config, exact=0, folder=str(folder.parent / "many"), critics=("ortho",)))
    assert re.search(r"files' points are at least [\d.]+ \(ortho\) and at most [\d.]+ \(blocks\)", said[-1])
    assert not re.search("transformed|ascent|nearest|potential", said[-1])


@pytest.mark.parametrize("preset", estimate.PRESETS)
def test_presets_are_of_critics_that_can_be(preset):
    config = EstimateConfig(preset=preset, **estimate.PRESETS[preset])
    for name in config.critics:
        assert cells.made_critic(name, 784, config.hidden).potential


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"p": ""}, "--p is missing"),
        ({"q": "nowhere.npy"}, "nowhere.npy: "),
        ({"critics": ("gp:metric=l1",)}, "critic 'gp:metric=l1': it must have a potential, and be of l2"),
        ({"critics": ("exact",)}, "critics has 'exact'"),
        ({"points": (1,)}, "points has 1"),
        ({"held_out": 1.0}, "held_out is 1.0"),
    ],
)
def test_settings_that_cannot_be(ran, settings, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        estimate.estimate(replace(ran[0], **settings))


def test_bounds_hold_of_any_type_and_scale():
    """Bytes, which wrap; float32; numbers whose squares are none."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 50, 30)).astype(np.uint8)
    wanted = exact_w1(x, y)
    assert next(couplings(x, y, block=10)).cost(x, y) >= wanted
    near = rng.normal(size=(200, 1, 300)).astype(np.float32)
    for one in near:
        other = one + np.float32(1e-3) * rng.normal(size=one.shape).astype(np.float32)
        assert lower(one, other, np.zeros(1), np.zeros(1)) <= exact_w1(one, other)
    x, y = rng.normal(size=(2, 20, 3))
    for scale in (1e-170, 1e-160, 1e155):
        few = (x * scale, y * scale)
        below, above = lower(*few, np.zeros(20), np.zeros(20)), list(islice(couplings(*few, block=20), 2))[1].cost(*few)
        assert 0 < below <= exact_w1(*few) <= above * (1 + 1e-12) < math.inf


def test_points_of_other_shapes_are_refused_by_name(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 8, 8)))
    np.save(tmp_path / "b.npy", np.ones((4, 64)))
    with pytest.raises(DataError, match=r"a.npy has points of 8 x 8 x 1 numbers, .*b.npy of 64: they must be alike"):
        read_both(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    np.save(tmp_path / "c.npy", np.full((4, 64), 1e200))
    with pytest.raises(DataError, match=r"c.npy: a number above 1e100"):
        read_both(str(tmp_path / "b.npy"), str(tmp_path / "c.npy"))


def test_kinds_of_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 4, 6), np.uint8)
    wanted = (pixels / 255).astype(np.float32).reshape(5, 24)
    np.save(tmp_path / "images.npy", pixels)
    np.savez(tmp_path / "images.npz", images=pixels)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(np.array([0x803, 5, 4, 6], ">u4").tobytes() + pixels.tobytes())
    for name in ("images.npy", "images.npz", "t10k-images-idx3-ubyte"):
        found = read_cloud(str(tmp_path / name))
        assert found.shape == (4, 6, 1) and found.points.dtype == np.float64
        np.testing.assert_array_equal(found.points, wanted)
    points = rng.normal(size=(5, 3))
    np.save(tmp_path / "points.npy", points)
    np.savez(tmp_path / "points.npz", points)
    np.savetxt(tmp_path / "points.txt", points, fmt="%.17g")
    for name in ("points.npy", "points.npz", "points.txt"):
        found = read_cloud(str(tmp_path / name))
        assert found.shape == (3,)
        np.testing.assert_array_equal(found.points, points)
    np.save(tmp_path / "line.npy", points[:, 0])
    assert read_cloud(str(tmp_path / "line.npy")).shape == (1,)


def _half() -> bytes:
    """An .npz of one array with a byte that is another."""
    file = io.BytesIO()
    np.savez(file, np.arange(200.0))
    whole = bytearray(file.getvalue())
    whole[200] ^= 255
    return bytes(whole)


HALF = _half()


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("two.npz", {"a": np.ones(2), "b": np.ones(2)}, "no array images or x_train; it has: a, b"),
        ("words.npz", {"a": np.array(["x"])}, "an array of <U1, where points are numbers"),
        ("huge.npy", np.full((2, 3, 3), 7.0), "images from 7.0 to 7.0"),
        ("bad.npy", b"nothing", "no array of points"),
        ("complex.npy", np.ones((3, 2)) + 5j, "an array of complex128, where points are numbers"),
        ("whole.npy", np.arange(5) + 2**60, "whole numbers above 2^53, which float64 does not tell apart"),
        ("blank.csv", b"1,2,3\n1,,2\n", "line 2: '1,,2' is not numbers, apart by spaces or commas"),
        ("half.npz", HALF, "damaged"),
        ("none", None, "no such file or folder"),
    ],
)
def test_files_that_hold_neither_points_nor_images(tmp_path, name, content, expected):
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif content:
        path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(expected)):
        read_cloud(str(path))
