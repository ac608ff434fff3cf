"""How far the compiler's estimate is from its own schedule: `make aot`.

The compilation has a process of its own, whose libtpu is to write its schedules down."""

import re
import subprocess
import sys

import pytest


def found(*flags: str) -> dict[str, list[float]]:
    """By kind of operation, what the compiler estimates over what it schedules, and the peak's share of either."""
    program = [sys.executable, "-m", "benchmarks.estimate", *flags]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    print("", *done.stdout.splitlines()[-5:], sep="\n")
    lines = re.findall(r"^(products|in all) .*  ([\d.]+)  (\d+)%  (\d+)%$", done.stdout, re.M)
    return {kind: [float(ratio), float(one) / 100, float(two) / 100] for kind, ratio, one, two in lines}


def test_of_a_product():
    """Both say what matrix units can do: no more than their peak, and nearly that."""
    ratio, *shares = found("--what", "product")["products"]
    assert ratio == pytest.approx(1, abs=0.1)
    assert all(0.9 < share <= 1 for share in shares)


def test_of_a_decoder_block():
    """Products alike; what is beside them the compiler estimates at more than twice what it schedules."""
    block = found("--rows", "4")
    ratio, *shares = block["products"]
    assert ratio == pytest.approx(1, abs=0.1)
    assert all(0.9 < share <= 1 for share in shares)
    ratio, estimated, scheduled = block["in all"]
    assert 1 < ratio < 1.3 and 0.7 < estimated < scheduled < 0.95
