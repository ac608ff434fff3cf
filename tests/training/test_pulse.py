"""A process of a job that dies, stands still or fails ends the other with one line: it would wait for it for ever."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "rank, how, told",
    [
        (1, "kill", "process 1 has not been heard of for 2 s"),
        pytest.param(1, "stop", "process 1 has not been heard of for 2 s", marks=pytest.mark.slow),
        pytest.param(0, "stop", "process 0 has not answered for 2 s", marks=pytest.mark.slow),
        (1, "error", "process 1 has ended: ValueError: no good"),
        pytest.param(0, "error", "process 0 has ended: ValueError: no good", marks=pytest.mark.slow),
    ],
)
def test_the_other_ends_with_one_line(rank, how, told):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script, environment = str(Path(__file__).with_name("pulse_job.py")), os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, script, str(n), port, how if n == rank else "wait"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(2)
    ]  # fmt: skip
    try:
        assert [process.stdout.readline() for process in both] == ["joined\n", "joined\n"]
        began = time.monotonic()
        other = both[1 - rank].communicate(timeout=60)[1]
        assert other == f"error: {told}; this one ends too, and the same command goes on\n"
        assert both[1 - rank].returncode == 1 and time.monotonic() - began < 30
        if how == "error":
            assert both[rank].communicate(timeout=60)[1] == "error: no good\n" and both[rank].returncode == 1
    finally:
        for process in both:
            process.kill()
            process.communicate()
