"""The training command as a user meets it: on files of its own, where it is killed in a process of its own."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest

import pegasus_zh.pretrain
from pegasus_zh.pretrain import parse
from scripts import pretrain as script
from training.command import STOPPED, run
from training.files.errors import DataError
from training.files.locks import locked
from training.metrics import read_metrics
from training.telling import logger

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "pegasus_zh" / "corpus" / "train.jsonl"
SMALL = ["--vocabulary", "1500", "--max-source", "64", "--max-target", "32", "--row-source", "64", "--row-target", "32"]
TRAINING = [
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
    "--schedule",  # does not depend on --steps, so that all runs share one compiled program
    "constant",
]
RUN = [*SMALL, *TRAINING]
# One device, and otherwise compiled as in this process: to the bit the same numbers, and the same programs.
FLAGS = re.sub("--xla_force_host_platform_device_count=[0-9]+", "", os.environ["XLA_FLAGS"])
ENVIRONMENT = os.environ | {"XLA_FLAGS": FLAGS}

pytestmark = pytest.mark.usefixtures("one_device")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "scripts.pretrain", *RUN, *map(str, arguments)]


def process(*arguments: str | Path) -> subprocess.CompletedProcess:
    given = command(*arguments)
    return subprocess.run(given, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)


def pretrain(*arguments: str | Path, flags: list[str] = RUN) -> subprocess.CompletedProcess:
    """What `process` gives, from within this one: another takes four seconds to begin."""
    given, status, out, err = [*flags, *map(str, arguments)], 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["pretrain.py", *given])
        patch.setattr(logger, "handlers", [])
        patch.setattr(logger, "propagate", True)
        try:
            run(script.main)
        except SystemExit as left:  # what Python does with it
            status = left.code if isinstance(left.code, int) else 1
            err.write("" if isinstance(left.code, int) else f"{left.code}\n")
    return subprocess.CompletedProcess(given, status, out.getvalue(), err.getvalue())


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
    done = process("--data", documents, "--folder", folder, "--steps", "8", "--save-every", "4")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in rows(folder) if "loss" in row]


def parameters(folder: Path, step: int) -> list[np.ndarray]:
    from pegasus_zh.t5.mt5 import MT5Config, init
    from training.checkpoints import Checkpoints

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


@pytest.mark.slow  # processes; the law is tested in training/test_loop.py
def test_a_finished_run_says_so_and_goes_on_with_more_steps(finished, documents, tmp_path):
    shutil.copytree(finished[0], folder := tmp_path / "run")
    run = ["--data", documents, "--folder", folder, "--samples", "0", "--steps"]
    before = (folder / "metrics.jsonl").read_bytes()
    again = pretrain(*run, "8")
    assert again.returncode == 0 and f"{folder}: finished at step 8 of 8" in again.stdout
    assert (folder / "metrics.jsonl").read_bytes() == before
    more = pretrain(*run, "10")
    assert more.returncode == 0 and f"{folder}: resumed at step 8 of 10" in more.stdout
    assert [step for step, _ in losses(folder)] == list(range(1, 11))
    assert losses(folder)[:8] == losses(finished[0])


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_undisturbed_to_the_bit(finished, documents, tmp_path, how):
    run = ["--data", documents, "--folder", tmp_path / "run"]
    arguments = [*run, "--steps", "8", "--save-every", "2", "--samples", "0"]
    process = subprocess.Popen(command(*arguments), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and not (metrics.exists() and len(losses(tmp_path / "run")) >= 3):
        time.sleep(0.002)
    process.send_signal(how)
    process.communicate(timeout=100)
    assert process.returncode == (STOPPED if how == signal.SIGTERM else -how)
    resumed = pretrain(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / "run") == losses(finished[0])
    for mine, undisturbed in zip(parameters(tmp_path / "run", 8), parameters(finished[0], 8), strict=True):
        np.testing.assert_array_equal(mine, undisturbed)


@pytest.mark.slow  # as above
def test_an_update_that_is_no_number_stops_the_run_and_is_not_saved(documents, tmp_path):
    wild = ["--learning-rate", "1e30", "--warmup", "1", "--clip", "0", "--save-every", "1"]
    done = pretrain("--data", documents, "--folder", tmp_path / "run", "--steps", "8", *wild)
    assert done.returncode == 65 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    checkpoints = tmp_path / "run" / "checkpoints"
    assert "error: step 1: update_norm is inf" in line and "Nothing was saved yet" in line
    assert not list(checkpoints.iterdir())


BROKEN = {
    "missing path": (None, "No such file"),
    "empty file": (b"", "empty"),
    "not UTF-8": (b'{"text": "\xff\xfe"}\n', "line 1: byte 0xff is not UTF-8"),
    "broken JSON": ('{"text": "一。二。三。"}\n{"text": \n'.encode(), "line 2: broken JSON"),
    "missing field": ('{"body": "一。二。三。"}\n'.encode(), "line 1: no field 'text'; give --field one of: body"),
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
    left = {path.name for path in tmp_path.glob("run/**/*") if path.is_file()}
    assert left <= {".lock", "vocab.txt", "made.json", "settings.json", "shard-00000.json"}, (
        left
    )  # whole, as all that is written is


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


def test_a_set_of_another_tokenizer_is_refused(finished, documents, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    other = tmp_path / "other.txt"
    other.write_text((finished[0] / "tokenizer" / "vocab.txt").read_text("utf-8") + "[new]\n", "utf-8")
    done = pretrain("--data", documents, "--folder", tmp_path / "run", "--steps", "9", "--tokenizer", other)
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert f"{tmp_path / 'run' / 'data'} holds a set made with tokenizer " in line and "give another --folder" in line


def test_a_truncated_shard_is_prepared_again(finished, documents, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    shard = tmp_path / "run" / "data" / "train-00000.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    done = pretrain("--data", documents, "--folder", tmp_path / "run", "--steps", "8", "--samples", "0")
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "expected"), [(["--preset", "huge"], "invalid choice 'huge'"), (["--stepz", "4"], "--steps")]
)
def test_an_unknown_flag_is_refused_by_name_before_anything_is_written(tmp_path, arguments, expected):
    done = pretrain("--folder", tmp_path / "run", *arguments)
    assert done.returncode == 2 and expected in done.stderr and arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_a_batch_that_the_mesh_cannot_cut(tmp_path, monkeypatch):
    three = jax.local_devices()[:3]
    monkeypatch.setattr(jax, "devices", lambda: three)
    done = pretrain("--folder", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr == (
        "error: impossible mesh (3, 1, 1): batch_size / accumulate = 4 is not a multiple of data x fsdp = 3; "
        "change the mesh or batch_size / accumulate\n"
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


REFUSED = {
    "another order of the data": (["--batch-size", "8"], "its run had batch_size 4, not 8"),
    "another vocabulary": (["--vocabulary", "900"], "holds a vocabulary made with"),
    "nothing kept": (["--keep", "0"], "error: --keep is 0: it must be 1 or more"),
    "no step": (["--steps", "0"], "error: --steps is 0: it must be 1 or more"),
    "ascent": (["--clip", "-1"], "error: --clip is -1.0: it must be 0 or more"),
    "all dropped": (["--dropout", "1"], "error: --dropout is 1.0: it must be at least 0 and below 1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_lose_work_is_refused_and_changes_nothing(finished, documents, tmp_path, kind):
    shutil.copytree(finished[0], tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments, expected = REFUSED[kind]
    done = pretrain("--data", documents, "--folder", tmp_path / "run", "--steps", "9", *arguments)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert expected in " ".join(done.stderr.replace("│", " ").split()), (
        done.stderr
    )  # as a parser's box breaks its lines
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == {path: content for path, content in before.items() if path.name != ".lock"}


def test_one_run_at_a_time_in_a_folder(documents, tmp_path):
    with locked(tmp_path / "run"):
        done = process("--data", documents, "--folder", tmp_path / "run")
    assert done.returncode == 1 and "another run is at work there" in done.stderr


def test_a_prepared_set_is_trained_on(finished, tmp_path):
    run = ["--prepared", finished[0] / "data", "--folder", tmp_path / "run", "--steps", "8", "--samples", "0"]
    done = pretrain(*run, flags=TRAINING)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(finished[0]) and not (tmp_path / "run" / "data").exists()


PREPARED = {
    "--eval-fraction": ["0.2"],
    "--data": ["some.txt"],
    "--selector": ["lead"],
    "--row-source": ["1024"],
    "--vocabulary": ["900"],
    "--tokenizer": ["vocab.txt"],
}


@pytest.mark.parametrize("flag", PREPARED)
def test_flags_of_a_set_are_refused_beside_one_that_is_there(tmp_path, flag):
    config = parse(["--prepared", str(tmp_path), "--folder", str(tmp_path / "run"), flag, *PREPARED[flag]])
    with pytest.raises(DataError, match=f"^--prepared names a set .* leave out {flag}, or --prepared$"):
        pegasus_zh.pretrain.pretrain(config)


def test_documents_held_out_beside_a_set_are_prepared_as_asked(tmp_path):
    """Until it is seen that there is no set."""
    run = ["--prepared", str(tmp_path), "--eval-data", str(CORPUS), "--folder", str(tmp_path / "run")]
    heeded = ["--max-source", "64", "--selector", "lead", "--workers", "1", "--field", "text"]
    with pytest.raises(DataError, match="no prepared set"):
        pegasus_zh.pretrain.pretrain(parse([*run, *heeded]))
    with pytest.raises(DataError, match="leave out --eval-fraction, --row-source, or"):
        pegasus_zh.pretrain.pretrain(parse([*run, *heeded, "--eval-fraction", "0.5", "--row-source", "128"]))


def in_two_processes(arguments: list[str], tensor: int = 2) -> list[str]:
    """What each of two processes of two devices printed that run the same command together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = ENVIRONMENT | {
        "XLA_FLAGS": ENVIRONMENT["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    both = [
        subprocess.Popen(
            [*arguments, "--distributed", "--mesh.fsdp", "2", "--mesh.tensor", str(tensor)],
            cwd=ROOT,
            env=environment | {"JAX_PROCESS_ID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=250)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], printed
    return printed


@pytest.mark.slow
def test_two_processes_prepare_and_train_as_one(finished, documents, tmp_path):
    """The first prepares, both train, and the losses are those of one device."""
    printed = in_two_processes(command("--data", documents, "--folder", tmp_path / "run", "--steps", "8"))
    assert np.array(losses(tmp_path / "run")) == pytest.approx(np.array(losses(finished[0])), rel=1e-4)
    assert printed[0].count("written") == 1 and "written" not in printed[1] and "held out" not in printed[1]
    assert (tmp_path / "run" / "samples.txt").read_text("utf-8").count("written") == 1


@pytest.mark.slow
def test_two_processes_fine_tune_as_one(finished, tmp_path):
    """Both write for the validation sources; the first keeps the best model; the same command finds it finished."""
    texts = [json.loads(line)["text"] for line in CORPUS.read_text("utf-8").splitlines()[:24]]
    pairs = tmp_path / "pairs.tsv"
    lines = ("".join(text[:50].split()) for text in texts)
    pairs.write_text("".join(f"{line[:9]}\t{line}\n" for line in lines), "utf-8")
    arguments = [sys.executable, "-m", "scripts.finetune", "--model", str(finished[0]), "--data", str(pairs)]
    arguments += ["--epochs", "2", "--batch-size", "8", "--valid-examples", "6", "--max-source", "48"]
    alone = subprocess.run(
        [*arguments, "--folder", str(tmp_path / "alone")], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    printed = in_two_processes([*arguments, "--folder", str(tmp_path / "both")])
    assert np.array(losses(tmp_path / "both")) == pytest.approx(np.array(losses(tmp_path / "alone")), rel=1e-4)
    one, two = (json.loads((tmp_path / name / "best.json").read_bytes()) for name in ("alone", "both"))
    assert two == pytest.approx(one, rel=1e-3) and "pairs to train on" not in printed[1]
    again = in_two_processes([*arguments, "--folder", str(tmp_path / "both")])
    assert "finished at step" in again[0]


def test_a_run_begins_with_the_weights_of_another(finished, documents, tmp_path):
    arguments = ["--start", finished[0], "--data", documents, "--folder", tmp_path / "run", "--steps", "2"]
    done = pretrain(*arguments, "--learning-rate", "0")
    assert done.returncode == 0, done.stderr
    last = [row for row in read_metrics(finished[0] / "metrics.jsonl") if row["step"] == 8 and "eval_loss" in row]
    first = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "eval_loss" in row]
    assert [row["eval_loss"] for row in first] == pytest.approx([last[0]["eval_loss"]] * 2, rel=1e-5)
