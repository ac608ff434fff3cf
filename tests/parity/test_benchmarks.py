"""Each benchmark runs to its end: a few numbers of small things, no time is looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = str(ROOT / "pegasus_zh" / "corpus" / "train.jsonl")

SMALL = {
    # The other parts are commands below; tests/benchmarks sees that they are given flags that there are.
    "device": ["--small", "--part", "attention", "t5-v1.1-base", "where", "--record", os.devnull],
    "pseudo_summaries": ["--data", CORPUS, "--documents", "4", "--repeats", "1"],
    "tokenizers": ["--data", CORPUS, "--lines", "50", "--repeats", "1"],
    "prepare": ["--data", CORPUS, "--repeats", "1"],
    "prepare --profile": ["--data", CORPUS],
    "packing": ["--data", CORPUS, "--positions", "1024", "--repeats", "1"],
    "rotary": ["--rows", "1", "--length", "32", "--heads", "2", "--size", "8", "--repeats", "1"],
    "critics": ["--dimensions", "4", "--batch", "32", "--steps", "2", "--seeds", "2",
                "--repeats", "1", "--points", "32"],
    "certified": ["--side", "8", "--features", "4", "--batch", "4", "--steps", "1", "--repeats", "1"],
    "roformer_sim": ["--count", "80", "--width", "64", "--layers", "1", "--pairs", "4", "--repeats", "1"],
    "matching": ["--width", "64", "--layers", "2", "--pairs", "40", "--torch-batches", "8", "--repeats", "1"],
    "embeddings": ["--count", "20", "--width", "64", "--layers", "1", "--batch", "4", "--repeats", "1"],
    "similar_questions": ["--questions", "1", "2", "--draws", "3", "--length", "3", "--preset", "tiny",
                          "--torch-batches", "1", "2", "--repeats", "1"],
    "vectors": ["--vectors", "2000", "--indexed", "2000", "--repeats", "1"],
    "training_step": ["--preset", "tiny", "--rows", "2", "--source", "32", "--target", "16",
                      "--torch", "sdpa", "--repeats", "1"],
    "decoding": ["--data", CORPUS, "--field", "text", "--preset", "tiny", "--inputs", "4", "--batch-size", "4",
                 "--torch-batches", "4", "--max-source", "32", "--max-target", "4", "--repeats", "1"],
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_runs(name):
    command = [sys.executable, "-m", *f"benchmarks.{name}".split(), *SMALL[name]]
    one_device = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, env=one_device, capture_output=True)
    assert done.returncode == 0, (done.stderr + done.stdout).decode()[-2000:]


def test_none_is_left_out():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == {
        *(name.split()[0] for name in SMALL),
        "run",
        *("harness", "side", "process", "machine"),  # tests/benchmarks
        "random_bert",  # of embeddings and matching
        *("cudnn", "where"),  # of device
        *("flash", "estimate"),  # need libtpu: tests/tpu
        "beam",  # needs Beam: tests/pegasus_zh/rows/test_beam.py
    }
