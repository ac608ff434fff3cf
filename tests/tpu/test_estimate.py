"""How near a plan's time is to what the compiler has scheduled: `make aot`.

The compilation has a process of its own, whose libtpu is to write its schedules down."""

import re
import subprocess
import sys

import pytest


def found(*flags: str) -> dict[str, float]:
    """By kind of operation, how much of what is scheduled a plan counts."""
    program = [sys.executable, "-m", "benchmarks.estimate", *flags]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    print("", *done.stdout.splitlines()[-5:], sep="\n")
    return {kind: float(ratio) for kind, ratio in re.findall(r"^(products|in all) .* ([\d.]+)$", done.stdout, re.M)}


def test_of_a_product():
    assert found("--what", "product") == {"products": pytest.approx(1, abs=0.1), "in all": pytest.approx(1, abs=0.1)}


def test_of_a_decoder_block():
    assert found("--rows", "4") == {"products": pytest.approx(1, abs=0.1), "in all": pytest.approx(1, abs=0.1)}
