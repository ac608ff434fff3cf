"""The script for a GPU: its parts are commands that there are, and none takes another's time. What they do is tried by
tests/parity/test_benchmarks.py."""

import importlib
import json
import os
import sys
import time

import pytest
import tyro

from benchmarks import device
from benchmarks.device import PARTS, Config, Part, command, run, within

PYTHON = [sys.executable, "-c"]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_a_command_with_these_flags(name, small):
    _, _, module, *flags = command(PARTS[name], "record.jsonl", small)
    read = tyro.cli(importlib.import_module(module).Config, args=flags)
    assert read.clock.record == "record.jsonl" and (module == "benchmarks.where" or read.clock.apart)


def test_all_fits_into_eight_minutes():
    assert Config().seconds == 480 and tuple(PARTS) == Config().part
    assert sum(part.seconds for part in PARTS.values()) <= 500  # hardly all of them take all that they may


def test_a_part_that_takes_too_long_ends_with_all_its_processes(tmp_path):
    child = (
        "import subprocess, sys; print(subprocess.Popen(['sleep', '100']).pid, file=open(sys.argv[1], 'w'), flush=True)"
    )
    begin = time.monotonic()
    problem = within(3, [*PYTHON, f"{child}; import time; time.sleep(100)", str(tmp_path / "pid")])
    assert problem == "ended after 3 s" and time.monotonic() - begin < 30
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):  # its new parent has yet to fetch it
        if not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the child lives")


def test_how_a_command_ended():
    assert within(60, [*PYTHON, "pass"]) is None
    assert within(60, [*PYTHON, "raise SystemExit(3)"]) == "ended with status 3"


def test_a_part_that_fails_ends_no_other_and_all_are_told(tmp_path, capsys, monkeypatch):
    parts = {
        "bad": Part(command="raise SystemExit(1)", small="", seconds=60),
        "good": Part(command="pass", small="", seconds=60, beside="theirs: 1 row/s"),
        "slow": Part(command="import time; time.sleep(100)", small="", seconds=60),
        "late": Part(command="pass", small="", seconds=60),
    }
    monkeypatch.setattr(device, "command", lambda part, record, small: [*PYTHON, part.command])
    assert not run(parts.items(), Config(record=str(tmp_path / "record"), seconds=6))
    told = [json.loads(line) for line in (tmp_path / "record").read_text("utf-8").splitlines()]
    (bad, good, slow, late) = (x["problem"] for x in told)
    assert [x["part"] for x in told] == list(parts) and bad == "ended with status 1" and good is None
    assert slow.startswith("ended after ") and late == "no time is left"
    shown = capsys.readouterr().out
    assert "== bad, 0 s" in shown and "theirs: 1 row/s" in shown and "late: no time is left" in shown


def test_a_part_that_there_is_not(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["device", "--part", "other", "--small"])
    with pytest.raises(SystemExit, match="--part is other: it must be one of attention, base, "):
        device.main()
