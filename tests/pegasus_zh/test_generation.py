"""The command: files, standard input, a prompt, kills."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from pegasus_zh.generation import GenerateConfig, run_generation
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.text.pairs import Pair, arriving_lines, read_pairs
from pegasus_zh.text.words import spellings
from pegasus_zh.writing import generate
from rope.decoding.search import Search
from rope.decoding.write import write
from tests.pegasus_zh.t5.random_model import random_model
from tests.pegasus_zh.test_writing import CHARACTERS, CONFIG, DECODER, MODEL, TEXTS, TOKENIZER, WRITING
from training.files.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written():
    framed = [TOKENIZER.frame_source(TOKENIZER.encode(text), 12) for text in TEXTS]
    return list(generate(MODEL, DECODER, TOKENIZER, framed, WRITING))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    write_folder(path, jax.device_get(MODEL), CONFIG, TOKENIZER)
    return path


def run(folder, path, tmp_path, **changes):
    config = GenerateConfig(
        model=str(folder), input=str(path), out=str(tmp_path / "out.jsonl"), semantics="mt5", writing=WRITING
    )
    run_generation(replace(config, **changes))
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]


def test_a_file_is_written_for_and_a_killed_run_goes_on(monkeypatch, folder, written, tmp_path):
    path = tmp_path / "in.tsv.gz"
    path.write_bytes(gzip.compress("".join(f"题{i}\t{text}\n" for i, text in enumerate(TEXTS)).encode()))
    expected = [
        {"source": text, "reference": f"题{i}", "written": w}
        for i, (text, w) in enumerate(zip(TEXTS, written, strict=True))
    ]
    assert run(folder, path, tmp_path) == expected
    monkeypatch.setattr("pegasus_zh.writing.WINDOW", 1)
    (tmp_path / "out.jsonl").unlink()
    calls = []

    def killed(*args, **fields):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*args, **fields)

    monkeypatch.setattr("pegasus_zh.writing.write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, path, tmp_path)
    (partial,) = tmp_path.glob(".out.jsonl.*.partial")
    assert len(partial.read_text("utf-8").splitlines()) == 8 and not (tmp_path / "out.jsonl").exists()
    partial.write_bytes(partial.read_bytes() + b'{"source": "cut')
    sizes = []
    monkeypatch.setattr("pegasus_zh.writing.write", lambda *a, **k: sizes.append(1) or write(*a, **k))
    assert run(folder, path, tmp_path) == expected
    assert len(sizes) == 1 and not list(tmp_path.glob("*.partial"))


def test_standard_input_and_the_prompt(monkeypatch, capsys, folder, written):
    config = GenerateConfig(model=str(folder), input="-", semantics="mt5", writing=WRITING)
    lines = "\ufeff" + "\r\n".join(TEXTS[:3]) + "\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="ascii"))
    run_generation(config)
    assert capsys.readouterr().out.splitlines() == written[:3]
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXTS[1] + "\n\n" + TEXTS[2] + "\n"))
    run_generation(replace(config, input=""))
    assert capsys.readouterr().out.replace("> ", "").splitlines() == written[1:3]


def test_several_answers(monkeypatch, capsys, folder, written, tmp_path):
    path, search = tmp_path / "in.txt", Search(beams=4, answers=3)
    path.write_text("\n".join(TEXTS[:2]), "utf-8")
    found = run(folder, path, tmp_path, writing=replace(WRITING, search=search))
    assert [row["answers"][0] for row in found] == [row["written"] for row in found]
    assert all(len(row["answers"]) == 3 and len({*row["answers"]}) > 1 for row in found)
    config = GenerateConfig(model=str(folder), input=str(path), semantics="mt5")
    run_generation(replace(config, writing=replace(WRITING, search=search)))
    wanted = [f"{number}\t{text}" for number, row in enumerate(found, 1) for text in row["answers"]]
    assert capsys.readouterr().out.splitlines() == wanted
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS[:2]).encode())))
    run_generation(replace(config, input="-", writing=replace(WRITING, search=search)))
    assert capsys.readouterr().out.splitlines() == wanted


def test_what_a_folder_suppresses_is_not_written(folder, written, tmp_path):
    mine, path = tmp_path / "model", tmp_path / "in.txt"
    never = tuple(TOKENIZER.encode(written[0][:1]))
    path.write_text("\n".join(TEXTS), "utf-8")
    write_folder(mine, jax.device_get(MODEL), CONFIG, TOKENIZER, suppressed=never)
    assert any(written[0][0] in text for text in written)
    assert not any(written[0][0] in row["written"] for row in run(mine, path, tmp_path))


def test_what_may_be_written_is_no_input(monkeypatch, shown, folder):
    """Words that are forbidden, or begun with, are not counted as the input's, and are looked up once for all lines."""
    writing = replace(WRITING, forbid=("龘龘",), begin=CHARACTERS[0])
    asked = []
    monkeypatch.setattr("pegasus_zh.writing.spellings", lambda t, word: asked.append(word) or spellings(t, word))
    monkeypatch.setattr("pegasus_zh.generation.arriving_lines", lambda stream: iter([[TEXTS[0]], [TEXTS[1]]]))
    run_generation(GenerateConfig(model=str(folder), input="-", semantics="mt5", writing=writing))
    ids = sum(len(TOKENIZER.encode(text)) for text in TEXTS[:2])
    assert asked == ["龘龘"] and f"-: 0.00% of {ids} ids unknown; 0 texts cut" in shown.readouterr().out


def test_standard_input_is_answered_line_by_line(folder, written):
    """In a pipe that stays open: each line's answer comes before the next line goes."""
    command = [sys.executable, "-m", "scripts.generate", "--model", str(folder), "--input", "-", "--semantics", "mt5"]
    command += ["--max-source", "12", "--max-target", str(WRITING.max_target)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for text, expected in zip(TEXTS[:2], written, strict=False):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == expected + "\n"
        process.stdin.write("\n" + TEXTS[2])  # a blank line, and one without an end
        process.stdin.close()
        assert process.stdout.read() == f"\n{written[2]}\n"
        assert "-: 0.00% of " in process.stderr.read()


@pytest.mark.parametrize("content", ["今天".encode("gbk"), "今天".encode("utf-16"), b"a\rb\r\n" * 2])
def test_standard_input_of_another_encoding_is_one_line(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    if b"\r" in content:
        assert list(arriving_lines(sys.stdin.buffer)) == [["a\rb", "a\rb"]]
        return
    with pytest.raises(DataError, match="-, line 1: byte .* gb18030|-: UTF-16, by its first two bytes"):
        list(arriving_lines(sys.stdin.buffer))


def test_the_prompt_says_how_it_ends(monkeypatch, shown, folder):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    run_generation(GenerateConfig(model=str(folder), semantics="mt5", writing=WRITING))
    assert shown.readouterr().out.endswith("\nCtrl-D ends it\n> ")


def test_an_empty_line_gives_an_empty_text(folder, written, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text(f"{TEXTS[0]}\n\n\0\n{TEXTS[1]}\n", "utf-8")
    assert [row["written"] for row in run(folder, path, tmp_path)] == [written[0], "", "", written[1]]
    path.write_text("\n", "utf-8")
    assert [row["written"] for row in run(folder, path, tmp_path)] == [""]


def test_the_input_and_a_folder_are_not_written_to(folder, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text(TEXTS[0], "utf-8")
    for out, message in ((path, "the input"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=message):
            run(folder, path, tmp_path, out=str(out))
    assert path.read_text("utf-8") == TEXTS[0]


def test_the_prompt_draws_anew(monkeypatch, capsys, folder):
    writing = replace(WRITING, search=Search(temperature=2.0))
    monkeypatch.setattr("sys.stdin", io.StringIO((TEXTS[3] + "\n") * 3))
    run_generation(GenerateConfig(model=str(folder), semantics="mt5", writing=writing))
    assert len(set(capsys.readouterr().out.replace("> ", "").splitlines())) > 1


def test_another_model_or_process_does_not_go_on_with_the_same_file(monkeypatch, folder, tmp_path):
    path, mine = tmp_path / "in.txt", tmp_path / "model"
    path.write_text("\n".join(TEXTS), "utf-8")
    shutil.copytree(folder, mine)
    monkeypatch.setattr("pegasus_zh.writing.WINDOW", 1)
    calls = []

    def killed(*args, **fields):
        if calls:
            with pytest.raises(DataError, match="the same command is at work"):  # a second one beside it
                run(mine, path, tmp_path)
            raise KeyboardInterrupt
        calls.append(1)
        return write(*args, **fields)

    monkeypatch.setattr("pegasus_zh.writing.write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(mine, path, tmp_path)
    monkeypatch.setattr("pegasus_zh.writing.write", write)
    other = random_model(CONFIG, seed=5)
    write_folder(mine, jax.device_get(other), CONFIG, TOKENIZER, overwrite=True)
    framed = [TOKENIZER.frame_source(TOKENIZER.encode(text), 12) for text in TEXTS]
    assert [row["written"] for row in run(mine, path, tmp_path)] == list(
        generate(other, DECODER, TOKENIZER, framed, WRITING)
    )


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv"])
def test_a_reference_field_that_is_nowhere_is_refused(tmp_path, name):
    """Where it was asked for by name; the usual one may be missing."""
    path, comma = tmp_path / name, "," if name == "a.csv" else "\t"
    lines = ["title,content", "甲,乙", "丙,丁"]
    if name == "a.jsonl":
        lines = ['{"title": "甲", "content": "乙"}', '{"title": "丙", "content": "丁"}']
    path.write_text("".join(line.replace(",", comma if name == "a.tsv" else ",") + "\n" for line in lines), "utf-8")
    assert [*read_pairs(str(path), "content")] == [Pair("乙", None), Pair("丁", None)]
    assert [*read_pairs(str(path), "content", "title")] == [Pair("乙", "甲"), Pair("丁", "丙")]
    what = "field 'titel' on any line" if name == "a.jsonl" else "column 'titel'"
    with pytest.raises(DataError, match=f"{name}: no {what}; give --reference-field one of: title"):
        [*read_pairs(str(path), "content", "titel")]


FILES = {
    "a.jsonl": ('{"source": "甲", "reference": "乙"}\n{"source": "丙"}\n', [Pair("甲", "乙"), Pair("丙", None)]),
    "a.json": ('{"source": "甲"}\n', [Pair("甲", None)]),
    "a.tsv": ("乙\t甲\n丙\n", [Pair("甲", "乙"), Pair("丙", None)]),
    "blank end.jsonl": ('{"source": "甲"}\n\n \n', [Pair("甲", None)]),
    "blank end.tsv": ("乙\t甲\n\n", [Pair("甲", "乙")]),
    "blank end.txt": ("甲\n\n", [Pair("甲", None), Pair("", None)]),  # a line a text, of whatever length
    "empty.txt": ("", []),
    "mark.txt": ("\ufeff", []),
    "a.txt": ("\ufeff甲\r\n乙\r丙", [Pair("甲", None), Pair("乙\r丙", None)]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_pairs(tmp_path, name):
    content, expected = FILES[name]
    (tmp_path / name).write_bytes(content.encode())
    assert list(read_pairs(str(tmp_path / name))) == expected
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert list(read_pairs(str(tmp_path / f"{name}.gz"))) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"source": "a"}\n{"text": "b"}\n',
            r"a.jsonl, line 2: no field 'source'; give --field one of: text$",
        ),
        ("a.jsonl", b'{"source"\n', "a.jsonl, line 1: broken JSON"),
        ("a.jsonl", b'{"source": "a"}\n\n{"source": "b"}\n', "a.jsonl, line 2 is blank: remove it"),
        ("a.txt", b"a\n\xff\xfe", "a.txt, line 2: byte 0xff is not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: broken JSON"),
        ("a.jsonl", b"[1]", "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", b'{"source": "\\ud800"}', "a.jsonl, line 1: half of a surrogate pair"),
        ("a.txt.gz", gzip.compress(b"a" * 99)[:-20] + b"x" * 12, r"a.txt.gz: \S"),
        ("a.csv", b"a", "a.csv, line 1: no field 'source'; give --field one of: a; or let the first line be ref"),
        ("a.xls", b"a", "unknown kind of file; pairs come as .tsv or .jsonl, .csv or .json .*, inputs also as .txt"),
        ("a.tsv", "乙\t甲\n乙\t甲\t丙\n".encode(), "a.tsv, line 2: 2 tabs"),
        ("a.tsv.gz", b"plain", "a.tsv.gz: broken or truncated gzip .Not a gzipped file"),
        ("missing.txt", None, "missing.txt: No such file"),
    ],
)
def test_faults_have_a_place_and_a_remedy(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_pairs(str(tmp_path / name)))
