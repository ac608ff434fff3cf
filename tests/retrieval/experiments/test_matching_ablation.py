"""Ways of matching: each cell is on pairs that its fold holds out, cells go on, and what a way is made of is there."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.experiments.matching_ablation import MatchingAblationConfig, matching_ablation, overlaps
from retrieval.experiments.matching_ways import OVERLAP, WAYS
from retrieval.matching.pairs import Pair
from tests.retrieval.matching.small_matching import texts
from tests.retrieval.small_model import write_model
from tests.rope.encoder.random_encoder import ROFORMER
from training.files.errors import DataError

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the training's own tests
FEW = (OVERLAP, "key")
MORE = (
    *FEW,
    "plain",
    "random, pretrained",
    "context",
    "unlabelled",
    "hidden tokens",
    "averaged",
    "three seeds",
    "pupil",
)
TAUGHT = ("taught, no labels", "best", "best, averaged", "best, three seeds", "best, plain")


def write_pairs(path: Path, count: int, seed: int) -> None:
    rows = []
    for n, (a, b) in enumerate(zip(texts(count, seed), texts(count, seed + 1), strict=True)):
        rows.append(f"{a}\t{a[::-1] if n % 2 else b}\t{n % 2}\n")
    path.write_text("".join(np.random.default_rng(seed).permutation(rows)), "utf-8")


def config(folder: Path, **given) -> MatchingAblationConfig:
    files = {"texts": (str(folder / "t.txt"),), "plain": (str(folder / "o.txt"),), "taught": str(folder / "l.tsv")}
    sizes = {"folds": 2, "seeds": 2, "epochs": 3, "pretraining": 1, "teaching": 1, "batch_size": 16}
    return MatchingAblationConfig(
        model=str(folder / "m"),
        pairs=str(folder / "p.tsv"),
        folder=str(folder / "out"),
        **{"ways": FEW, "learning_rate": 1e-2} | files | sizes | given,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_model(folder / "m", replace(ROFORMER, types=2))
    write_pairs(folder / "p.tsv", 120, 0)
    write_pairs(folder / "l.tsv", 80, 5)
    short = [line for line in (folder / "l.tsv").read_text("utf-8").splitlines() if len(line) < 10]
    (folder / "l.tsv").write_text("".join(f"一{line}\n" for line in short), "utf-8")  # none is among the others
    for name, seed in (("t", 10), ("o", 20)):
        (folder / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts(200, seed)), "utf-8")
    matching_ablation(config(folder))
    return folder


def check_figures(out: Path, ways: tuple[str, ...]) -> None:
    found = {
        (row["way"], row["fold"], row["seed"]): float(row["auc"]) for row in csv.DictReader(open(out / "matching.csv"))
    }
    assert {*found} == {
        (name, str(fold), str(seed)) for name in ways for fold in range(2) for seed in range(min(WAYS[name].seeds, 2))
    }
    assert all(0 <= area <= 1 for area in found.values())
    table = (out / "matching.md").read_text("utf-8")
    assert all(f"\n| {name} | " in table for name in ways)
    assert (out / "report.html").read_text("utf-8").count("<img") == 2


def test_each_way_has_its_figures_of_each_fold(folder: Path) -> None:
    check_figures(folder / "out", FEW)
    cell = json.loads((folder / "out" / "cells" / "key, fold 1, 0.json").read_text())
    assert len(cell["scores"]) == 60 and len(cell["curve"]) == 4  # before it, and after each pass


def test_overlap_is_jaccards_share_of_the_pairs_numbers(folder: Path) -> None:
    pairs = [Pair(np.array([5, 6, 6]), np.array([6, 7]), 0.0), Pair(np.array([8]), np.array([8]), 1.0)]
    assert overlaps(pairs).tolist() == [1 / 3, 1]
    rows = [line.split("\t") for line in (folder / "p.tsv").read_text("utf-8").splitlines()]
    by_hand = [len({*a} & {*b}) / len({*a} | {*b}) for a, b, _ in rows[1::2]]
    cell = json.loads((folder / "out" / "cells" / f"{OVERLAP}, fold 1, 0.json").read_text())
    assert cell["scores"] == pytest.approx(by_hand, abs=1e-6) and "aligned" not in cell


@pytest.mark.slow
def test_more_ways_go_on_from_those_there_are(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    before = (tmp_path / "out" / "cells" / "key, fold 0, 0.json").stat().st_mtime_ns
    matching_ablation(replace(config(folder, ways=MORE + TAUGHT), folder=str(tmp_path / "out")))
    check_figures(tmp_path / "out", (*filter(lambda name: name in MORE + TAUGHT, WAYS),))
    assert (tmp_path / "out" / "cells" / "key, fold 0, 0.json").stat().st_mtime_ns == before


def test_other_settings_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="its cells were made with epochs 3, not 2"):
        matching_ablation(config(folder, epochs=2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ways": ("averaged",)}, "ways has 'averaged' without 'context', which it is made of"),
        ({"ways": ("taught",), "taught": ""}, "ways has 'taught', whose encoder is taught: give --taught"),
        ({"ways": ("context", "averaged"), "epochs": 2}, "epochs is 2: .averaged. is the mean of 3 passes"),
        ({"folds": 1}, "folds"),
    ],
)
def test_what_cannot_be_run_is_refused(folder: Path, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(folder, **given)
