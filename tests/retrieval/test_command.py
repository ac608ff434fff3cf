"""The commands as they are typed."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TEXTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    write_model(folder / "m")
    (folder / "t.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "p.tsv").write_text("".join(f"{text}\t{text}\n" for text in TEXTS))
    (folder / "s.tsv").write_text(
        "".join(f"{a}\t{b}\t{i % 3}\n" for i, (a, b) in enumerate(zip(TEXTS, TEXTS[1:], strict=False)))
    )
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch, shown):
    """Runs `scripts.NAME`, in this process, in the folder; returns what it printed."""
    monkeypatch.chdir(folder)

    def typed(line: str) -> str:
        name, *arguments = line.split()
        monkeypatch.setattr("sys.argv", [name, *arguments])
        importlib.import_module(f"scripts.{name}").main()
        return shown.readouterr().out

    return typed


def test_vectors_whitening_and_an_index(run, folder: Path) -> None:
    assert "v.npy: 13 vectors of 24 dimensions" in run("embed --model m --input t.txt --out v.npy --pooling mean")
    assert "from 24 to 4 dimensions" in run("whiten --vectors v.npy --out w.safetensors --dimensions 4")
    run("embed --model m --input t.txt --out x.npy --pooling mean --whitening w.safetensors --normalise")
    np.testing.assert_allclose(np.linalg.norm(np.load(folder / "x.npy"), axis=1), 1, rtol=1e-5)
    assert "13 texts, 4 dimensions, exact" in run("search build --model m --texts t.txt --folder index --whiten 4")
    assert f"1.000  {TEXTS[0]}" in run("search query --folder index --input t.txt --k 1")
    assert "MRR@10 1.0000" in run("search evaluate --folder index --pairs p.tsv")


def test_tuning_and_scoring(run, folder: Path) -> None:
    run("simcse --model m --data t.txt --folder tuned --batch-size 8 --learning-rate 1e-3")
    run("search build --model tuned --texts t.txt --folder of-tuned")
    assert json.loads((folder / "of-tuned" / "about.json").read_text())["pooling"] == "cls"  # as it was tuned
    printed = run(
        "evaluate_similarity --models m tuned --tasks s.tsv --poolings mean --methods none whitening-3 --folder grid"
    )
    assert all(
        f"| {name} | P3 mean | {method} |" in printed for name in ("m", "tuned") for method in ("none", "whitening-3")
    )


def test_the_documented_example_runs(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    page = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (block,) = (text for text in blocks if "sentence_transformers" not in text)  # that one is run by the parity tests
    names = {}
    exec(block.replace("runs/encoder", "m"), names)
    assert names["places"][0, 0] == 0 and names["scores"].shape == (1, 2)


@pytest.mark.parametrize("name", ["embed", "whiten", "simcse", "search", "evaluate_similarity"])
def test_every_command_explains_itself(run, name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(f"{name} --help")
    assert ended.value.code == 0
