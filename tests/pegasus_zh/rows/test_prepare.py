"""Prepare: the rows hold the documents' pairs, whatever the workers, the kills, the faults and the disk."""

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

import pegasus_zh
from pegasus_zh.rows.makers import ExamplesConfig, known_sides
from pegasus_zh.rows.packing import decode_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.prepared_set import Manifest, finished_shard, read_manifest
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary, train_sentencepiece
from tests.listening import Terminal
from training.files.errors import DataError
from training.telling import logger, silence

CORPUS = Path(pegasus_zh.__file__).parent / "corpus" / "train.jsonl"
SHARDS = 10  # about
EXAMPLES = ExamplesConfig()
CONFIG = PrepareConfig(
    data=(str(CORPUS),), shard_megabytes=CORPUS.stat().st_size / 1e6 / SHARDS, eval_fraction=0.2, workers=1
)


@pytest.fixture(scope="module")
def tokenizer() -> PegasusTokenizer:
    return PegasusTokenizer(train_pegasus_vocabulary(read_documents([str(CORPUS)]), 3000))


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory) -> Path:
    """A set prepared in one process, without a break."""
    folder = tmp_path_factory.mktemp("sets") / "whole"
    prepare(EXAMPLES, CONFIG, tokenizer, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pairs_in(folder: Path, manifest: Manifest, split: str) -> list[tuple]:
    """Every pair of the set's rows, as (source ids, target ids)."""
    pairs = []
    for file in manifest.files(split):
        reader = ArrayRecordReader(str(folder / file.name))
        assert reader.num_records() == file.rows
        rows = decode_rows(reader.read_all(), manifest.dtype, known_sides(manifest.row), 0, 101)
        for i in range(file.rows):
            row = {name: array[i] for name, array in rows.items()}
            for segment in range(1, row["source_segments"].max() + 1):
                sides = (row[side][row[f"{side}_segments"] == segment] for side in ("source", "target"))
                pairs.append(tuple(tuple(side.tolist()) for side in sides))
    return pairs


def test_rows_hold_the_pairs_of_every_document(whole, tokenizer):
    """And the held-out documents are those with a small hash, in the eval shards alone."""
    manifest, texts = read_manifest(whole), list(read_documents(CONFIG.data))
    expected: dict[str, list] = {"train": [], "eval": []}
    for text, pairs in zip(texts, EXAMPLES.make(texts, tokenizer), strict=True):
        held_out = hashlib.blake2b(text.encode(), digest_size=8).digest() < bytes([51, 51, 51, 51, 51, 51, 51, 51])
        expected["eval" if held_out else "train"] += [tuple(tuple(side.tolist()) for side in pair) for pair in pairs]
    for split in ("train", "eval"):
        assert sorted(pairs_in(whole, manifest, split)) == sorted(expected[split])
    assert 0.1 < len(expected["eval"]) / len(expected["train"] + expected["eval"]) < 0.3


def test_manifest_counts(whole, tokenizer):
    manifest = read_manifest(whole)
    texts = list(read_documents(CONFIG.data))
    pairs = pairs_in(whole, manifest, "train")
    assert manifest.contents.documents == len(texts)
    assert manifest.contents.bytes == sum(len(text.encode()) for text in texts)
    assert manifest.tokenizer["fingerprint"] == tokenizer.fingerprint == load_tokenizer(whole / "tokenizer").fingerprint
    assert SHARDS - 1 <= len(manifest.files("train")) <= SHARDS + 1
    assert sum(file.examples for file in manifest.files("train")) == len(pairs)
    positions = sum(file.rows for file in manifest.files("train")) * np.array([*manifest.row.values()])
    used = np.array([[len(side) for side in pair] for pair in pairs]).sum(0)
    assert manifest.padding["train"]["source"] == pytest.approx(1 - used[0] / positions[0])
    assert manifest.padding["train"]["target"] == pytest.approx(1 - used[1] / positions[1])
    assert manifest.padding["train"]["all"] == pytest.approx(1 - used.sum() / positions.sum())


def test_the_number_of_workers_changes_no_byte(whole, tokenizer, tmp_path):
    prepare(EXAMPLES, replace(CONFIG, workers=2), tokenizer, tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_finished_set_is_left_alone(whole, tokenizer, shown):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert prepare(
        EXAMPLES, replace(CONFIG, workers=2, on_bad_record="skip"), tokenizer, whole
    ).manifest == read_manifest(whole)
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before
    assert shown.readouterr().out == ""


def test_a_terminal_sees_a_bar_of_a_command_but_within_a_silence(tokenizer, tmp_path, monkeypatch, shown):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with silence():
        prepare(EXAMPLES, CONFIG, tokenizer, tmp_path / "silent")
    with monkeypatch.context() as patch:
        patch.setattr(logger, "handlers", [])
        prepare(EXAMPLES, CONFIG, tokenizer, tmp_path / "program")
    assert terminal.getvalue() == ""
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path / "loud")
    assert "prepare: " in terminal.getvalue()


def test_only_unfinished_and_damaged_shards_are_made_again(whole, tokenizer, tmp_path):
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "shard-00001.json").unlink()
    truncated, damaged = tmp_path / "train-00002.array_record", tmp_path / "train-00003.array_record"
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (tmp_path / "shard-00004.json").write_text("{")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("train-*")}
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("train-*")}
    assert {name for name in after if after[name] != before[name]} == {
        f"train-0000{i}.array_record" for i in (1, 2, 3, 4)
    }
    assert contents(tmp_path) == contents(whole)


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_script_whose_workers_would_run_it_again_is_told(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vocabulary")
    program = (
        "from pegasus_zh.rows.makers import ExamplesConfig\n"
        "from pegasus_zh.rows.prepare import *\n"
        "from pegasus_zh.text.tokenizer_files import load_tokenizer\n"
        f"prepare(ExamplesConfig(), PrepareConfig(data=({str(CORPUS)!r},), shard_megabytes=0.05, workers=2),"
        f" load_tokenizer({str(tmp_path / 'vocabulary')!r}), {str(tmp_path / 'set')!r})\n"
    )
    (tmp_path / "run.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, tmp_path / "run.py"], env=environment, capture_output=True, text=True, timeout=100
    )
    assert run.returncode and 'needs the line `if __name__ == "__main__":`' in run.stderr


def test_a_killed_run_goes_on_to_the_same_bytes(whole, tokenizer, tmp_path):
    """kill -9 in the middle; the workers die with their parent."""
    tokenizer.save(tmp_path / "vocabulary")
    folder = tmp_path / "set"
    program = (
        "from pegasus_zh.rows.makers import ExamplesConfig\n"
        "from pegasus_zh.rows.prepare import *\n"
        "from pegasus_zh.text.tokenizer_files import load_tokenizer\n"
        "if __name__ == '__main__':\n"
        f"    config = PrepareConfig(data=({str(CORPUS)!r},), shard_megabytes={CONFIG.shard_megabytes!r},"
        " eval_fraction=0.2, workers=2)\n"
        f"    prepare(ExamplesConfig(), config, load_tokenizer({str(tmp_path / 'vocabulary')!r}), {str(folder)!r})\n"
    )
    (tmp_path / "run.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen([sys.executable, tmp_path / "run.py"], env=environment)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    wait_until(lambda: len(list(folder.glob("shard-*.json"))) >= 2)
    workers = [int(pid) for pid in children.read_text().split()]
    assert len(workers) >= 2
    run.kill()
    run.wait()
    wait_until(lambda: not any(map(alive, workers)))
    assert not (folder / "manifest.json").exists()
    done = {
        path: path.stat().st_mtime_ns
        for i in range(20)
        if finished_shard(folder, i)
        for path in folder.glob(f"*{i:05d}*")
    }
    assert done
    prepare(EXAMPLES, CONFIG, tokenizer, folder)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert contents(folder) == contents(whole)


def test_two_runs_into_one_folder(whole, tokenizer, tmp_path, shown):
    """The second waits for the first, and finds all done."""
    manifests = []
    runs = [
        threading.Thread(target=lambda: manifests.append(prepare(EXAMPLES, CONFIG, tokenizer, tmp_path).manifest))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert manifests[0] == manifests[1] == read_manifest(tmp_path)
    assert contents(tmp_path) == contents(whole)
    assert shown.readouterr().out.count("MB/s") == 1


def changed(change: dict) -> tuple[ExamplesConfig, PrepareConfig]:
    """The two configs with a field of one of them changed."""
    (name,) = change
    return (replace(EXAMPLES, **change), CONFIG) if hasattr(EXAMPLES, name) else (EXAMPLES, replace(CONFIG, **change))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"ratio": 0.3}, "ratio"), ({"eval_fraction": 0.1}, "eval_fraction"), ({"max_source": 300}, "max_source")],
)
def test_other_settings_are_refused(whole, tokenizer, change, word):
    with pytest.raises(DataError, match=rf"made with {word} .* \(here .*: give another --folder, or delete {whole}$"):
        examples, config = changed(change)
        prepare(examples, config, tokenizer, whole)


def test_another_tokenizer_or_document_is_refused(tokenizer, tmp_path):
    documents = tmp_path / "a.jsonl"
    documents.write_bytes(CORPUS.read_bytes())
    config = replace(CONFIG, data=(str(documents),))
    prepare(EXAMPLES, config, tokenizer, tmp_path / "set")
    with pytest.raises(DataError, match="made with tokenizer"):
        prepare(EXAMPLES, config, PegasusTokenizer(tokenizer.vocabulary[:-1]), tmp_path / "set")
    with documents.open("a") as file:
        file.write('{"text": "新的一行"}\n')
    with pytest.raises(DataError, match=r"made with other documents \(a.jsonl with another content\): give another"):
        prepare(EXAMPLES, config, tokenizer, tmp_path / "set")


def test_documents_that_were_touched_are_the_same(tokenizer, tmp_path, shown):
    documents = tmp_path / "a.jsonl"
    documents.write_bytes(CORPUS.read_bytes())
    config = replace(CONFIG, data=(str(documents),))
    made = prepare(EXAMPLES, config, tokenizer, tmp_path / "set").manifest
    shown.readouterr()
    os.utime(documents, (1, 1))
    assert prepare(EXAMPLES, config, tokenizer, tmp_path / "set").manifest == made
    assert shown.readouterr().out == ""  # nothing was made again
    (tmp_path / "set" / "manifest.json").unlink()  # nor are the shards of an unfinished set
    assert prepare(EXAMPLES, config, tokenizer, tmp_path / "set").manifest == made


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_records_stop_or_are_counted(tokenizer, tmp_path, workers):
    lines = CORPUS.read_bytes().splitlines()
    lines[60:60] = [b'{"text": 1}', b"{", b'{"text": 2}']
    documents = tmp_path / "a.jsonl"
    documents.write_bytes(b"\n".join(lines))
    config = replace(CONFIG, data=(str(documents),), workers=workers)
    with pytest.raises(DataError, match=rf"{documents}, line 61: .* not a string") as caught:
        prepare(EXAMPLES, config, tokenizer, tmp_path / "set")
    assert "\n" not in str(caught.value)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("shard-*")}
    assert finished
    manifest = prepare(EXAMPLES, replace(config, on_bad_record="skip"), tokenizer, tmp_path / "set").manifest
    assert manifest.contents.skipped == {"field not a string": 2, "broken JSON": 1}
    assert manifest.contents.documents == len(lines) - 3
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def test_documents_too_short_for_a_pair(tokenizer, tmp_path):
    documents = tmp_path / "a.jsonl"
    documents.write_text('{"text": "一句话。"}\n{"text": ""}\n')
    told = "a.jsonl: nothing to train on, as none of 2 texts has three sentences; give .* blank line; .* in --field"
    config = replace(CONFIG, data=(str(documents),))
    with pytest.raises(DataError, match=told):
        prepare(EXAMPLES, config, tokenizer, tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
    documents.write_bytes(CORPUS.read_bytes())  # mended, they are taken in the same folder
    assert prepare(EXAMPLES, config, tokenizer, tmp_path / "set").manifest.contents.files
    documents.write_text('{"text": "一句话。"}\n{"text": ""}\n')
    config = replace(CONFIG, data=(str(documents), str(CORPUS)))
    assert prepare(EXAMPLES, config, tokenizer, tmp_path / "both").manifest.contents.without_examples >= 2


def test_a_full_disk_is_one_clear_line_and_nothing_half_written(whole, tokenizer, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a file cannot grow further: as a disk that is full
    try:
        with pytest.raises(DataError, match="cannot write shard 0 .*make room.*finished shards are kept") as caught:
            prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", "tokenizer", ".lock"}
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_killed_worker_is_one_clear_line(whole, tokenizer, tmp_path):
    def kill_one():
        wait_until(lambda: list(tmp_path.glob("shard-*.json")))
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(DataError, match=r"a worker was killed .*--workers.*finished shards are kept") as caught:
        prepare(EXAMPLES, replace(CONFIG, workers=2), tokenizer, tmp_path)
    killer.join()
    assert "\n" not in str(caught.value)
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_sentencepiece(tmp_path, workers):
    tokenizer = SentencePieceTokenizer(train_sentencepiece(read_documents([str(CORPUS)]), 4000))
    manifest = prepare(EXAMPLES, replace(CONFIG, eval_fraction=0, workers=workers), tokenizer, tmp_path).manifest
    assert manifest.tokenizer["kind"] == "sentencepiece" and (tmp_path / "tokenizer" / "spiece.model").exists()
    expected = EXAMPLES.make([*read_documents(CONFIG.data)], tokenizer)
    expected = [tuple(tuple(side.tolist()) for side in pair) for pairs in expected for pair in pairs]
    assert sorted(pairs_in(tmp_path, manifest, "train")) == sorted(expected)


def test_workers_load_no_jax():
    """Starting a worker costs what prepare imports."""
    heavy = ("jax", "grain", "tensorflow", "tensorflow_datasets", "pyarrow")
    program = f"import sys, pegasus_zh.rows.prepare; print([name for name in {heavy} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratio": -1}, "ratio is -1"),
        ({"selector": "best"}, "must be one of lcs"),
        ({"row_source": 100}, "longest pair"),
        ({"eval_fraction": 1}, "below 1"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        changed(change)


def test_settings_are_on_record(whole):
    settings = json.loads((whole / "settings.json").read_text())
    manifest = read_manifest(whole)
    assert settings["row"] == manifest.row and [*manifest.row] == ["source", "target"]
    assert manifest.settings == {name: value for name, value in settings.items() if name != "row"}
    content = hashlib.sha256(CORPUS.read_bytes()).hexdigest()
    assert settings["sources"] == [[CORPUS.name, CORPUS.stat().st_size, CORPUS.stat().st_mtime_ns, content]]


def test_span_corruption(tokenizer, tmp_path):
    """The pairs of T5's objective: uncut, the same in every process, and the text again when put together."""
    examples = ExamplesConfig(selector="span-corruption")
    texts = list(read_documents((str(CORPUS),)))[:20]
    pairs = examples.make(texts, tokenizer)
    again = examples.make(texts, tokenizer)
    for text, found, same in zip(texts, pairs, again, strict=True):
        assert found and len(found) == len(same)
        for (source, target), (source_again, target_again) in zip(found, same, strict=True):
            np.testing.assert_array_equal(source, source_again)
            np.testing.assert_array_equal(target, target_again)
            assert len(source) <= 384 and len(target) <= 127 and (source[0], source[-1], target[-1]) == (101, 102, 102)
            spans = np.split(target[:-1], np.flatnonzero(target[:-1] < 100)[1:])
            lost = {span[0]: span[1:].tolist() for span in spans}
            whole = [i for token in source[1:-1].tolist() for i in lost.get(token, [token])]
            assert tokenizer.decode(whole).replace(" ", "")[:20] in tokenizer.decode(tokenizer.encode(text)).replace(
                " ", ""
            )
    with pytest.raises(DataError, match="use a vocab.txt, not sentencepiece"):
        prepare(examples, CONFIG, SentencePieceTokenizer(train_sentencepiece(texts, 2000)), tmp_path)


PAIRS = [(f"今天天气很好，我们去公园散步{'。' * (n % 5 + 1)}", f"公园散步{'啊' * (n % 7)}") for n in range(90)]
PAIR_FILES = {
    "a.tsv": "".join(f"{reference}\t{source}\r\n" for source, reference in PAIRS),
    "a.jsonl": "".join(json.dumps({"title": title, "body": body}) + "\n" for body, title in PAIRS),
    "a.json": json.dumps([{"title": title, "body": body} for body, title in PAIRS], indent=1),
    "a.csv": "title,body\n" + "".join(f'{title},"{body}"\n' for body, title in PAIRS),
    "named.tsv": "title\tbody\n" + "".join(f"{title}\t{body}\n" for body, title in PAIRS),
}


@pytest.mark.parametrize("name", PAIR_FILES)
@pytest.mark.parametrize("workers", [1, 2])
def test_pairs(tokenizer, tmp_path, name, workers):
    """Of files of pairs, each one example; those of one source are all held out, or none of them is."""
    (tmp_path / name).write_text(PAIR_FILES[name], "utf-8", newline="")
    examples = ExamplesConfig(selector="pairs")
    config = PrepareConfig(
        data=(str(tmp_path / name),),
        pair_fields=("body", "title"),
        shard_megabytes=0.001,
        eval_fraction=0.4,
        workers=workers,
    )
    manifest = prepare(examples, config, tokenizer, tmp_path / "set").manifest
    assert prepare(examples, config, tokenizer, tmp_path / "set").manifest == manifest  # known again
    found = {split: pairs_in(tmp_path / "set", manifest, split) for split in ("train", "eval")}
    wanted = [tuple(tuple(side.tolist()) for side in pair) for (pair,) in examples.make(PAIRS, tokenizer)]
    assert sorted(found["train"] + found["eval"]) == sorted(wanted)
    train, heldout = ({source for source, _ in pairs} for pairs in found.values())
    assert train and heldout and not train & heldout
    assert manifest.contents.bytes == sum(len(text.encode()) for pair in PAIRS for text in pair)


@pytest.mark.parametrize("workers", [1, 2])
def test_of_a_hundred_documents_one_at_least_is_held_out(tokenizer, tmp_path, said, workers):
    """That of the lowest digest, wherever it stands, where by chance none is below the fraction."""

    def digest(text: str) -> float:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64

    sources = [source for source in (f"今天第{n}次去公园散步" for n in range(200)) if digest(source) > 0.01][:99]
    lowest = min(sources, key=digest)
    config, examples = PrepareConfig(shard_megabytes=0.001, workers=workers), ExamplesConfig(selector="pairs")
    lines = [f"散步\t{source}\n" for source in sources]
    for name, given in {"hundred": [f"公园\t{lowest}\n", *lines], "fewer": lines}.items():
        (tmp_path / f"{name}.tsv").write_text("".join(given), "utf-8")
        folder, settings = tmp_path / name, replace(config, data=(str(tmp_path / f"{name}.tsv"),))
        rows = prepare(examples, settings, tokenizer, folder)
        assert len(rows.manifest.files("train")) > 3
        chosen = (
            f"rows of {rows.manifest.shape}, chosen by a sample of the documents; --row-source and --row-target fix"
        )
        assert any(line.startswith(chosen) for line in said)
        if name == "fewer":
            assert rows.heldout is None and "99 pairs, none of them held out (a larger --eval-frac" in said[-1]
            continue
        assert "100 pairs, 2 of them held out, in" in said[-1]
        held = [tuple(x.tolist()) for x in examples.make([(lowest, "散步")], tokenizer)[0][0]]
        assert held in [[*pair] for pair in pairs_in(folder, rows.manifest, "eval")]
        assert tuple(held[0]) not in {source for source, _ in pairs_in(folder, rows.manifest, "train")}
        whole = contents(folder)
        for lost in ("manifest.json", "shard-00000.json"):  # and a set that was stopped becomes the same
            (folder / lost).unlink()
        prepare(examples, settings, tokenizer, folder)
        assert contents(folder) == whole


@pytest.mark.parametrize(
    ("name", "line", "reason", "message"),
    [
        (
            "a.tsv",
            "只有正文\n",
            "half a pair",
            "a.tsv, line 91: .* the reference is missing.*, or use --on-bad-record skip",
        ),
        (
            "a.tsv",
            "标题\t \n",
            "half a pair",
            "a.tsv, line 91: .* the source is missing.*, or use --on-bad-record skip",
        ),
        ("a.tsv", "甲\t乙\t丙\n", "not a pair", "a.tsv, line 91: 2 tabs"),
        (
            "a.jsonl",
            '{"text": "甲"}\n',
            "missing field",
            "line 91: no field 'body'; give --pair-fields one of",
        ),
    ],
)
def test_what_is_no_pair_stops_or_is_counted(tokenizer, tmp_path, name, line, reason, message):
    (tmp_path / name).write_text(PAIR_FILES[name] + line, "utf-8", newline="")
    examples = ExamplesConfig(selector="pairs")
    config = PrepareConfig(data=(str(tmp_path / name),), pair_fields=("body", "title"), workers=1)
    with pytest.raises(DataError, match=message):
        prepare(examples, config, tokenizer, tmp_path / "set")
    manifest = prepare(examples, replace(config, on_bad_record="skip"), tokenizer, tmp_path / "set").manifest
    assert manifest.contents.documents == 90 and manifest.contents.skipped == {reason: 1}


def test_files_of_no_pairs_are_refused(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("甲", "utf-8")
    config = PrepareConfig(data=(str(tmp_path / "a.txt"),))
    with pytest.raises(DataError, match="pairs come as .tsv or .jsonl"):
        prepare(ExamplesConfig(selector="pairs"), config, tokenizer, tmp_path / "set")
