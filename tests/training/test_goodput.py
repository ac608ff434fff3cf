"""What a run's time went to: of a log written by hand, worked out on paper, and of a run that is killed, by our own
clock."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training import train_toy
from tests.training.test_loop import CONFIG, broken, run
from training import events
from training.goodput import KINDS, plot, read_events, table, watched

# A process begins at 1000 and is entered 4 s later; it is killed. The next begins at 1200, is entered at 1205.
#  1004 begun                                        the run's wall time begins here, not at 1000
#  1024 stepping after 0                             20 start
#  1034 evaluated 0, took 10                         10 evaluation
#  1134 saved 50, took 6, waited 4                   100 = 6 saving + 4 waiting + 90 in steps to 50
#  1164 at 80, waited 5                              30 = 1 waiting + 29 in steps 51..80, all lost: 30 redone
#  1200 the next process begins                      36 down
#  1205 resumed after 50                             5 start
#  1215 stepping after 50                            10 start
#  1275 skipped 80                                   60 in steps
#  1335 rewound to 50, since 90                      60: with those before 120 s of steps after 50 redone
#  1345 stepping after 50                            10 start
#  1445 evaluated 100, took 20, waited 3             100 = 20 evaluation + 3 waiting + 77 in steps
#  1450 saved 100, took 5                            5 saving
#  1452 finished 100                                 2 saving
# counted 90 + 77 = 167; redone 30 + 120 = 150; start 20 + 5 + 10 + 10 = 45; evaluation 30; saving 6 + 5 + 2 = 13;
# waiting 4 + 3 = 7; down 36; together 448 = 1452 - 1004. Goodput 167 / 448.
FIRST = [
    ("begun", 4, 0, 0, {"devices": 16, "kind": "TPU v5 lite", "processes": 4, "version": "1"}),
    ("stepping", 24, 0, 0, {}),
    ("evaluated", 34, 0, 0, {"took": 10}),
    ("saved", 134, 50, 4, {"took": 6}),
    ("at", 164, 80, 5, {}),
]
SECOND = [
    ("resumed", 5, 50, 0, {"devices": 16, "kind": "TPU v5 lite", "processes": 4, "version": "1"}),
    ("stepping", 15, 50, 0, {}),
    ("skipped", 75, 80, 0, {}),
    ("rewound", 135, 50, 0, {"since": 90}),
    ("stepping", 145, 50, 0, {}),
    ("evaluated", 245, 100, 3, {"took": 20}),
    ("saved", 250, 100, 3, {"took": 5}),
    ("finished", 252, 100, 3, {}),
]
PARTS = {"counted": 167, "redone": 150, "start": 45, "evaluation": 30, "saving": 13, "waiting": 7, "down": 36}


def lines(log: list[tuple], began: float) -> list[dict]:
    return [
        {"event": event, "time": began + seconds, "seconds": seconds, "step": step, "waited": waited, **about}
        for event, seconds, step, waited, about in log
    ]


def test_the_goodput_of_a_log_that_was_worked_out_on_paper(tmp_path):
    found = watched([*lines(FIRST, 1000), *lines(SECOND, 1200)], now=9999)
    assert found.seconds == pytest.approx(PARTS) and found.wall == pytest.approx(448)
    assert found.goodput == pytest.approx(167 / 448) and not found.going
    assert found.ends == [
        (1164, "no word after step 80: killed, or its machine was lost"),
        (1452, "finished at step 100"),
    ]
    said = table(found, now=9999)
    assert "wall time                          7.5 min" in said and "37.3%" in said
    assert "1 restarts, 1 updates skipped, 1 times rewound" in said
    plot(found, tmp_path / "watched.png")
    assert (tmp_path / "watched.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_checkpoint_whose_line_was_lost_cuts_a_stretch():
    """Resumed at 60 of the steps 51 to 80 that took 29 s and waited 1: a third of both stays."""
    resumed = [("resumed", 5, 60, 0, {})]
    found = watched([*lines(FIRST, 1000), *lines(resumed, 1200)], now=1205)
    assert found.seconds["counted"] == pytest.approx(90 + 29 / 3)
    assert found.seconds["waiting"] == pytest.approx(4 + 1 / 3)
    assert found.seconds["redone"] == pytest.approx(20)


def test_a_run_is_watched_while_it_goes_on_and_when_nothing_more_is_heard():
    going, silent = (watched(lines(FIRST, 1000), now=1164 + later) for later in (60, 180))
    assert going.seconds["counted"] == pytest.approx(90 + 29 + 60) and going.seconds["down"] == 0
    assert table(going, 1164 + 60).startswith("last step 80, 60.0 s ago; it goes on\n16 devices (TPU v5 lite), 4 proc")
    assert silent.seconds["counted"] == pytest.approx(90 + 29) and silent.seconds["down"] == 180
    assert table(silent, 1164 + 180).startswith("last step 80, 3.0 min ago; nothing has been written since")


@pytest.mark.parametrize("end", ["failed", "interrupted", "diverged"])
def test_what_came_before_an_end_without_a_further_step_is_redone(end):
    """Saved at 1134; for 60 s a peer is silent; the next process begins at 1200."""
    first, again = [*FIRST[:4], (end, 194, 50, 6, {})], [("resumed", 5, 50, 0, {}), ("stepping", 15, 50, 0, {})]
    found = watched([*lines(first, 1000), *lines(again, 1200)], now=1215).seconds
    assert found == pytest.approx(dict.fromkeys(KINDS, 0) | {
        "counted": 90, "redone": 60, "start": 20 + 5 + 10, "evaluation": 10, "saving": 6, "waiting": 4, "down": 6,
    })  # fmt: skip


def test_an_end_before_the_first_step_was_start():
    found = watched(lines([FIRST[0], ("failed", 24, 0, 0, {"why": "no memory"})], 1000), now=1024).seconds
    assert found == dict.fromkeys(KINDS, 0) | {"start": 20}


@pytest.mark.parametrize(("later", "down"), [(3600, 3600), (0.4, 0), (-3600, 0)])
def test_a_suspended_hour_is_down_and_a_clock_set_back_is_none(later, down):
    """Of the 30 s from 1134 to 1164 by the process's own clock."""
    log = lines(FIRST, 1000)
    log[-1]["time"] += later
    found = watched(log, now=log[-1]["time"])
    assert found.seconds["down"] == down and found.seconds["counted"] == pytest.approx(90 + 29)


def test_many_restarts_are_read_in_no_time():
    """2,000 at step 50, each with 20 lines of steps that are lost: half a minute if each looks at all before it."""
    log, steps = lines(FIRST[:4], 1000), [("at", 30 + x, 50 + x, 0, {}) for x in range(1, 21)]
    for number in range(2000):
        log += lines([("resumed", 5, 50, 0, {}), ("stepping", 30, 50, 0, {}), *steps], 2000 + 60 * number)
    began = time.process_time()
    found = watched(log, now=log[-1]["time"]).seconds
    assert time.process_time() - began < 5
    assert found["redone"] == pytest.approx(20 * 1999) and found["counted"] == pytest.approx(90 + 20)


def test_lines_that_no_run_wrote_are_left_out(tmp_path):
    path, (good,) = tmp_path / "events.jsonl", lines(FIRST[3:4], 1000)
    wrong = [
        {"event": ["saved"]}, {"event": None}, {"time": "x"}, {"time": True}, {"time": float("nan")}, {"time": 1e300},
        {"seconds": None}, {"step": None}, {"step": 1.5}, {"step": 10**400}, {"waited": []}, {"took": "1"},
        {"since": None},
    ]  # fmt: skip
    rows = [*({**good, **one} for one in wrong), {"event": "saved"}, good]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_events(path) == [good]


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(ValueError, match="no run has begun here yet"):
        watched(read_events(tmp_path / "events.jsonl"))


def test_events_are_appended_after_a_line_that_was_cut(tmp_path):
    run(tmp_path, replace(CONFIG, steps=7))
    path = tmp_path / "events.jsonl"
    before = path.read_bytes()
    path.write_bytes(before + b'{"event": "a')
    run(tmp_path)
    assert path.read_bytes().startswith(before + b'{"event": "a\n{"event": "resumed"')
    names = [(x["event"], x["step"]) for x in read_events(path)]
    assert names == [
        ("begun", 0),
        ("stepping", 0),
        ("evaluated", 0),
        ("saved", 3),
        ("evaluated", 4),
        ("saved", 6),
        ("evaluated", 7),
        ("saved", 7),
        ("finished", 7),
        ("resumed", 7),
        ("stepping", 7),
        ("evaluated", 8),
        ("saved", 9),
        ("evaluated", 12),
        ("saved", 12),
        ("finished", 12),
    ]


@pytest.mark.parametrize("on_nan", ["skip", "rewind"])
def test_setbacks_are_events_and_listeners_hear_them(tmp_path, monkeypatch, on_nan):
    heard: list[dict] = []
    monkeypatch.setattr(events, "OFTEN", 0.0)
    events.listeners.append(listener := lambda folder, row: heard.append(row))
    try:
        run(tmp_path, replace(CONFIG, on_nan=on_nan), train=broken(7))
    finally:
        events.listeners.remove(listener)
    found = read_events(tmp_path / "events.jsonl")
    assert [x for x in heard if "event" in x] == found and [x for x in heard if "loss" in x]
    about = [(x["step"], x.get("since"), x["why"]) for x in found if x["event"] in ("skipped", "rewound")]
    assert len(about) == 1 and about[0][:2] == {"skip": (8, None), "rewind": (6, 8)}[on_nan] and "nan" in about[0][2]
    assert (watched(found).seconds["redone"] > 0) == (on_nan == "rewind")
    assert sum(x["event"] == "at" for x in found) >= 10


def test_an_error_is_an_event(tmp_path):
    def batches(first, share):
        yield from [train_toy.toy.batch(8, 0)] * 3
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        run(tmp_path, train=batches)
    last = read_events(tmp_path / "events.jsonl")[-1]
    assert (last["event"], last["why"]) == ("failed", "OSError: the disk is gone")
    assert watched([last | {"event": "begun"}, last]).ends[-1][1].endswith("OSError: the disk is gone")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_goodput_of_a_run_that_is_killed_is_that_of_our_clock(tmp_path):
    """Ten kills, and what the processes of the toy, which saves every step, then have of their time."""
    command = [sys.executable, train_toy.__file__, tmp_path, "40"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    alive: list[tuple[float, float]] = []  # of each process, s since 1970
    stepped = 0.0  # s in which lines came of steps, as we have seen them come
    kills = [*range(3, 33, 3)]  # after these steps were saved
    for saved in (*kills, None):
        began = time.time()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        lines_before, times = len(read_events(tmp_path / "events.jsonl")), dict[str, float]()
        while process.poll() is None:
            time.sleep(0.005)
            new = read_events(tmp_path / "events.jsonl")[lines_before:]
            if any(x["event"] == "stepping" for x in new):
                times.setdefault("first", time.time())
            steps = [x["step"] for x in new if x["event"] == "saved"]
            if steps and times.get("step") != steps[-1]:
                times |= {"step": steps[-1], "last": time.time()}
            if new and new[-1]["event"] == "finished":
                times.setdefault("finished", time.time())
            if saved is not None and steps and steps[-1] >= saved:
                process.kill()
        stepped += times["last"] - times["first"]
        _, said = process.communicate()
        alive.append((began, time.time()))
        assert saved is not None or process.returncode == 0, said
        time.sleep(1)
    found = read_events(tmp_path / "events.jsonl")
    seen, parts = watched(found), watched(found).seconds
    assert seen.told["begun"] + seen.told["resumed"] == len(seen.ends) == len(kills) + 1
    # From the first line until we have seen the last; after it the process draws its curve, and ends.
    assert seen.wall == pytest.approx(times["finished"] - found[0]["time"], abs=0.5)
    # Down is from the last line of a killed process until the next one's Python has come to training/events.py.
    gap = sum(after[0] - before[1] for before, after in zip(alive, alive[1:], strict=False))
    assert gap < parts["down"] < gap + 8 * len(kills)
    # The steps that counted are those of the three processes, less what was lost: by the log's own lines, one by one.
    lineage = {x["step"]: (x, before) for before, x in zip(found, found[1:], strict=False) if x["event"] == "saved"}
    assert sorted(lineage) == list(range(1, 41))
    spent = sum(
        x["seconds"] - before["seconds"] - x["took"] - x["waited"] + before["waited"] for x, before in lineage.values()
    )
    assert 0 < parts["counted"] < sum(end - begin for begin, end in alive)
    assert parts["counted"] == pytest.approx(spent, abs=0.5)
    assert sum(parts.values()) == pytest.approx(found[-1]["time"] - found[0]["time"], abs=0.1)
    # All that is done while steps are made, as we have seen the lines of it come.
    ended = found[-1]["seconds"] - found[-2]["seconds"]
    inside = sum(parts[kind] for kind in ("counted", "redone", "waiting", "evaluation", "saving")) - ended
    assert inside == pytest.approx(stepped, abs=0.5)
    assert set(parts) == set(KINDS) and f"{seen.goodput:.1%}" in table(seen)
