"""The training command as a user meets it: in a process of its own, on files of its own."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "pegasus_zh" / "corpus" / "train.jsonl"
SMALL = ["--vocabulary", "1500", "--max-source", "64", "--max-target", "32", "--row-source", "64", "--row-target", "32"]
RUN = [
    *SMALL,
    "--batch-size",
    "4",
    "--log-every",
    "1",
    "--samples",
    "1",
    "--workers",
    "1",
    "--keep",
    "9",
    "--mesh.data",
    "1",
]
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # one device


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scripts.pretrain", *RUN, *arguments]


def pretrain(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> Path:
    """24 of the project's own documents."""
    path = tmp_path_factory.mktemp("documents") / "some.jsonl"
    path.write_text("".join(CORPUS.read_text("utf-8").splitlines(keepends=True)[:24]), "utf-8")
    return path


@pytest.fixture(scope="module")
def finished(documents, tmp_path_factory) -> tuple[Path, str]:
    """A run of 8 steps that nothing disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = pretrain("--data", str(documents), "--folder", str(folder), "--steps", "8", "--save-every", "4")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in rows(folder) if "loss" in row]


def parameters(folder: Path, step: int) -> list[np.ndarray]:
    import jax

    from pegasus_zh.mt5 import MT5Config, init
    from training.checkpoint import Checkpoints

    with Checkpoints(folder / "checkpoints", keep=None) as checkpoints:
        config = MT5Config(**checkpoints.config(step)["model"])
        abstract = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
        return [np.asarray(x) for x in jax.tree.leaves(checkpoints.restore_model(step, abstract))]


def test_a_run_leaves_what_it_promises(finished):
    folder, printed = finished
    assert "reference" in printed and "written" in printed
    assert (folder / "samples.txt").read_text("utf-8").count("written") == 1
    assert (folder / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [step for step, _ in losses(folder)] == list(range(1, 9))
    assert losses(folder)[-1][1] < losses(folder)[0][1]
    assert list((folder / "tensorboard").glob("events*"))
    assert {p.name for p in (folder / "checkpoints").iterdir()} >= {"4", "8"}


def test_a_finished_run_says_so_and_goes_on_with_more_steps(finished, documents, tmp_path):
    folder, _ = finished
    before = (folder / "metrics.jsonl").read_bytes()
    again = pretrain("--data", str(documents), "--folder", str(folder), "--steps", "8")
    assert again.returncode == 0 and "finished at step 8 of 8" in again.stdout
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_equals_undisturbed_to_the_bit(finished, documents, tmp_path, how):
    arguments = ["--data", str(documents), "--folder", str(tmp_path / "run"), "--steps", "8", "--save-every", "2"]
    process = subprocess.Popen(command(*arguments), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and not (metrics.exists() and len(losses(tmp_path / "run")) >= 3):
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=100)
    assert process.returncode == (0 if how == signal.SIGTERM else -how)
    resumed = pretrain(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / "run") == losses(finished[0])
    for mine, undisturbed in zip(parameters(tmp_path / "run", 8), parameters(finished[0], 8), strict=True):
        np.testing.assert_array_equal(mine, undisturbed)


def test_a_loss_that_is_no_number_stops_the_run_with_the_good_checkpoint_kept(documents, tmp_path):
    wild = ["--learning-rate", "1e30", "--warmup", "4", "--clip", "0", "--schedule", "constant", "--save-every", "1"]
    done = pretrain("--data", str(documents), "--folder", str(tmp_path / "run"), "--steps", "8", *wild)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Last good checkpoint" in line and "Traceback" not in done.stderr


BROKEN = {
    "missing path": (None, "No such file"),
    "empty file": (b"", "empty"),
    "not UTF-8": (b'{"text": "\xff\xfe"}\n', "UTF-8"),
    "broken JSON": ('{"text": "一。二。三。"}\n{"text": \n'.encode(), "line 2"),
    "missing field": ('{"body": "一。二。三。"}\n'.encode(), "text"),
    "one sentence": ('{"text": "只有一句话。"}\n'.encode(), "three sentences"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_documents_are_one_line_and_leave_nothing(kind, tmp_path):
    content, expected = BROKEN[kind]
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_bytes(content)
    done = pretrain("--data", str(path), "--folder", str(tmp_path / "run"), "--steps", "2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert expected in line and "bad.jsonl" in line, line
    assert not list((tmp_path / "run").glob("data/manifest.json")) and not (tmp_path / "run" / "checkpoints").exists()


def test_bad_records_are_skipped_when_asked(documents, tmp_path):
    path = tmp_path / "some.jsonl.gz"
    path.write_bytes(gzip.compress(b"{\n" + documents.read_bytes() + b'{"body": 1}\n'))
    done = pretrain("--data", str(path), "--folder", str(tmp_path / "run"), "--steps", "1", "--on-bad-record", "skip")
    assert done.returncode == 0, done.stderr
    assert "2 bad ones skipped" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--mesh.data", "3"], "impossible mesh"),
        (["--accumulate", "3"], "microbatches"),
        (["--selector", "best"], "selector"),
        (["--tokenizer", "/nowhere"], "/nowhere"),
    ],
)
def test_impossible_settings_are_one_line(documents, tmp_path, arguments, expected):
    done = pretrain("--data", str(documents), "--folder", str(tmp_path / "run"), *arguments)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert expected in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_set_of_another_tokenizer_or_a_truncated_shard_is_refused(finished, documents, tmp_path):
    other = pretrain("--data", str(CORPUS), "--folder", str(tmp_path / "other"), "--steps", "1", "--vocabulary", "1200")
    assert other.returncode == 0, other.stderr
    arguments = ["--data", str(CORPUS), "--folder", str(tmp_path / "other"), "--steps", "2"]
    done = pretrain(*arguments, "--tokenizer", str(finished[0] / "tokenizer"))
    assert done.returncode == 1 and "tokenizer" in done.stderr and "Traceback" not in done.stderr
