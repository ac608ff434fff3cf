"""One run at a time in a folder of a bucket, however a holder ends: refused, waited for, taken over, and never two."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import gcs
from training.files import leases
from training.files.buckets import path_of, read_with_generation, write_if
from training.files.errors import DataError
from training.files.leases import LOST, leased

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from training.files.buckets import path_of
from training.files.leases import leased
with leased(path_of(sys.argv[1], "it"), dead=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(served, request):
    return path_of(f"gs://{gcs.BUCKET}/{request.node.name}/.lock", "the lock")


@pytest.fixture
def quick(monkeypatch):
    """Clients wait longer from one failure to the next."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *rest: sleep(seconds / 1000, *rest))


def wait(until) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def start(place: Path, dead: float) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(place), str(dead)]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_holder_that_lives_is_seen_to_and_one_that_is_killed_here_is_followed_at_once(place, said):
    with start(place, dead=0.6) as holder:
        with pytest.raises(DataError, match="another run is at work there; wait for it, or give another folder"):
            with leased(place, dead=60):
                pass
        holder.kill()
        holder.wait()
        began = time.monotonic()
        with leased(place, dead=3600):
            assert json.loads(place.read_text())["process"] == os.getpid()
        assert time.monotonic() - began < 60 and not place.exists()
    assert len(said) == 1 and "waiting for it, or to see that it is dead" in said[0]


def test_one_of_another_machine_is_taken_over_when_it_was_not_written_for_long_enough(place, monkeypatch):
    monkeypatch.setattr(leases, "_HERE", leases._HERE | {"host": "elsewhere"})
    written = leases._about()
    monkeypatch.undo()
    seen = write_if(place, written, 0)
    began = time.monotonic()
    with start(place, dead=0.5) as holder:  # in a process of its own, which a lease that is lost ends
        assert time.monotonic() - began > 0.5 and read_with_generation(place)[1] != seen
        time.sleep(1)
        assert holder.poll() is None  # its time counts from its own writing, not from when it began to wait
        holder.kill()


def test_whoever_waits_goes_on_when_it_is_given_back(place):
    with start(place, dead=60) as holder:
        holder.send_signal(signal.SIGINT)  # which unwinds
        with leased(place, wait=True, dead=6):
            assert holder.wait() != 0


def test_a_run_that_stood_still_and_lost_its_folder_ends_at_once(place):
    with start(place, dead=0.6) as holder:
        holder.send_signal(signal.SIGSTOP)
        before = read_with_generation(place)[1]
        write_if(place, b"another's", before)
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(30) == LOST
        assert re.search(r"\.lock: (taken over by another run|not written for 0.6 seconds)", holder.stderr.read())
    assert place.read_bytes() == b"another's"


def test_a_writing_whose_answer_was_lost_is_known_for_ones_own(place, served, said, quick, monkeypatch):
    ended = []
    monkeypatch.setattr(leases, "end_now", lambda why, status: ended.append(why))
    with leased(place, dead=3):
        first = read_with_generation(place)[1]
        with monkeypatch.context() as patch:
            lost = served.lost
            patch.setattr(served, "losing", 1)
            patch.setattr(served, "failure", lambda path: 503 if served.lost > lost else 0)
            wait(lambda: any("cannot be written now" in line for line in said))
        before = read_with_generation(place)[1]
        assert before != first
        wait(lambda: read_with_generation(place)[1] != before or ended)
    assert not ended and not place.exists()


def test_a_store_that_does_not_answer_at_the_end_neither_hides_an_error_nor_keeps_it(place, served, monkeypatch):
    began = time.monotonic()
    with pytest.raises(KeyError), leased(place, dead=1):
        monkeypatch.setattr(served, "failing", 1)
        raise KeyError
    assert time.monotonic() - began < 10


def test_a_lease_that_cannot_be_kept_ends_the_run(place, served):
    with start(place, dead=0.3) as holder:
        served.failing = 1
        try:
            assert holder.wait(60) == LOST
        finally:
            served.failing = 0
        assert "not written for 0.3 seconds, so another run may be at work there" in holder.stderr.read()
