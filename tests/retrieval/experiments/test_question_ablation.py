"""Ways of training: no text is trained on and tested, cells go on, and what a way is made of must be there."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.experiments.question_ablation import Cell, QuestionAblationConfig, question_ablation, split
from retrieval.experiments.question_ways import WAYS, without
from retrieval.tuning.groups import Group
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS
from tests.rope.encoder.random_encoder import ROFORMER
from training.files.errors import DataError

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests
FEW = ("encoder", "roformer-sim")
MORE = ("encoder", "whitening", "pairs", "roformer-sim", "ft", "ft, distilled")


def pairs(path: Path, count: int, seed: int) -> Path:
    random, rows = np.random.default_rng(seed), []
    for _ in range(count):
        a, b, n, m = (int(x) for x in random.integers(1, 12, 4))
        rows.append(f"{CHARACTERS[a : a + n]}\t{CHARACTERS[b : b + m]}\t{int(abs(a - b) < 3)}\n")
    path.write_text("".join(rows))
    return path


def config(folder: Path, **given) -> QuestionAblationConfig:
    data = {"pairs": (f"T={folder / 'train.tsv'}",), "tests": (f"U={folder / 'test.tsv'}",)}
    given = {
        "ways": FEW,
        "seeds": 1,
        "steps": 8,
        "batch_size": 8,
        "learning_rate": 1e-2,
    } | given
    return QuestionAblationConfig(
        model=str(folder / "m"), folder=str(folder / "out"), questions=11, draws=3, **data | given
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_model(folder / "m", replace(ROFORMER, types=2))
    for seed, (name, count) in enumerate({"train": 800, "test": 40}.items()):
        pairs(folder / f"{name}.tsv", count, seed)
    question_ablation(config(folder))
    return folder


def check_figures(out: Path, ways: tuple[str, ...]) -> None:
    rows = {row["way"]: row for row in csv.DictReader((out / "questions.csv").open())}
    assert tuple(rows) == tuple(name for name in WAYS if name in ways)
    for name, row in rows.items():
        assert all(-1 <= float(row[task]) <= 1 for task in ("T", "U"))
        assert bool(row["good"]) == WAYS[name].writes
    assert sum(float(rows["roformer-sim"][name]) for name in ("good", "other", "copies")) == pytest.approx(1)
    assert len({row["T"] for row in rows.values()}) == len(ways)
    page = (out / "report.html").read_text()
    assert "it is right on" in page and page.count("<img") == 1


def test_each_way_has_its_figures(folder: Path) -> None:
    check_figures(folder / "out", FEW)


@pytest.mark.slow
def test_more_ways_go_on_from_those_there_are(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    question_ablation(replace(config(folder, ways=MORE), folder=str(tmp_path / "out")))
    check_figures(tmp_path / "out", MORE)


def test_no_text_is_trained_on_and_tested(folder: Path) -> None:
    rows = [row.split("\t") for row in (folder / "out" / "pairs" / "T.train.tsv").read_text().splitlines()]
    trained = {text for a, b, _ in rows for text in (a, b)}
    tested = {text for task in split(config(folder), folder / "out" / "pairs").tasks[:1] for text in task.texts}
    assert trained and tested and not trained & tested


def test_a_text_of_a_further_test_is_not_trained_on_nor_lines_within_texts_torn(tmp_path: Path) -> None:
    rows = [{"a": f"今天\t第{n}\n个问题", "b": f"第{n}个", "label": n % 2} for n in range(400)]
    (tmp_path / "t.jsonl").write_text("".join(map("{}\n".format, map(json.dumps, rows))), "utf-8")
    (tmp_path / "u.tsv").write_text("".join(f"今天 第{n} 个问题\t别的{n}\t{n % 2}\n" for n in range(200)), "utf-8")
    given = config(tmp_path, pairs=(str(tmp_path / "t.jsonl"),), tests=(str(tmp_path / "u.tsv"),))
    (trained,), tasks, _ = split(given, tmp_path / "pairs")
    lines = [line.split("\t") for line in Path(trained).read_text("utf-8").splitlines()]
    assert lines and {len(line) for line in lines} == {3} and not {line[0] for line in lines} & {*tasks[1].texts}
    assert len(tasks[0].texts) > 10 and all(len(text.split("\n")) == 1 for text in tasks[0].texts)
    groups = [Group("g, line 1", (tasks[0].texts[0], "甲", "乙")), Group("g, line 2", ("丙", tasks[1].texts[0]))]
    assert [group.texts for group in without(groups, {text for task in tasks for text in task.texts})] == [
        ("甲", "乙"),
        ("丙",),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pairs": ("x/train.tsv", "y/train.tsv")}, "pairs and tests train, train, U: they are told apart by name"),
        ({"tests": ("T=x.tsv",)}, "pairs and tests T, T: they are told apart by name"),
        ({"groups": ("g=x.tsv", "g=y.tsv")}, "groups g, g: they are told apart by name"),
        ({"tests": ("a/b=x.tsv",)}, "pairs and tests: 'a/b' is no name of a file"),
    ],
)
def test_files_of_one_name_are_refused(tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        question_ablation(config(tmp_path, **given))


def test_a_file_that_has_changed_is_refused(folder: Path) -> None:
    before = (folder / "train.tsv").read_text("utf-8")
    (folder / "train.tsv").write_text(before + "今天\t天气\t1\n", "utf-8")
    try:
        with pytest.raises(DataError, match="its cells were made with pairs T .*, not .*: give that, or another"):
            question_ablation(config(folder))
    finally:
        (folder / "train.tsv").write_text(before, "utf-8")


def test_the_same_command_goes_on(folder: Path, said: list[str]) -> None:
    cell = folder / "out" / "cells" / "roformer-sim 0.json"
    before = json.loads(cell.read_text())
    others = {path: path.stat().st_mtime_ns for path in cell.parent.glob("*.json") if path != cell}
    cell.unlink()
    question_ablation(config(folder))
    assert json.loads(cell.read_text()) == before  # its run is there, and drawing is of the seed
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_a_way_needs_what_it_is_made_of(folder: Path) -> None:
    with pytest.raises(ValueError, match="'ft' without 'roformer-sim'"):
        config(folder, ways=("ft",))
    with pytest.raises(ValueError, match="ways has 'x'"):
        config(folder, ways=("x",))
    few = {"pairs": (f"T={folder / 'test.tsv'}",), "tests": (), "held_out": 0.6}
    with pytest.raises(DataError, match="pairs are held out, of labels"):
        question_ablation(replace(config(folder, **few), folder=str(folder / "few")))
    with pytest.raises(ValueError, match="steps is 3"):
        config(folder, steps=3)


def test_a_cell_is_named_by_its_file_of_groups() -> None:
    assert Cell("roformer-sim", "mined=runs/a.tsv", 2).name == "roformer-sim, mined 2"
    assert Cell("roformer-sim", "runs/a.b.tsv", 0).name == "roformer-sim, a 0"
    assert Cell("ft, distilled", "", 1).name == "ft, distilled 1"
