"""The digits experiment: images put where they should be, the right cells, each made once,
and a report of their numbers."""

import csv
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from rope.experiments import digits as digits_module
from rope.experiments.digits import DigitsConfig, batches, digits
from rope.experiments.digits_report import report
from rope.experiments.placing import conditions, placed
from tests.figures import tied
from tests.listening import listening
from tests.training.files.test_images import write_pair
from training.experiment.cells import Made
from training.experiment.statistics import estimate
from training.files.images import Images
from training.mesh import MeshConfig, make_mesh

NAMES = ["as trained", "shifted by 1", "on 8 x 8", "on 8 x 8, by patches", "twice as large"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    write_pair(folder, "some", random.integers(256, size=(60, 4, 4)), np.arange(60) % 3)
    return DigitsConfig(
        data=str(folder),
        folder=str(folder / "run"),
        positions=("axial", "learned"),
        seeds=2,
        steps=3,
        batch_size=8,
        width=8,
        heads=2,
        layers=1,
        test_images=20,
        valid_images=8,
        shifts=(1,),
        canvases=(2.0,),
        places=2,
    )


@pytest.fixture(scope="module")
def finished(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_module, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        patch.setattr(digits_module, "SCORED", 16)
        with listening() as said:
            digits(config)
        yield Path(config.folder), said


def cells(folder):
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}


def test_every_cell_is_there_and_the_report_has_its_numbers(finished):
    folder, said = finished
    assert cells(folder).keys() == {f"{x}-{seed}" for x in ("axial", "learned") for seed in (0, 1)}
    assert said[0].endswith("4 x 4 pixels; 32 images to train on, 8 to choose by, 20 to test")
    assert said[1] == (folder / "digits.md").read_text("utf-8") + f"\n{folder / 'report.html'}: the same with pictures"
    assert said[1].count("\n| learned |") == 2
    assert (folder / "digits.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text("utf-8")
    assert page.count('class="left">learned</td>') == 2 and page.count("<img") == 1 and said[0] in page
    scores = {}
    with open(folder / "digits.csv", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 4
    for row in rows:
        cell = json.loads((folder / "cells" / f"{row['positions']}-{row['seed']}.json").read_bytes())
        assert [*cell["scores"]] == NAMES
        for name in NAMES:
            assert len(cell["scores"][name]) == 20
            assert float(row[name]) == pytest.approx(np.mean(cell["scores"][name]), abs=1e-5)
            scores.setdefault((row["positions"], name), []).append(cell["scores"][name])
        assert {*cell["scores"]["shifted by 1"]} <= {0, 0.5, 1}
    told = json.loads((folder / "digits.json").read_bytes())
    assert told["seeds"] == 2 and len(told["rows"]) == 10
    for row in told["rows"]:
        values = np.array(scores[row["positions"], row["condition"]])
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(estimate(values))
        mean, low, high = (f"{100 * x:.1f}" for x in estimate(values))
        assert f"{mean} [{low}, {high}]" in said[1]


def test_figures_of_docs_are_of_these_trainings(finished):
    made = {path.stem: json.loads(path.read_bytes())["loss"] for path in (finished[0] / "cells").iterdir()}
    tied("docs/vit.md", "digits, losses", made)


def test_a_second_call_makes_what_is_missing_alone(finished, config):
    folder, before = finished[0], cells(finished[0])
    tables = (folder / "digits.md").read_bytes()
    gone = folder / "cells" / "learned-1.json"
    content = gone.read_bytes()
    gone.write_text('{"x": 1}')  # another version's
    digits(config)
    after = cells(folder)
    assert {name for name in before if after[name] != before[name]} == {gone.stem}
    assert gone.read_bytes() == content and (folder / "digits.md").read_bytes() == tables


def test_a_training_without_numbers_ends_no_other(finished, config, tmp_path, monkeypatch):
    """All else is made, and reported over the seeds there are, before the command ends in the failures."""
    figures = json.loads((finished[0] / "cells" / "axial-0.json").read_bytes())

    def cell(self, seed, *_):
        if (self.model.positions, seed) in bad:
            raise ValueError("the loss is not a number")
        return {**figures, "positions": self.model.positions, "seed": seed}

    monkeypatch.setattr(digits_module.Trainer, "__init__", lambda self, model, *_: setattr(self, "model", model))
    monkeypatch.setattr(digits_module.Trainer, "cell", cell)
    wanted, bad = (
        replace(config, folder=str(tmp_path), positions=("learned", "axial")),
        {("learned", 0), ("learned", 1)},
    )
    with pytest.raises(
        ValueError, match=r"^learned-0: the loss is not a number \(and 1 more, above\); the rest is done"
    ):
        digits(wanted)
    assert cells(tmp_path).keys() == {"axial-0", "axial-1"}
    tables, page = (tmp_path / "digits.md").read_text("utf-8"), (tmp_path / "report.html").read_text("utf-8")
    assert "| axial |" in tables and "| learned |" not in tables and "less the others" not in tables
    for name in ("learned-0", "learned-1"):
        assert f"- missing: {name}: the loss is not a number" in tables and f"missing: {name}: the loss" in page
    bad = {("learned", 0)}
    with pytest.raises(ValueError, match=r"^learned-0: the loss is not a number; the rest is done"):
        digits(wanted)
    tables = (tmp_path / "digits.md").read_text("utf-8")
    assert "mean of 1 to 2 seeds" in tables and "learned less the others" in tables and "learned-1:" not in tables
    assert "| axial | +0.0 [+0.0, +0.0] |" in tables  # of seed 1 alone, which both have
    bad = set()
    digits(wanted)  # the same command makes what is missing again
    assert "missing" not in (tmp_path / "digits.md").read_text("utf-8") and len(cells(tmp_path)) == 4


def test_a_mesh_changes_no_answer(finished, config, tmp_path, monkeypatch):
    monkeypatch.setattr(digits_module, "make_mesh", lambda config: make_mesh(config, jax.devices()[:4]))
    cut = replace(config, folder=str(tmp_path), positions=("axial",), seeds=1, mesh=MeshConfig(fsdp=2, tensor=2))
    digits(cut)
    one, other = (json.loads((x / "cells" / "axial-0.json").read_bytes()) for x in (finished[0], tmp_path))
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-4) and one["scores"] == other["scores"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 4}, "its cells were made with steps 3, not 4: give that, or another --folder"),
        ({"valid_images": 7}, "its cells were made with valid_images 8, not 7"),
        ({"patch": 3}, "images of 4 x 4 pixels: --patch 3 does not divide both"),
        ({"test_images": 52}, "60 different images, and 60 of them are held out"),
        ({"batch_size": 40}, "32 images to train on: fewer than --batch-size 40"),
        ({"heads": 4}, "width / heads is 2: axial positions need a multiple of 4"),
        ({"data": "missing"}, "missing: no such file or folder"),
    ],
)
def test_what_cannot_be_is_one_line(finished, config, changes, message):
    before = cells(finished[0])
    with pytest.raises(ValueError, match=message) as found:
        digits(replace(config, **changes))
    assert "\n" not in str(found.value) and cells(finished[0]) == before


@pytest.mark.parametrize(
    "changes", [{"positions": ("axial", "axial")}, {"shifts": (0,)}, {"seeds": 0}, {"canvases": (0.5,)}]
)
def test_impossible_settings_are_refused(config, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(config, **changes)


def test_an_image_is_placed_where_it_is_told_and_cut_at_the_edge():
    pixels = np.arange(1.0, 13.0).reshape(2, 2, 3, 1)
    out = placed(pixels, (3, 4), np.array([[1, 1], [-1, 2]]))[..., 0]
    np.testing.assert_array_equal(out[0], [[0, 0, 0, 0], [0, 1, 2, 3], [0, 4, 5, 6]])
    np.testing.assert_array_equal(out[1], [[0, 0, 10, 11], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_conditions_lose_nothing_but_what_a_shift_pushes_out():
    pixels = np.zeros((50, 4, 4, 1), np.float32)
    pixels[:, 1, 2] = 1  # a point, whose place tells where the image went
    found = dict(conditions(pixels, 2, shifts=(1, 2), canvases=(1.5, 1.6), places=3))
    assert [*found] == [
        "as trained",
        "shifted by 1",
        "shifted by 2",
        "on 6 x 6",
        "on 6 x 6, by patches",
        "twice as large",
    ]
    np.testing.assert_array_equal(found["as trained"][0], pixels)
    _, _, rows, columns, _ = np.nonzero(found["shifted by 1"])
    assert {*zip(rows, columns, strict=True)} == {(r, c) for r in (0, 1, 2) for c in (1, 2, 3)} - {(1, 2)}
    assert found["on 6 x 6"].shape == (3, 50, 6, 6, 1) and (found["on 6 x 6"].sum((2, 3, 4)) == 1).all()
    _, _, rows, columns, _ = np.nonzero(found["on 6 x 6"])
    assert {*rows} == {1, 2, 3} and {*columns} == {2, 3, 4}
    _, _, rows, columns, _ = np.nonzero(found["on 6 x 6, by patches"])
    assert {*rows} == {1, 3} and {*columns} == {2, 4}
    assert found["twice as large"].shape == (1, 50, 8, 8, 1) and (found["twice as large"][0, :, 2:4, 4:6] == 1).all()
    again = dict(conditions(pixels, 2, shifts=(2,), canvases=(), places=3))
    np.testing.assert_array_equal(again["shifted by 2"], found["shifted by 2"])


def test_an_epoch_has_each_image_once_and_a_seed_its_own_order():
    images = Images(np.zeros((10, 1)), np.arange(10))
    first, other = ([batch["labels"] for batch in islice(batches(images, seed, 5), 4)] for seed in (0, 1))
    for epoch in (first[:2], first[2:], other[:2]):
        assert sorted(np.concatenate(epoch)) == [*range(10)]
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0], first[2])


def test_differences_are_paired(tmp_path):
    """Two encodings, one always 0.01 better: seeds and images vary far more, and the difference not at all."""
    values = np.random.default_rng(1).uniform(0.2, 0.8, (3, 40))
    made = [
        {"positions": name, "seed": seed, "loss": 0.1, "valid": 0.5, "scores": {"as trained": (row + more).tolist()}}
        for seed, row in enumerate(values)
        for name, more in (("axial", 0.01), ("flat", 0.0))
    ]
    assert "| flat | +1.0 [+1.0, +1.0] |" in report(
        tmp_path,
        Made(dict(enumerate(made)), []),
        ("axial", "flat"),
        {"as trained": np.zeros((4, 2, 2, 1))},
        "a note",
        {},
    )
