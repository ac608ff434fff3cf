"""From texts to an index to answers, by command and by the page's API."""

import io
import json
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.search import store
from retrieval.search.commands import (
    EvaluateIndexConfig,
    QueryConfig,
    ServeConfig,
    evaluate,
    open_searcher,
    query,
    ranking,
    shown,
)
from retrieval.search.page.serving import serve
from retrieval.search.store import AddConfig, BuildConfig, add, build
from retrieval.vectors import files
from retrieval.vectors.encoding import Encoding
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS
from training.files.errors import DataError

TEXTS = [CHARACTERS[i : i + n] for i in range(10) for n in (3, 5, 7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An index of kind exact with whitening, its model beside it."""
    folder = tmp_path_factory.mktemp("search")
    write_model(folder / "m")
    (folder / "t.txt").write_text("\n".join(TEXTS) + "\n")
    build(config(folder, whiten=8))
    return folder


def config(folder: Path, name: str = "index", **given) -> BuildConfig:
    texts = str(folder / "t.txt")
    given = {"encoding": Encoding(max_length=20, tokens=64)} | given
    return BuildConfig(model=str(folder / "m"), texts=texts, folder=str(folder / name), **given)


def test_a_text_finds_itself_and_the_rest_by_cosine(folder: Path) -> None:
    searcher = open_searcher(folder / "index")
    hits = searcher.search(TEXTS[:3], 30)
    vectors = searcher.vectors(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors.shape == (30, 8)
    for number, row in enumerate(hits):
        assert row[0].text == TEXTS[number] and row[0].score == pytest.approx(1, abs=1e-4)
        cosines = vectors @ vectors[number]
        np.testing.assert_allclose([hit.score for hit in row], np.sort(cosines)[::-1], atol=1e-5)
    assert not list(folder.glob(".*.npy"))


def test_query_and_evaluate_say_what_they_found(folder: Path, said: list[str]) -> None:
    (folder / "q.txt").write_text(f"{TEXTS[4]}\n{TEXTS[9]}\n")
    query(QueryConfig(folder=str(folder / "index"), input=str(folder / "q.txt"), k=2))
    assert said[0] == TEXTS[4] and said[1].startswith(f"  1.000  {TEXTS[4]}\n")
    (folder / "p.tsv").write_text("".join(f"{text}\t{text}\n" for text in TEXTS))
    found = evaluate(EvaluateIndexConfig(folder=str(folder / "index"), pairs=str(folder / "p.tsv"), k=3))
    assert (found.mrr, found.recall, found.overlap) == (1, 1, 1) and "MRR@3 1.0000" in said[-1]
    build(config(folder, "hnsw", kind="hnsw"))
    found = evaluate(EvaluateIndexConfig(folder=str(folder / "hnsw"), pairs=str(folder / "p.tsv"), k=3))
    assert found.mrr == 1 and found.overlap > 0.9


def test_ranking_is_by_the_first_right_one() -> None:
    mrr, recall = ranking(np.array([[1, 2, 3], [4, 5, 6], [7, 8, -1]]), np.array([1, 6, 9]))
    assert (mrr, recall) == (pytest.approx((1 + 1 / 3) / 3), pytest.approx(2 / 3))


def test_added_texts_are_found(folder: Path, said: list[str]) -> None:
    build(config(folder, "grown", whiten=8))
    (folder / "more.txt").write_text("公园气\n")
    add(AddConfig(folder=str(folder / "grown"), texts=str(folder / "more.txt")))
    hit = open_searcher(folder / "grown").search(["公园气"], 1)[0][0]
    assert (hit.text, hit.place) == ("公园气", 30) and hit.score == pytest.approx(1, abs=1e-4)
    assert {path.name for path in (folder / "grown").iterdir() if path.name != ".lock"} == {
        "about.json", "index.1", "texts.1.jsonl", "whitening.safetensors",
    }  # fmt: skip
    said.clear()
    add(AddConfig(folder=str(folder / "grown"), texts=str(folder / "more.txt")))
    assert "more.txt: 1 of its 1 texts are in" in said[0]
    (folder / "more.txt").write_text(f"气\n{TEXTS[3]}\n天\n公园气\n天\n")
    add(AddConfig(folder=str(folder / "grown"), texts=str(folder / "more.txt")))
    assert "more.txt: 3 of its 5 texts are in" in said[2]
    found = open_searcher(folder / "grown")
    assert found.texts[30:] == ["公园气", "气", "天"]
    assert [row[0].text for row in found.search(["气", "天"], 1)] == ["气", "天"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("一家👨\u200d👩\u200d👧，红心❤\ufe0f", None),  # joined emoji, and a selector of their form
        ("全角\u3000空格\u00a0和 é\u0301", None),
        ("两行\n制表\t铃\a", "两行\\n制表\\t铃\\x07"),
        ("\x1b[31m红\x7f\u2028\u0085", "\\x1b[31m红\\x7f\\u2028\\x85"),
        ("从右\u202e到左\u2066", "从右\\u202e到左\\u2066"),
        ("半个\ud83d", "半个\\ud83d"),
    ],
)
def test_what_a_terminal_can_show_is_shown(text: str, wanted: str | None) -> None:
    assert shown(text) == (text if wanted is None else wanted)


def test_texts_of_several_lines_are_found_as_they_are(folder: Path) -> None:
    texts = ["今天天气", "公园\n天气\r", "散步\u2028好"]
    (folder / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    build(replace(config(folder, "lines"), texts=str(folder / "lines.jsonl")))
    found = open_searcher(folder / "lines")
    assert [row[0].text for row in found.search(texts, 1)] == texts


def test_a_question_of_unknown_characters_has_a_reason_not_hits(folder: Path, monkeypatch, said: list[str]) -> None:
    searcher = open_searcher(folder / "index")
    for question, reason in (("😀🎉", "none of its characters is in"), ("\u200b\ufeff", "no text")):
        with pytest.raises(DataError, match=f"question 1: {reason}"):
            searcher.search([question], 3)
    (folder / "odd.txt").write_text(f"😀🎉\n{TEXTS[4]}\n臺灣\n\n{TEXTS[4]}\n")
    query(QueryConfig(folder=str(folder / "index"), input=str(folder / "odd.txt"), k=1))
    assert said[1] == said[5] == "  none of its characters is in the model's vocabulary"
    assert said[3] == said[9] == f"  1.000  {TEXTS[4]}" and said[6:8] == ["", "  no text"]
    said.clear()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"😀\n\u200b\n{TEXTS[4]}\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    query(QueryConfig(folder=str(folder / "index"), k=1))
    assert said[1:] == ["  none of its characters is in the model's vocabulary", "  no text", f"  1.000  {TEXTS[4]}"]


@pytest.mark.parametrize("at", ["texts", "about"])
def test_an_add_that_fails_leaves_the_index_as_it_was(folder: Path, monkeypatch, at: str) -> None:
    build(config(folder, f"kept-{at}"))
    (folder / "more.txt").write_text("公园气\n")
    given = AddConfig(folder=str(folder / f"kept-{at}"), texts=str(folder / "more.txt"))

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(*{"texts": (store.json, "dumps"), "about": (store, "write_json")}[at], fail)
        add(given)
    assert len(open_searcher(given.folder).texts) == 30
    add(given)
    assert len(open_searcher(given.folder).texts) == 31


def test_a_build_that_failed_does_not_encode_again(folder: Path, monkeypatch) -> None:
    with pytest.raises(DataError, match="256 or more"):
        build(config(folder, "pq", kind="pq"))
    monkeypatch.setattr(files, "encoder", None)
    build(config(folder, "pq", kind="flat"))
    assert not list(folder.glob(".pq*"))


def test_a_port_that_is_taken_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DataError, match="give another --port"):
        serve(ServeConfig(folder=str(folder / "index"), port=taken.getsockname()[1]))


def test_what_does_not_belong_together_is_one_line(folder: Path, tmp_path) -> None:
    with pytest.raises(DataError, match="exists already"):
        build(config(folder))
    with pytest.raises(DataError, match="--whiten 25: the model's vectors have 24 dimensions"):
        build(config(folder, "x", whiten=25))
    (folder / "p2.tsv").write_text(f"{TEXTS[0]}\t{TEXTS[0]}\n好\t没有\n坏\t没有\n")
    with pytest.raises(DataError, match="p2.tsv, line 2: its text is not in the index, nor those of 1 further lines"):
        evaluate(EvaluateIndexConfig(folder=str(folder / "index"), pairs=str(folder / "p2.tsv")))
    with pytest.raises(DataError, match="question 2: no text"):
        open_searcher(folder / "index").search(["好", " "], 1)
    build(config(folder, "other"))
    (folder / "other" / "index.0").write_bytes((folder / "index" / "index.0").read_bytes())
    with pytest.raises(DataError, match="do not belong together"):
        open_searcher(folder / "other")
    (folder / "other" / "texts.0.jsonl").write_text('{"text": "好"}\n')
    with pytest.raises(DataError, match="1 texts of 30"):
        open_searcher(folder / "other")


@pytest.mark.parametrize(("name", "state"), [("", "holds no index"), ("missing", "no such folder")])
def test_without_an_index_it_is_said_how_one_is_made(tmp_path, name: str, state: str) -> None:
    given = str(tmp_path / name)
    (texts := tmp_path / "t.txt").write_text("好\n")
    for command in (
        lambda: query(QueryConfig(folder=given, input=str(texts))),
        lambda: serve(ServeConfig(folder=given, port=free_port())),
        lambda: add(AddConfig(folder=given, texts=str(texts))),
        lambda: evaluate(EvaluateIndexConfig(folder=given, pairs=str(texts))),
    ):
        with pytest.raises(DataError, match=f"^{given}: {state}; make one with .* build .*--folder {given}$"):
            command()
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_length", "64"), ("pooling", "zz"), ("texts", "30"), ("model", 5), ("encoder", "0"), ("whitening", "0")],
)
def test_what_is_said_of_an_index_is_checked(folder: Path, tmp_path, name: str, value: object) -> None:
    shutil.copytree(folder / "index", tmp_path / "i")
    about = json.loads((tmp_path / "i" / "about.json").read_text())
    (tmp_path / "i" / "about.json").write_text(json.dumps(about | {name: value}))
    with pytest.raises(DataError, match="build the index again"):
        open_searcher(tmp_path / "i")


def test_an_index_of_another_kind_is_one_line(folder: Path) -> None:
    for kind in ("flat", "ivf", "hnsw"):
        build(config(folder, f"of-{kind}", kind=kind))
    for kind, other in (("ivf", "flat"), ("hnsw", "ivf")):
        shutil.copy(folder / f"of-{other}" / "index.0", folder / f"of-{kind}" / "index.0")
        with pytest.raises(DataError, match=f"of-{kind}/index.0: not an index"):
            open_searcher(folder / f"of-{kind}")


def test_what_another_build_made_meanwhile_is_kept(folder: Path, monkeypatch) -> None:
    write = store._write

    def slowly(temporary: Path, *given) -> None:
        write(temporary, *given)
        (folder / "taken").mkdir()
        (folder / "taken" / "about.json").write_text("of another")

    monkeypatch.setattr(store, "_write", slowly)
    with pytest.raises(DataError, match="taken: exists already"):
        build(config(folder, "taken"))
    assert (folder / "taken" / "about.json").read_text() == "of another"


def test_a_model_may_have_moved(folder: Path, tmp_path) -> None:
    shutil.copytree(folder / "index", tmp_path / "i")
    about = json.loads((tmp_path / "i" / "about.json").read_text())
    (tmp_path / "i" / "about.json").write_text(json.dumps(about | {"model": "/no/where"}))
    with pytest.raises(DataError, match="/no/where: the model of .* is not there; give its folder as --model"):
        open_searcher(tmp_path / "i")
    found = open_searcher(tmp_path / "i", model=str(folder / "m"))
    assert found.search(TEXTS[2:3], 1)[0][0].text == TEXTS[2]
    (tmp_path / "more.txt").write_text("公园气\n")
    given = AddConfig(folder=str(tmp_path / "i"), texts=str(tmp_path / "more.txt"), model=str(folder / "m"))
    add(given)
    assert len(open_searcher(tmp_path / "i").texts) == 31


def test_questions_are_piped_in_or_typed(folder: Path, monkeypatch, said: list[str]) -> None:
    class Typed(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for given, first in ((io.TextIOWrapper, TEXTS[4]), (Typed, "Ctrl-D ends it")):
        said.clear()
        monkeypatch.setattr(sys, "stdin", given(io.BytesIO(f"{TEXTS[4]}\n".encode()), "utf-8"))
        query(QueryConfig(folder=str(folder / "index"), k=1))
        assert said == [first, f"  1.000  {TEXTS[4]}"]


def test_what_a_killed_add_left_goes_with_the_next(folder: Path) -> None:
    build(config(folder, "killed"))
    for left in ("index.7", "texts.7.jsonl"):
        (folder / "killed" / left).write_text("")
    (folder / "more.txt").write_text("公园气\n")
    add(AddConfig(folder=str(folder / "killed"), texts=str(folder / "more.txt")))
    assert not list((folder / "killed").glob("*.7*"))


def test_a_link_to_a_folder_stays_one(folder: Path, tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    build(replace(config(folder), folder=str(tmp_path / "link")))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "about.json").exists()
