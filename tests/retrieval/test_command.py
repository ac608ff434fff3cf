"""The commands as they are typed."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TEXTS

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests


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


def test_pairs_are_made_of_all_that_there_is(run, folder: Path) -> None:
    (folder / "l.tsv").write_text("今天天气\t今天的天气\t1\n今天的天气\t天气今天\t1\n你呢\t公园散步\t0\n", "utf-8")
    told = run("make_pairs groups --data l.tsv --labelled --out g.jsonl")
    assert told.endswith("1 groups of 3 texts, the largest of 3; g.jsonl: 1 groups\n")
    assert "g.tsv: 2 pairs" in run("make_pairs groups --data g.jsonl --out g.tsv --pairs-a-group 2")
    (folder / "a.tsv").write_text("天气呢\t今天很好\n天气呢\t我们去散步\n", "utf-8")
    assert "a.tsv: 2 answers to 1 questions; o.tsv: 1 pairs" in run("make_pairs answers --data a.tsv --out o.tsv")
    (folder / "d.txt").write_text("今天的天气很好，我们去公园。\n今天天气好，去公园散步吧。\n", "utf-8")
    assert "p2.tsv: 1 pairs" in run("make_pairs passages --data d.txt --out p2.tsv --length 8 --shortest 3")
    run("make_pairs mine --model m --data t.txt --out n.tsv --least -1 --most 1 --pairs-a-text 1 --pooling mean")
    mined = [line.split("\t") for line in (folder / "n.tsv").read_text("utf-8").splitlines()]
    assert len(mined) > 2 and all(len({*pair}) == 2 for pair in mined)
    told = run(
        "make_pairs write --model m --data t.txt --out s2.tsv --max-target 6 --batch-size 8 "
        "--max-source 99 --temperature 2 --top-k 0 --top-p 1 --answers 3 --min-length 4"
    )
    assert "t.txt: 13 texts, " in told and "of score 0.5" in told
    assert {line.split("\t")[2] for line in (folder / "s2.tsv").read_text("utf-8").splitlines()} == {"0", "0.5", "1"}
    run("simcse --loss cosent --model m --data s2.tsv --folder of-written --batch-size 8 --examples 0 --epochs 1")
    with pytest.raises(ValueError, match="least is 0.9 and most 0.5: most is from least to 1"):
        run("make_pairs passages --data d.txt --out p3.tsv --least 0.9 --most 0.5")


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
