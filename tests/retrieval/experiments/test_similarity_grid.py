"""The grid: its cells are what the parts compute, it goes on, and what does not belong together is refused."""

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.embed import EmbedConfig, embed_file
from retrieval.experiments.similarity_grid import SimilarityGridConfig, similarity_grid
from retrieval.similarity import cosines, task_of
from retrieval.tuning.batches import Batches
from retrieval.vectors.encoding import Encoding
from retrieval.vectors.flow import FlowConfig
from retrieval.vectors.whitening import moments, whiten
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS
from training.experiment.statistics import spearman
from training.files.errors import DataError
from training.mesh import Share

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests

# Both tasks have as many sentences in as many rows, so one program trains both; a flow of more steps is its own tests'.
SMALL = {"batch_size": 8, "sentences": 24, "flow": FlowConfig(levels=2, depth=1, width=8)}
METHODS = ("none", "whitening", "whitening-4", "projection-4", "flow", "simcse")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, random = tmp_path_factory.mktemp("grid"), np.random.default_rng(0)
    write_model(folder / "m")
    for name, count in (("train", 60), ("dev", 30)):
        rows = []
        for _ in range(count):
            a, b, n = (int(x) for x in random.integers([1, 1, 7], [10, 10, 12]))  # a text a row
            rows.append(f"{CHARACTERS[a : a + n]}\t{CHARACTERS[b : b + n]}\t{int(abs(a - b) < 3)}\n")
        (folder / f"{name}.tsv").write_text("".join(rows))
    similarity_grid(config(folder))
    return folder


def config(folder: Path, **given) -> SimilarityGridConfig:
    tasks = (f"T={folder / 'train.tsv'},{folder / 'dev.tsv'}", str(folder / "dev.tsv"))
    given = {"poolings": ("mean",), "methods": METHODS, "tasks": tasks} | SMALL | given
    encoding = Encoding(max_length=20, tokens=256)
    return SimilarityGridConfig(models=(f"m={folder / 'm'}",), folder=str(folder / "out"), encoding=encoding, **given)


def test_cells_are_what_the_parts_compute(folder: Path) -> None:
    task = task_of(config(folder).tasks[0])
    (folder / "t.txt").write_text("\n".join(task.texts) + "\n")
    out = str(folder / "v.npy")
    embed_file(
        EmbedConfig(
            model=str(folder / "m"),
            input=str(folder / "t.txt"),
            out=out,
            pooling="mean",
            encoding=config(folder).encoding,
        )
    )
    vectors = np.load(out)
    for method, mapped in (("none", vectors), ("whitening-4", whiten(moments([vectors]), 4)(vectors))):
        cell = json.loads((folder / "out" / "cells" / f"m,mean,{method},T.json").read_text())
        for split in task.splits:
            wanted = spearman(split.scores, cosines(mapped, split))
            assert cell["splits"][split.name]["mean"] == pytest.approx(wanted, abs=1e-4)
        both = [cell["splits"][name]["mean"] for name in ("train", "dev")]
        assert cell["average"] == pytest.approx(np.mean(both))
        assert cell["weighted"]["mean"] == pytest.approx((60 * both[0] + 30 * both[1]) / 90)


def test_the_report_has_every_cell(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "out" / "similarity.csv").open()))
    assert len(rows) == len(METHODS) * (2 + 1 + 4)  # splits of both tasks, and two averages of each
    table = (folder / "out" / "similarity.md").read_text().splitlines()
    assert len(table) == 4 + len(METHODS) and "| m | P3 mean | whitening-4 |" in "\n".join(table)
    assert (folder / "out" / "similarity.png").stat().st_size > 10_000
    page = (folder / "out" / "report.html").read_text()
    assert page.count('<td class="left">m</td>') == len(METHODS) and "<b>" in page and "**" not in page
    assert not list((folder / "out" / "simcse").iterdir())  # no checkpoint is left


def test_the_same_command_makes_only_what_is_missing(folder: Path) -> None:
    cells = sorted((folder / "out" / "cells").iterdir())
    assert len(cells) == 2 * len(METHODS)
    before = cells[0].read_bytes()
    cells[0].unlink()
    times = [x.stat().st_mtime_ns for x in cells[1:]]
    similarity_grid(config(folder))
    assert cells[0].read_bytes() == before and times == [x.stat().st_mtime_ns for x in cells[1:]]


def test_a_cell_that_is_told_to_stop_leaves_no_score(folder: Path, monkeypatch) -> None:
    (cell,) = (folder / "out" / "cells").glob("m,mean,simcse,dev.json")
    before = json.loads(cell.read_text())
    cell.unlink()
    batches = Batches.__call__

    def interrupted(self, first: int, share: Share):
        for number, batch in enumerate(batches(self, first, share)):
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Batches, "__call__", interrupted)
        similarity_grid(config(folder))
    assert not cell.exists()
    similarity_grid(config(folder))
    assert json.loads(cell.read_text()) == before


@pytest.mark.slow  # three runs; what the engine keeps of settings is in tests/training/experiment
def test_a_folder_takes_settings_of_methods_that_it_has_not_seen(folder: Path, tmp_path) -> None:
    given = replace(config(folder, methods=("none",)), folder=str(tmp_path))
    similarity_grid(given)
    similarity_grid(replace(given, methods=("none", "flow"), learning_rate=1e-3))
    similarity_grid(replace(given, methods=("simcse",), learning_rate=1e-3))
    with pytest.raises(DataError, match="its cells were made with simcse"):
        similarity_grid(replace(given, methods=("simcse",), learning_rate=1e-4))


def test_a_cell_that_fails_is_named_in_the_report(folder: Path, tmp_path, monkeypatch) -> None:
    def fail(*_, **__):
        raise DataError("the flow's likelihood is not finite")

    monkeypatch.setattr("retrieval.experiments.similarity_grid.fit_flow", fail)
    with pytest.raises(DataError, match=r"^m,mean,flow,dev: the flow's likelihood is not finite; the rest is done"):
        similarity_grid(
            replace(
                config(folder, methods=("flow", "none"), poolings=("mean",), tasks=(str(folder / "dev.tsv"),)),
                folder=str(tmp_path),
            )
        )
    table = (tmp_path / "similarity.md").read_text()
    assert "| m | P3 mean | none | **" in table and "- missing: m,mean,flow,dev: the flow's likelihood" in table
    assert "missing: m,mean,flow,dev" in (tmp_path / "report.html").read_text()


def test_a_cell_that_is_none_or_of_fewer_resamples_is_made_again(folder: Path, said) -> None:
    """Those of version 0.1 were of 500, and their cells did not say so."""
    cells = [folder / "out" / "cells" / f"m,mean,none,{task}.json" for task in ("T", "dev")]
    before = [cell.read_bytes() for cell in cells]
    of_old = json.loads(before[1])
    assert of_old.pop("resamples") == 2000
    cells[0].write_text("{}")
    cells[1].write_text(json.dumps(of_old | {"weighted": {"mean": 0.1, "low": 0.0, "high": 0.2}}))
    similarity_grid(config(folder))
    assert [cell.read_bytes() for cell in cells] == before
    assert said[:2] == [f"{cell}: not a cell as this version makes it; it is made again" for cell in cells]


def test_what_cannot_be_compared_is_one_line(folder: Path, tmp_path) -> None:
    with pytest.raises(ValueError, match="methods has 'whiten'"):
        config(folder, methods=("whiten",))
    with pytest.raises(ValueError, match="batch_size is 1"):
        config(tmp_path, batch_size=1)
    with pytest.raises(DataError, match="method whitening-25: vectors of 24 dimensions"):
        similarity_grid(config(folder, methods=("none", "whitening-25")))
    with pytest.raises(DataError, match="'../x' is no name"):
        similarity_grid(config(folder, tasks=(f"../x={folder / 'dev.tsv'}",)))
    with pytest.raises(DataError, match="told apart by name"):
        similarity_grid(config(folder, tasks=(str(folder / "dev.tsv"), f"dev={folder / 'train.tsv'}")))
    with pytest.raises(DataError, match="its cells were made with max_length 20, not 30"):
        similarity_grid(replace(config(folder), encoding=Encoding(max_length=30)))
    with pytest.raises(DataError, match="task dev"):
        similarity_grid(config(folder, tasks=(f"dev={folder / 'train.tsv'}",)))


def test_names_are_no_formulas(folder: Path, tmp_path) -> None:
    poolings = ("pooler", "mean")
    given = config(folder, tasks=(f"a$_$b={folder / 'dev.tsv'}",), methods=("none",), poolings=poolings)
    similarity_grid(replace(given, folder=str(tmp_path)))
    assert [line.split(" | ")[1] for line in (tmp_path / "similarity.md").read_text().splitlines()[-2:]] == [
        "P2 pooler",
        "P3 mean",
    ]
    assert (tmp_path / "similarity.png").stat().st_size > 1000
