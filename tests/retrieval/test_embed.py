"""Files of vectors: the same in every form, after a kill, and not at all where something is wrong."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from retrieval.embed import EmbedConfig, embed_file
from retrieval.vectors import files as module
from retrieval.vectors.arrays import open_vectors
from retrieval.vectors.encoding import Encoding
from retrieval.vectors.pooling import pooling_named
from retrieval.vectors.whitening import WhitenConfig, Whitening, load_whitening, whiten_file
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS, TEXTS
from training.files.atomic import resumable_write
from training.files.errors import DataError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


def config(model: Path, folder: Path, texts=TEXTS, out: str = "v.npy", **given) -> EmbedConfig:
    (folder / "t.txt").write_text("\n".join(texts) + "\n")
    given = {"pooling": "mean", "encoding": Encoding(max_length=20, tokens=16)} | given
    return EmbedConfig(model=str(model), input=str(folder / "t.txt"), out=str(folder / out), **given)


def test_every_form_has_the_same_vectors(model: Path, tmp_path) -> None:
    assert embed_file(config(model, tmp_path)) == (len(TEXTS), 24)
    wanted = np.load(tmp_path / "v.npy")
    for out in ("v.parquet", "w.array_record"):
        embed_file(config(model, tmp_path, out=out))
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table["text"].to_pylist() == TEXTS
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), wanted)
    reader = ArrayRecordReader(str(tmp_path / "w.array_record"))
    np.testing.assert_array_equal([np.frombuffer(x, np.float32) for x in reader.read_all()], wanted)
    reader.close()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["t.txt", "v.npy", "v.parquet", "w.array_record"]


def test_what_a_failed_command_had_is_not_made_again(model: Path, tmp_path, monkeypatch) -> None:
    embed_file(config(model, tmp_path, out="whole.npy"))
    seen, check = [], module.check_finite

    def fail_later(vectors: np.ndarray, first: int, where: str) -> None:
        seen.append(first)
        if first == 16:
            raise KeyboardInterrupt
        check(vectors, first, where)

    texts = TEXTS * 3
    embed_file(config(model, tmp_path, texts, out="whole.npy"))
    monkeypatch.setattr(module, "check_finite", fail_later)
    with pytest.raises(KeyboardInterrupt):
        embed_file(config(model, tmp_path, texts))
    (partial,) = tmp_path.glob(".v.npy.*.partial")
    with open(partial, "ab") as file:
        file.write(b"cut")
    monkeypatch.setattr(module, "check_finite", lambda vectors, first, where: seen.append(first))
    embed_file(config(model, tmp_path, texts))
    assert seen == [0, 16, 16, 32] and not partial.exists()
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), np.load(tmp_path / "whole.npy"), atol=1e-5)


@pytest.mark.parametrize("later", [TEXTS[:-1], TEXTS[:3] + ["另一句"] + TEXTS[4:]])
def test_texts_that_change_meanwhile_are_refused(model: Path, tmp_path, monkeypatch, later) -> None:
    given, read = config(model, tmp_path), module.read_texts
    lists = iter([TEXTS, later])
    monkeypatch.setattr(module, "read_texts", lambda *_: iter(next(lists)))
    with pytest.raises(DataError, match="it was changed while it was read"):
        embed_file(given)
    monkeypatch.setattr(module, "read_texts", read)
    assert embed_file(given) == (13, 24)


def test_another_whitening_is_other_vectors(model: Path, tmp_path, monkeypatch) -> None:
    path, random = tmp_path / "w.safetensors", np.random.default_rng(0)
    first = Whitening(np.zeros(24, np.float32), random.standard_normal((24, 24)).astype(np.float32))
    changed = first.kernel.copy()
    changed[12, 12] += 1  # in the middle, which repr leaves out
    names: list[str] = []
    monkeypatch.setattr(module, "resumable_write", lambda path, name: names.append(name) or resumable_write(path, name))
    for kernel in (first.kernel, changed):
        Whitening(first.mean, kernel).save(path)
        embed_file(config(model, tmp_path, whitening=str(path)))
    assert names[0] != names[1]


def test_long_texts_are_cut_and_told_of(model: Path, tmp_path, said: list[str]) -> None:
    embed_file(config(model, tmp_path))
    assert said == [f"{tmp_path}/t.txt: 0.00% of {sum(map(len, TEXTS))} ids unknown; 2 texts cut"]


def test_unknown_characters_are_told_of(model: Path, tmp_path, said: list[str]) -> None:
    embed_file(config(model, tmp_path, ["今天臺", "😀"]))
    assert said[0] == f"{tmp_path}/t.txt: 50.00% of 4 ids unknown, 1 texts of nothing else; 0 texts cut"
    assert said[1].startswith("warning: 50.0% of the ids are unknown, most often 臺 (1), 😀 (1)")


def test_whitening_is_fitted_and_applied(model: Path, tmp_path, said: list[str]) -> None:
    texts = [(CHARACTERS * 2)[i % 17 : i % 17 + 2 + i % 11] for i in range(90)]
    embed_file(config(model, tmp_path, texts))
    said.clear()
    whiten_file(WhitenConfig(vectors=(str(tmp_path / "v.npy"),), out=str(tmp_path / "w.safetensors"), dimensions=5))
    assert said == [f"{tmp_path}/w.safetensors: from 24 to 5 dimensions, of 90 vectors"]
    given = {"whitening": str(tmp_path / "w.safetensors"), "normalise": True}
    assert embed_file(config(model, tmp_path, texts, out="x.npy", **given)) == (90, 5)
    wanted = load_whitening(tmp_path / "w.safetensors")(np.load(tmp_path / "v.npy"))
    found = open_vectors(tmp_path / "x.npy")
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)


def test_what_cannot_be_embedded_is_one_line(model: Path, tmp_path) -> None:
    for given, message in (
        ({"out": "v.pkl"}, "written as .npy, .parquet"),
        ({"texts": ["今天", "", "好"]}, "line 2: no text"),
        ({"whitening": "none.safetensors"}, "none.safetensors: no such file"),
    ):
        with pytest.raises(DataError, match=message):
            embed_file(config(model, tmp_path, **given))
    with pytest.raises(DataError, match="give a file"):
        embed_file(replace(config(model, tmp_path), input="-"))
    with pytest.raises(DataError, match="t.tsv, line 1: 3 columns"):
        (tmp_path / "t.tsv").write_text("今天\t好\t1\n")
        embed_file(replace(config(model, tmp_path), input=str(tmp_path / "t.tsv")))
    (tmp_path / "e.txt").write_text("")
    with pytest.raises(DataError, match="no text in it"):
        embed_file(EmbedConfig(model=str(model), input=str(tmp_path / "e.txt"), out=str(tmp_path / "x.npy")))
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    for name in ("o.npy", "t.txt", "gone.npy"):
        with pytest.raises(DataError, match=name):
            open_vectors(tmp_path / name)


@pytest.mark.slow
def test_a_killed_command_goes_on_at_any_moment(model: Path, tmp_path) -> None:
    texts = TEXTS * 40
    embed_file(config(model, tmp_path, texts, out="whole.npy"))
    command = [sys.executable, "-m", "scripts.embed", "--model", str(model), "--input", str(tmp_path / "t.txt")]
    command += ["--out", str(tmp_path / "v.npy"), "--pooling", "mean", "--max-length", "20", "--tokens", "16"]
    for delay in (4, 6, 8, math.inf):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL, env=os.environ)
        begin = time.monotonic()
        while process.poll() is None and time.monotonic() - begin < delay:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), np.load(tmp_path / "whole.npy"), atol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_a_pooling_that_there_is_none_of():
    assert pooling_named("first-last") == "first-last"
    with pytest.raises(DataError, match="pooling is 'max': it must be one of cls, pooler, mean, first-last, last-two"):
        pooling_named("max")
