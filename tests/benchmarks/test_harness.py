"""The clock of the benchmarks: real processes with little to do."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import Clock, Failed, Measured, in_turn, measure
from benchmarks.machine import busy, pin, processor, used
from tests.benchmarks.sides import (
    Foreign,
    fails_at,
    foreign,
    killed,
    mute,
    noted,
    parent,
    place,
    rude,
    sleeper,
    unmakable,
    worker,
)


@pytest.fixture(autouse=True)
def unpinned():
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_sides_are_timed_by_the_clock_and_by_their_processors():
    measured = measure("both", {"works": partial(worker, 0.1), "sleeps": partial(sleeper, 0.2)}, Clock(repeats=3))
    (works, own), (sleeps, asleep) = (min(measured.times[name]) for name in ("works", "sleeps"))
    assert len(measured.times["works"]) == len(measured.times["sleeps"]) == 3
    assert min(works, own) >= 0.1 and sleeps >= 0.2 and asleep < 0.1


def test_all_have_the_same_cores_and_as_many_threads_and_a_process_of_their_own():
    found, before = [], dict(os.environ)
    measure(
        "places",
        {"a": place, "b": place, "c": place},
        Clock(repeats=0, cores=1),
        check=lambda a, b: found.append((a, b)),
    )
    (a, b), (_, c) = found
    first = min(os.sched_getaffinity(0))
    assert a["cores"] == b["cores"] == c["cores"] == [first] and a["threads"] == c["threads"] == "1"
    assert len({os.getpid(), a["process"], b["process"], c["process"]}) == 4
    assert dict(os.environ) == before


@pytest.mark.parametrize("apart, order", [(False, "ab" + "aabb" + "bbaa"), (True, "aaabbb")])
def test_sides_take_turns_and_only_one_runs(tmp_path, apart, order):
    path = str(tmp_path / "order")
    sides = {name: partial(noted, path, name) for name in "ab"}
    measure("order", sides, Clock(repeats=2, apart=apart))
    assert open(path).read() == order


@pytest.mark.parametrize(
    "make, why",
    [
        (unmakable, "ModuleNotFoundError: No module named 'no_such_library'"),
        (partial(fails_at, 0, rude), "ValueError: what is wrong"),
        (partial(fails_at, 2, rude), "ValueError: what is wrong"),
        (partial(fails_at, 2, killed), "its process died by signal 9"),
        (partial(fails_at, 2, mute), "Mute"),
        (foreign, "what it returned cannot be read: ModuleNotFoundError: No module named 'torch'"),
        (partial(sleeper, Foreign()), "ModuleNotFoundError: No module named 'torch'"),
        (lambda: None, "*Can't pickle*"),
    ],
)
def test_a_side_that_fails_is_one_line_and_ends_no_other(capfd, make, why):
    with pytest.raises(Failed) as failed:
        measure("some", {"bad": make, "good": partial(sleeper, 0)}, Clock(repeats=3))
    shown = capfd.readouterr()
    assert fnmatch(shown.out, f"*\n  bad: {why}\n*") and "  good " in shown.out and "x the time" not in shown.out
    assert "Traceback" not in shown.err and failed.value.code == 1


def test_a_part_that_fails_ends_no_other():
    done = []

    def bad():
        raise Failed

    with pytest.raises(Failed):
        in_turn(bad, lambda: done.append("second"))
    assert done == ["second"]


def test_what_differs_is_not_compared(capfd):
    sides = {name: partial(sleeper, seconds) for name, seconds in {"ours": 0.01, "same": 0.01, "other": 0.02}.items()}
    with pytest.raises(Failed):
        measure("values", sides, Clock(repeats=1), check=np.testing.assert_equal)
    shown = capfd.readouterr().out
    assert "  same " in shown and "  other " not in shown and "\n  other: " in shown


def test_a_check_that_fails_otherwise_ends_no_other(capfd):
    def check(mine, other):
        raise KeyError("no such value")

    sides = {name: partial(sleeper, 0.01) for name in ("ours", "other")}
    with pytest.raises(Failed):
        measure("values", sides, Clock(repeats=1), check=check)
    shown = capfd.readouterr().out
    assert "  ours  " in shown and "\n  other: KeyError: 'no such value'\n" in shown


def test_what_a_side_has_started_ends_with_it(tmp_path):
    path = tmp_path / "child"
    measure("child", {"parent": partial(parent, str(path))}, Clock(repeats=1))
    until = time.monotonic() + 10  # whoever adopts it takes a moment to bury it
    with suppress(OSError):  # gone
        while "State:\tZ" not in Path(f"/proc/{path.read_text()}/status").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)


def test_what_others_take_of_the_cores_is_seen(capfd):
    """A process that does nothing but work, on the one core that the sides have."""
    core = min(os.sched_getaffinity(0))
    other = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
    try:
        measured = measure("busy", {"works": partial(worker, 0.4)}, Clock(repeats=2, cores=1))
    finally:
        other.kill()
        other.wait()
    assert measured.others > 0.2 and "NOT TO BE QUOTED: others took" in capfd.readouterr().out


def test_what_sides_take_is_not_anothers():
    begin, mine = busy(os.sched_getaffinity(0)), used(os.getpid())
    worker(0.5)()
    assert used(os.getpid()) - mine > 0.4 and busy(os.sched_getaffinity(0)) - begin > 0.4


def made(lasted: float, taken: float) -> Measured:
    times = {"ours": [(1.0, 2.0), (2.0, 2.0), (1.0, 2.0)], "theirs": [(2.0, 4.0), (3.0, 4.0), (4.0, 4.0)]}
    work = {"ours": 10, "theirs": 10}
    return Measured(title="a step", work=work, unit="row", flops=5e14, cores=2, times=times, lasted=lasted, taken=taken)


def test_what_is_told():
    quiet = made(13, 0.26)
    assert quiet.others == pytest.approx(0.01) and quiet.doubt is None
    assert quiet.ratios("theirs", "ours") == [2, 1.5, 4]
    first, ours, theirs = quiet.lines()
    assert first.startswith("a step: medians of 3, 2 cores of ") and processor() in first and first.endswith("1.0%")
    assert "10.00 row/s      1.000 s (least 1.000, processor 2.000)" in ours
    assert "2.00 x the time of ours (1.50 to 4.00; least 2.00, processor 2.00)" in theirs
    assert "others took 4% of the cores" in made(13, 1.04).lines()[-1]
    assert "too short" in made(0.5, 0).lines()[-1]


def test_the_share_of_a_gpus_peak_is_told(monkeypatch):
    assert "MFU" not in "".join(made(13, 0).lines())
    monkeypatch.setattr("benchmarks.harness.accelerator", lambda: "NVIDIA A100-SXM4-80GB")
    first, ours, theirs = made(13, 0).lines()
    assert "with NVIDIA A100" in first and "MFU 160.3%" in ours and "MFU 53.4%" in theirs
    monkeypatch.setattr("benchmarks.harness.accelerator", lambda: "another")
    assert "with another" in (found := "".join(made(13, 0).lines())) and "MFU" not in found


def test_ratios_are_of_the_same_work():
    found = made(13, 0)
    found.work["theirs"] = 20
    assert found.ratios("theirs", "ours") == [1, 0.75, 2] and "1.00 x the time of ours (0.75 to 2" in found.lines()[2]


def test_every_measurement_is_a_line_of_json(tmp_path):
    path = tmp_path / "record.jsonl"
    for _ in range(2):
        measure("two", {"a": partial(sleeper, 0.01), "b": partial(sleeper, 0)}, Clock(repeats=2, record=str(path)))
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [x["title"] for x in found] == ["two", "two"] and found[0]["processor"] == processor()
    assert len(found[0]["seconds"]["a"]) == 2 and min(found[0]["seconds"]["a"]) >= 0.01


def test_more_cores_than_there_are():
    with pytest.raises(ValueError, match="1000 cores are asked for, and there are"):
        pin(1000)
