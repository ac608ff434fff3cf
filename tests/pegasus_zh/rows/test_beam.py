"""Preparing by Apache Beam: the bytes of one machine, whatever the runner, the kills and the faults."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import pegasus_zh
from pegasus_zh.rows.beam import Beam
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.prepare import PrepareConfig, prepare_set
from pegasus_zh.rows.prepared_set import finished_shard, read_manifest
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from tests import gcs
from training.files import buckets
from training.files.errors import DataError

pytest.importorskip("apache_beam", reason="it is in an environment of its own: make beam")
LINES = (Path(pegasus_zh.__file__).parent / "corpus" / "train.jsonl").read_bytes().splitlines(keepends=True)
TEXTS = [json.loads(line)["text"] for line in LINES]
TOKENIZER = PegasusTokenizer(train_pegasus_vocabulary(TEXTS, 1000))
EXAMPLES = ExamplesConfig(max_source=128, max_target=48)
PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PrepareConfig:
    """Eighteen files of very different sizes, one of them compressed, one without a text, with copies among them."""
    folder = tmp_path_factory.mktemp("documents")
    start = 0
    for n in range(16):
        end = start + n**2 // 8
        (folder / f"{n:02}.jsonl").write_bytes(b"".join(LINES[start:end]) or b"\n")
        start = end
    (folder / "copies.jsonl.gz").write_bytes(gzip.compress(b"".join(LINES[10:60])))
    (folder / "last.txt").write_text("\n\n".join(f"{text}。" for text in TEXTS[40:50]))
    return PrepareConfig(data=(str(folder / "*"),), shard_megabytes=0.03, eval_fraction=0.1, workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "whole"
    prepare_set(EXAMPLES, config, TOKENIZER, folder)
    return folder


@pytest.mark.parametrize("flags", [(), PROCESSES], ids=["here", "two processes"])
def test_the_bytes_are_those_of_one_machine(config, whole, tmp_path, flags):
    manifest = prepare_set(EXAMPLES, config, TOKENIZER, tmp_path, Beam(flags))
    assert contents(tmp_path) == contents(whole)
    assert len(list(tmp_path.glob("shard-*"))) > 5 and manifest.files("eval")


@pytest.mark.parametrize("duplicates", ["exact", "near"])
def test_copies_are_left_out_as_on_one_machine(config, tmp_path, duplicates):
    config = replace(config, duplicates=duplicates)
    here = prepare_set(EXAMPLES, config, TOKENIZER, tmp_path / "here")
    there = prepare_set(EXAMPLES, config, TOKENIZER, tmp_path / "there", Beam())
    assert here == there and here.contents.copies >= 40
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_set_in_a_bucket_of_documents_in_a_bucket(config, whole, tmp_path, monkeypatch):
    """By processes that fetch what they read, and write what others read."""
    with gcs.serving(gcs.Served()) as port:
        for name, value in (gcs.environment(port) | {buckets.CACHE: str(tmp_path / "cache")}).items():
            monkeypatch.setenv(name, value)
        place = buckets.path_of(f"gs://{gcs.BUCKET}", "it")
        for path in Path(config.data[0]).parent.iterdir():
            (place / "documents" / path.name).write_bytes(path.read_bytes())
        there = replace(config, data=(f"gs://{gcs.BUCKET}/documents/*",))
        manifest = prepare_set(EXAMPLES, there, TOKENIZER, place / "set", Beam(PROCESSES))
        assert manifest.contents == read_manifest(whole).contents
        for file in manifest.contents.files:
            assert (place / "set" / file.name).read_bytes() == (whole / file.name).read_bytes()


def test_counters_are_those_of_the_manifest(config, tmp_path, monkeypatch):
    from apache_beam import Pipeline

    results = []
    run = Pipeline.run
    monkeypatch.setattr(Pipeline, "run", lambda pipeline: results.append(run(pipeline)) or results[-1])
    manifest = prepare_set(EXAMPLES, config, TOKENIZER, tmp_path, Beam())
    found = {one.key.metric.name: one.committed for one in results[-1].metrics().query()["counters"]}
    assert found == {
        "documents": manifest.contents.documents,
        "without_examples": manifest.contents.without_examples,
        "skipped": 0,
        "rows": sum(file.rows for file in manifest.contents.files),
    }


def test_shards_that_are_damaged_or_missing_are_made_again(config, whole, tmp_path):
    prepare_set(EXAMPLES, config, TOKENIZER, tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "shard-00001.json").unlink()
    damaged = tmp_path / "train-00003.array_record"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("train-*")}
    prepare_set(EXAMPLES, config, TOKENIZER, tmp_path, Beam())
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("train-*")}
    assert {name for name in after if after[name] != before[name]} == {f"train-0000{i}.array_record" for i in (1, 3)}
    assert contents(tmp_path) == contents(whole)


def test_the_same_command_goes_on_after_a_kill(config, whole, tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer")
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "scripts.prepare", "--data", *config.data, "--tokenizer", tmp_path / "tokenizer"]
    command += ["--folder", folder, "--max-source", "128", "--max-target", "48", "--shard-megabytes", "0.03"]
    command += ["--eval-fraction", "0.1", "--", *PROCESSES]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 60
    while len(list(folder.glob("shard-*.json"))) < 2:
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (folder / "manifest.json").exists()
    done = [i for i in range(50) if finished_shard(folder, i)]
    before = {path: path.stat().st_mtime_ns for i in done for path in folder.glob(f"*{i:05}*")}
    assert done
    subprocess.run(command, check=True, capture_output=True)
    assert contents(folder) == contents(whole)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize("flags", [(), PROCESSES], ids=["here", "two processes"])
def test_a_bad_document_is_one_line(tmp_path, flags):
    data = tmp_path / "bad.jsonl"
    data.write_bytes(b"".join(LINES[:5]) + b"{\n")
    with pytest.raises(DataError, match=r"^[^\n]*bad\.jsonl, line 6: [^\n]*use --on-bad-record skip[^\n]*$"):
        prepare_set(EXAMPLES, PrepareConfig(data=(str(data),)), TOKENIZER, tmp_path / "set", Beam(flags))


def test_the_benchmark_runs(tmp_path):
    """A few documents, and no time is looked at."""
    (tmp_path / "few.jsonl").write_bytes(b"".join(LINES[:6]))
    TOKENIZER.save(tmp_path / "tokenizer")
    command = [sys.executable, "-m", "benchmarks.beam", "--data", tmp_path / "few.jsonl"]
    flags = ["--tokenizer", tmp_path / "tokenizer", "--processes", "1", "--repeats", "1"]
    done = subprocess.run([*command, *flags], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0 and "the same bytes in " in done.stdout, done.stderr[-2000:]
