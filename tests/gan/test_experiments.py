"""The experiments at their smallest: every cell is there, a second call makes what is missing alone,
pages fetch nothing."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from gan import objectives as critics
from gan.critic import Shape
from gan.experiments import gans, minima, samples, static, surfaces
from gan.experiments.all import EXPERIMENTS
from gan.experiments.gans import GansConfig
from gan.experiments.static import StaticConfig
from gan.image_laws import squares
from gan.named import LAWS, law_of, settings_of
from gan.objectives import CRITICS
from gan.quality import patches
from gan.training import train
from gan.transport import exact_w1
from tests.figures import tied
from tests.listening import listening
from training.experiment.cells import run_cells
from training.files.errors import DataError

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests

ROOT = Path(__file__).parents[2]
STATIC = StaticConfig(
    laws=("shift:2", "funnels:2:4", "halves"),
    critics=("wc", "exact"),
    steps=4,
    batch=32,
    seeds=2,
    readings=2,
    scored=64,
    hidden=(8,),
)
GANS = GansConfig(critics=("c",), batch=(8, 16), steps=4, seeds=2, readings=2, hidden=(8,), scored=40)

SMALL = {
    "static": STATIC,
    "tradeoff": GANS,
    "false-minima": minima.MinimaConfig(batch=(8,), draws=2, clusters=3),
    "sample-complexity": samples.SamplesConfig(laws=("shift:1", "shift:3"), points=(4, 8), draws=3),
    "surfaces": surfaces.SurfacesConfig(laws=("shift:2", "swissroll"), critics=("wc",), steps=2, batch=8),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Folder and printed tables of each experiment."""
    folder = tmp_path_factory.mktemp("wgan")
    found = {}
    for name, config in SMALL.items():
        with listening() as told:
            EXPERIMENTS[name].run(replace(config, folder=str(folder / name)))
        found[name] = (folder / name, told[-1])
    return found


@pytest.mark.parametrize("name", ["static", "tradeoff", "false-minima", "sample-complexity", "surfaces"])
def test_what_an_experiment_leaves(ran, name):
    folder, told = ran[name]
    page = (folder / "report.html").read_text()
    assert "<script" not in page and not re.search(r'(src|href)="(?!data:|#)', page)
    (table,) = folder.glob("*.csv")
    rows = list(csv.reader(table.open()))
    assert len(rows) > 2 and len({len(row) for row in rows}) == 1
    assert json.loads(table.with_suffix(".json").read_text())["cells"]
    assert table.with_suffix(".md").read_text().strip() in told
    for picture in folder.glob("*.png"):
        assert len(picture.read_bytes()) > 5_000, f"{picture} is blank"


def test_what_static_says(ran):
    folder, told = ran["static"]
    cells = {path.stem: json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")}
    assert {*cells} == {f"{law}-{critic}" for law in ("shift-2", "funnels-2-4", "halves") for critic in ("wc", "exact")}
    assert cells["shift-2-wc"]["truth"] == 1 and cells["halves-wc"]["last"]["cosine"] == [None, None]
    exact = cells["shift-2-exact"]
    assert np.mean(exact["last"]["objective"]) == pytest.approx(np.mean(exact["minibatch"]), rel=0.4)
    assert [entry["step"] for entry in cells["shift-2-wc"]["curve"]] == [2, 4]
    assert "| law | critic | cosine | published |" in told and "| funnels:2:4 | wc |" in told


def test_figures_of_docs_are_of_this_code(ran):
    """Numbers of cells, by their names in them."""

    def numbers(value, name=""):
        if isinstance(value, dict):
            return {k: v for key, one in value.items() for k, v in numbers(one, f"{name} {key}".strip()).items()}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return numbers(value[-1], name)
        if isinstance(value, str) or value is None or "seconds" in name:
            return {}
        return {name: np.array(value, float)}  # None is NaN

    for experiment in ("tradeoff", "false-minima", "sample-complexity"):
        cells = sorted((ran[experiment][0] / "cells").glob("*.json"))
        tied("docs/wgan.md", experiment, numbers({path.stem: json.loads(path.read_text()) for path in cells}))


def test_a_second_call_makes_what_is_missing_alone(ran, monkeypatch, said):
    folder, told = ran["static"]
    (folder / "cells" / "halves-wc.json").unlink()
    made = []
    once = static.measure
    monkeypatch.setattr(static, "measure", lambda *cell: made.append(cell[2:4]) or once(*cell))
    static.static(replace(STATIC, folder=str(folder)))
    assert made == [("halves", "wc")] and said[-1] == told  # to the bit: seeds are all that is drawn from
    with pytest.raises(DataError, match="its cells were made with steps 4, not 5"):
        static.static(replace(STATIC, folder=str(folder), steps=5))


@pytest.mark.parametrize(
    "name, cell, content",
    [
        ("static", "halves-wc", "{}"),
        ("tradeoff", "c-fc-5-8", '{"curve": []}'),
        ("false-minima", "8", '{"x": 1}'),
        ("sample-complexity", "shift-1-4-3", '{"x": 1}'),
        ("surfaces", "shift-2-wc-2-8", '{"x": 1}'),
    ],
)
def test_a_cell_without_what_belongs_in_it_is_made_again(ran, name, cell, content, said):
    folder, told = ran[name]
    path = folder / "cells" / f"{cell}.json"
    path.write_text(content)
    EXPERIMENTS[name].run(replace(SMALL[name], folder=str(folder)))
    assert said[0] == f"{path}: not a cell as this version makes it; it is made again" and said[-1] == told


def test_a_critic_that_diverges_ends_with_its_step(tmp_path, monkeypatch, said):
    monkeypatch.setitem(CRITICS, "gp", lambda shape: critics.c_transform(shape, rate=1e30))
    config = replace(STATIC, laws=("shift:2",), critics=("gp",), folder=str(tmp_path), steps=40, readings=4)
    static.static(config)
    assert re.search(r"\| gp \| no number at step \d+ \|", said[-1]) and "nan" not in said[-1].lower()


def test_a_gan_that_diverges_leaves_the_others(tmp_path, monkeypatch, said):
    monkeypatch.setitem(CRITICS, "gp", lambda shape: critics.c_transform(shape, rate=1e30))
    config = replace(GANS, critics=("gp", "exact"), batch=(8,), folder=str(tmp_path), steps=20)
    EXPERIMENTS["tradeoff"].run(config)
    assert re.search(r"\| gp \| no number at step \d+ \|", said[-1]) and "nan" not in said[-1].lower()
    assert re.search(r"\| exact \| 1.000", said[-1])


@pytest.mark.parametrize(
    ("module", "name", "config", "bad", "there"),
    [
        (static, "static", replace(STATIC, laws=("shift:2", "halves"), critics=("exact",)), "halves-exact", "exact"),
        (gans, "gans", GANS, "c-fc-5-8", "c, batch 16"),
        (minima, "minima", minima.MinimaConfig(batch=(8, 9), draws=2, clusters=3), "8", "9"),
        (samples, "samples", samples.SamplesConfig(laws=("shift:1", "shift:3"), points=(4,)), "shift-3-4-5", "shift:1"),
        (
            surfaces,
            "surfaces",
            surfaces.SurfacesConfig(laws=("shift:2", "swissroll"), critics=("wc",), steps=2, batch=8),
            "swissroll-wc-2-8",
            "wc",
        ),
    ],
)
def test_a_cell_that_fails_is_named_in_the_report(tmp_path, monkeypatch, module, name, config, bad, there):
    def run(folder, cells, make, unit, *rest):
        def failing(cell):
            if cell == cells[bad]:
                raise ValueError("it cannot be")
            return make(cell)

        return run_cells(folder, cells, failing, unit, *rest)

    monkeypatch.setattr(module, "run_cells", run)
    one = next(x for x in EXPERIMENTS.values() if x.config is type(config))
    with pytest.raises(DataError, match=f"^{bad}: it cannot be; the rest is done and reported"):
        one.run(replace(config, folder=str(tmp_path)))
    tables = (tmp_path / f"{name}.md").read_text()
    assert f"| {there} |" in tables and f"- missing: {bad}: it cannot be" in tables
    assert f"missing: {bad}" in (tmp_path / "report.html").read_text()


def test_convolutions_beside_a_known_distance(tmp_path, said):
    config = replace(STATIC, laws=("squares:8",), critics=("sn",), network="conv", hidden=(4, 4), folder=str(tmp_path))
    static.static(config)
    assert re.search(r"\| sn \| .* \| 2.000 \| .* \| certified \|", said[-1])


def test_refused_before_the_first_cell(tmp_path, monkeypatch):
    """Nothing is trained where a later cell cannot be, and a folder's cells are of the images that it says."""
    for config, expected in (
        (replace(STATIC, network="conv"), "law 'shift:2': no images"),
        (replace(STATIC, critics=("wc", "ortho"), hidden=(5,)), "hidden layers of 5 features"),
        (replace(STATIC, laws=("squares:8",), network="conv", hidden=(4,) * 4), "4 convolutions of stride 2"),
        (replace(GANS, critics=("c", "sll"), network=("fc", "patches")), "no network of patches"),
        (replace(GANS, batch=(8, 4096)), "fewer than --batch 4096"),
    ):
        with pytest.raises(ValueError, match=expected):
            {StaticConfig: static.static, GansConfig: EXPERIMENTS["tradeoff"].run}[type(config)](
                replace(config, folder=str(tmp_path / "none"))
            )
    assert not (tmp_path / "none" / "cells").exists()
    first, other = (str(tmp_path / f"{n}.npz") for n in range(2))
    for seed, path in enumerate((first, other)):
        np.savez(path, images=np.random.default_rng(seed).uniform(size=(60, 8, 8)), labels=np.arange(60) % 2)
    small = minima.MinimaConfig(batch=(8,), draws=2, clusters=3, data=first, folder=str(tmp_path / "minima"))
    minima.false_minima(small)
    for changed in (replace(small, data=other), replace(small, clusters=4)):
        with pytest.raises(DataError, match="its cells were made with"):
            minima.false_minima(changed)


def test_what_cannot_be():
    for make, expected in (
        (lambda: StaticConfig(critics=("gan",)), "critics has 'gan': it must be one of wc, gp"),
        (lambda: StaticConfig(laws=()), "laws is (): give one or more"),
        (lambda: StaticConfig(batch=1), "batch is 1"),
        (lambda: GansConfig(n_critic=(0,)), "n_critic has 0: it must be from 1 to 16,384"),
        (lambda: GansConfig(critics=("x",)), "critics has 'x'"),
        (lambda: surfaces.SurfacesConfig(critics=("exact",)), "critics has 'exact'"),
        (lambda: minima.MinimaConfig(batch=(1,)), "batch has 1: it must be from 2"),
        (lambda: samples.SamplesConfig(points=(1,)), "points has 1"),
        (lambda: law_of("shift", None), "law 'shift': it must be one of shift:D"),
        (lambda: law_of("shift:0", None), "the letters being numbers from 1"),
    ):
        with pytest.raises(ValueError) as error:
            make()
        assert expected in str(error.value)
    with pytest.raises(ValueError, match="a surface needs one of two dimensions"):
        surfaces.surfaces(surfaces.SurfacesConfig(laws=("shift:3",)))
    with pytest.raises(ValueError, match="steps is 0"):
        next(train(CRITICS["gp"](Shape(size=2)), law_of("shift:2", None), steps=0))


def test_settings_of_critics_are_rows(tmp_path, said):
    """A critic with settings is another row and another cell; of another metric, what is true there is unknown."""
    names = ("gp:weight=1", "gp:weight=100", "gp:metric=l1")
    config = replace(STATIC, laws=("shift:2",), critics=names, folder=str(tmp_path))
    static.static(config)
    cells = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "cells").glob("*.json")}
    assert {*cells} == {"shift-2-gp-weight=1", "shift-2-gp-weight=100", "shift-2-gp-metric=l1"}
    one, hundred, other = (cells[f"shift-2-{name.replace(':', '-')}"] for name in names)
    assert one["last"]["kr"] != hundred["last"]["kr"] and all(f"| {name} |" in said[-1] for name in names)
    assert one["truth"] == 1 and other["truth"] is None and np.mean(other["minibatch"]) > np.mean(one["minibatch"])
    assert "W1 1\n" in said[-1] and "| L2 error |" in said[-1]
    np.testing.assert_allclose(np.sum(one["slopes"], 2), 1, atol=1e-5)
    rows = list(csv.DictReader((tmp_path / "static.csv").open()))
    assert [float(row["l2"]) for row in rows if row["critic"] == "gp:weight=1"] == pytest.approx(one["last"]["l2"])
    assert float(rows[0]["seconds"]) > 0 and (tmp_path / "shift-2-slopes.png").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gp:wieght=1", "critic 'gp:wieght=1': gp has the settings weight, metric, rate"),
        ("lp:one_sided=false", "lp has the settings weight, metric, rate"),
        ("exact:rate=1", "exact has the settings metric"),
        ("gp:weight", "weight is '': it must be a number"),
        ("gp:weight=nan", "weight is 'nan': it must be a number"),
        ("mm:inner=1.5", "inner is '1.5': it must be a whole number"),
        ("gp:one_sided=true", "gp has the settings weight, metric, rate"),  # which is lp
        ("c:metric=l3", "metric is 'l3': it must be l2 or l1"),
        ("c:rate=1:rate=2", "rate is given twice"),
        ("gan:weight=1", "critics has 'gan:weight=1': it must be one of wc, gp"),
    ],
)
def test_settings_that_no_critic_has(name, expected):
    for config in (StaticConfig, GansConfig):
        with pytest.raises(ValueError) as error:
            config(critics=(name,))
        assert expected in str(error.value) and "\n" not in str(error.value)


def test_docs_have_the_settings_of_every_critic():
    """docs/wgan.md's table: names, and each setting with what it is unless given."""
    page, told = (ROOT / "docs" / "wgan.md").read_text("utf-8"), {}
    _, _, rows = page.partition("| critics | settings |\n")
    for line in rows.partition("\n\n")[0].splitlines()[1:]:
        names, settings = (re.findall("`([^`]+)`", cell) for cell in line.strip("|").split("|"))
        for name in names:
            told[name] = {x for x in settings if "=" in x and (name == "sll" or not x.startswith("down"))}
    shown = lambda value: value if isinstance(value, str) else f"{value:g}".replace("0.002", "2e-3")  # noqa: E731
    for name, make in CRITICS.items():
        known = {key: default for key, (default, _) in settings_of(make).items()}
        wanted = {f"{key}={shown(value)}".replace("=0.0002", "=2e-4") for key, value in known.items()}
        assert told.get(name) == wanted, name


def test_a_critic_of_ones_own_has_settings(monkeypatch):
    monkeypatch.setitem(CRITICS, "own", lambda shape, rate=1e-3: critics.c_transform(shape, rate=rate))
    assert StaticConfig(critics=("own", "own:rate=1e-4")) and GansConfig(critics=("own:rate=1",))
    with pytest.raises(ValueError, match="own has the settings rate"):
        StaticConfig(critics=("own:weight=1",))


@pytest.mark.parametrize(
    "name", ["gp:weight=0", "c-soft:epsilon=-1", "c:rate=-1", "wc:bound=0", "wc:rate=0", "mm:inner=0"]
)
def test_settings_that_cannot_be(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name.split(':')[1].split('=')[0]} is "):
        static.static(replace(STATIC, critics=("exact", name), folder=str(tmp_path)))
    assert not (tmp_path / "cells").exists()


def test_presets_are_configs():
    for one in EXPERIMENTS.values():
        for preset, values in one.presets.items():
            assert one.config(preset=preset, **values).preset == preset


def test_white_squares_are_their_side_away():
    law = squares(20)
    assert {*LAWS} >= {"squares"} and law.w1 == 6
    x, y = (np.asarray(z) for z in law.sample(jax.random.key(0), 50))
    assert (x.sum(1) == 36).all() and not y.any()
    np.testing.assert_allclose(np.linalg.norm(x - y, axis=1), 6)


def test_medians_beat_points_of_the_data():
    x = np.random.default_rng(0).normal(size=(200, 3))
    centres = minima.transport_medians(x, 10)
    assert exact_w1(x, centres) < exact_w1(x, x[:10])
    middle = minima.geometric_median(x)
    assert (
        np.linalg.norm(x - middle, axis=1).mean()
        <= min(np.linalg.norm(x - z, axis=1).mean() for z in (x.mean(0), np.median(x, 0))) + 1e-9
    )


def test_gans_measure_their_own_kind(ran):
    folder, told = ran["tradeoff"]
    cells = {path.stem: json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")}
    assert {*cells} == {f"c-fc-5-{batch}" for batch in (8, 16)}
    for cell in cells.values():  # a transform never says more than the exact distance of its batch
        assert all(ratio <= 1 + 1e-4 for entry in cell["curve"] for ratio in entry["ratio"])
    assert "| real images |" in told


def test_patches_are_of_the_images():
    images = np.arange(3 * 4 * 5 * 2, dtype=float).reshape(3, -1)
    found = patches(images, (4, 5, 2), 2, count=50).reshape(50, 2, 2, 2)
    assert (found[:, :, 1] - found[:, :, 0] == 2).all() and (found[:, 1] - found[:, 0] == 10).all()
    assert (found[..., 1] - found[..., 0] == 1).all() and len(np.unique(found[:, 0, 0, 0])) > 20
