"""Two processes train in a bucket, are killed and go on, and what comes of it is exported and writes there, too."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pegasus_zh.text.documents import CORPUS
from tests import gcs
from training.files import buckets
from training.files.buckets import path_of

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUN = f"gs://{gcs.BUCKET}/run"
PRETRAIN = ["scripts.pretrain", "--preset", "tiny", "--data", f"gs://{gcs.BUCKET}/docs/*.jsonl", "--distributed"]
PRETRAIN += ["--steps", "8", "--save-every", "2", "--eval-every", "4", "--log-every", "1", "--batch-size", "4"]
PRETRAIN += ["--samples", "0", "--vocabulary", "400", "--row-source", "64", "--row-target", "32"]
PRETRAIN += ["--max-source", "64", "--max-target", "32"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of processes that ask the emulated store, each with a cache of its own, as hosts have."""
    with gcs.serving(gcs.Served()) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in (found := gcs.environment(port)).items():
            patch.setenv(name, value)
        patch.setenv(buckets.CACHE, str(tmp_path_factory.mktemp("here")))
        path_of(f"gs://{gcs.BUCKET}/docs/train.jsonl", "it").write_bytes((CORPUS / "heldout.jsonl").read_bytes())
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
        yield os.environ | found | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def start(environment: dict[str, str], caches: Path, *arguments: str) -> list[subprocess.Popen]:
    """The two processes of one job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    hosts = ({**job, "JAX_PROCESS_ID": str(rank), buckets.CACHE: str(caches / str(rank))} for rank in range(2))
    command = [sys.executable, "-m", *arguments]
    return [subprocess.Popen(command, cwd=ROOT, env=environment | host, stdout=subprocess.PIPE) for host in hosts]


def wait(processes: list[subprocess.Popen]) -> list[str]:
    """What each has printed. All must end well."""
    said = [process.communicate(timeout=300)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said


def test_two_processes_are_killed_in_a_bucket_and_go_on_there(environment, tmp_path):
    killed = start(environment, tmp_path, *PRETRAIN, "--folder", RUN)
    until = time.monotonic() + 300
    while not path_of(f"{RUN}/checkpoints/4/commit_success.txt", "it").exists():
        assert time.monotonic() < until and not any(process.poll() for process in killed)
        time.sleep(0.1)
    for process in killed:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = wait(start(environment, tmp_path, *PRETRAIN, "--folder", RUN))
    assert "resumed at step" in said[0] and "step" not in said[1]
    wait(start(environment, tmp_path, *PRETRAIN, "--folder", f"{RUN}-undisturbed"))

    exported = []
    for run in (RUN, f"{RUN}-undisturbed"):
        command = [sys.executable, "-m", "scripts.export", "--model", run, "--folder", f"{run}-exported"]
        told = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        assert f"gcloud storage cp -r {run}-exported .\n" in told  # transformers reads from disks alone
        assert f"from_pretrained('{run.rpartition('/')[2]}-exported')" in told
        exported.append(path_of(f"{run}-exported", "it"))
    weights, undisturbed = ((folder / "model.safetensors").read_bytes() for folder in exported)
    assert weights == undisturbed
    lines, others = (
        (path_of(run, "it") / "metrics.jsonl").read_text().splitlines() for run in (RUN, f"{RUN}-undisturbed")
    )
    assert len(lines) == len(others) == 8
    given = path_of(f"gs://{gcs.BUCKET}/questions.txt", "it")
    given.write_text("今天天气很好。\n")
    out = path_of(f"gs://{gcs.BUCKET}/written.jsonl", "it")
    command = [sys.executable, "-m", "scripts.generate", "--model", str(exported[0]), "--input", str(given)]
    subprocess.run([*command, "--out", str(out)], cwd=ROOT, env=environment, check=True)
    assert '"source": "今天天气很好。"' in out.read_text() and not path_of(f"{RUN}/.lock", "it").exists()
