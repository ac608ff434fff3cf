"""Disturbances of a job, one after another, and what is left of it: python -m tests.chaos.chaos --kills 100 --seed 0

Processes on this machine train a toy in a bucket of an emulated store, each under the loop that starts it again. Now
one is killed, or is told that its machine will be taken away, or stands still; the store answers with errors, or takes
nothing any more; all are killed and the newest checkpoint is cut in half; or the job is stopped and goes on on another
layout. In the end every row of the data was trained on as often as in a run that nobody disturbed, and the parameters
are the same: to the bit where the layout is, else to 1e-5.
"""

import argparse
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests import gcs
from tests.chaos.job import expected
from training.files import buckets
from training.files.buckets import path_of, size_and_time
from training.goodput import read_events, watched

ROOT = Path(__file__).parents[2]
SILENCE = 4.0  # seconds
SAVE_EVERY = 5
LAYOUTS = ((4, 1), (2, 1), (4, 2))  # processes x devices of each
IN_STEPS = ("counted", "waiting", "evaluation", "saving")
KINDS = ("kill", "kill", "preempt", "stand still", "errors", "full", "cut")


class Job:
    """The processes of one job, each under a loop of its own."""

    def __init__(self, folder: str, here: Path, steps: int, save_every: int, port: int):
        self.folder, self.here, self.steps, self.save_every = folder, here, steps, save_every
        self.store, self.loops = gcs.environment(port), list[subprocess.Popen[bytes]]()
        here.mkdir(parents=True)

    def start(self, processes: int, devices: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        xla = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        for rank in range(processes):
            environment = os.environ | self.store | {
                "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla, "NPROC": "8", "PYTHONPATH": str(ROOT),
                "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes), "JAX_PROCESS_ID": str(rank),
                "JAX_COMPILATION_CACHE_DIR": str(self.here / f"compiled-{processes}-{devices}-{rank}"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", buckets.CACHE: str(self.here / f"cache-{rank}"),
            }  # fmt: skip
            numbers = (self.steps, self.save_every, SILENCE)
            job = [sys.executable, "-m", "tests.chaos.job", self.folder, self.here, *numbers]
            flags = ["--tries", "20", "--pause", "0.1", "--quick", "30", "--folder", self.folder]
            loop = [sys.executable, "-m", "scripts.keep_running", *flags, "--"]
            with (self.here / f"log-{rank}").open("ab") as log:
                command = [*loop, *map(str, job)]
                self.loops.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))

    def trainings(self) -> list[int]:
        """The processes that train, of those that are there."""
        found = (Path(f"/proc/{loop.pid}/task/{loop.pid}/children") for loop in self.loops if loop.poll() is None)
        return [int(child) for file in found if file.exists() for child in file.read_text().split()]

    def steps_begun(self) -> list[dict[str, float]]:
        file = self.here / "steps.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def checkpoints(self) -> list[int]:
        """Those that are whole, from the newest on."""
        found = path_of(f"{self.folder}/checkpoints", "it").glob("*/commit_success.txt")
        return sorted((int(file.parent.name) for file in found if file.parent.name.isdigit()), reverse=True)

    def wait(self, until: Callable[[], bool], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end or any(loop.poll() not in (None, 0, 75) for loop in self.loops):
                raise RuntimeError(f"the job does not get on: {self.told()}")
            time.sleep(0.02)

    def wait_for_more(self) -> int:
        """The next new checkpoint, or the last."""
        before = self.checkpoints()[:1]
        self.wait(lambda: self.checkpoints()[:1] > before or self.ended())
        return self.checkpoints()[0]

    def ended(self) -> bool:
        return all(loop.poll() is not None for loop in self.loops)

    def stop(self) -> None:
        """All loops are told, as by who looks after the hosts; the job has saved then."""
        for loop in self.loops:
            loop.send_signal(signal.SIGTERM)
        self.wait(self.ended)
        self.loops.clear()

    def told(self) -> str:
        return " | ".join(f"{file.name}: {file.read_text(errors='replace')[-600:]}" for file in self.here.glob("log-*"))


def disturb(job: Job, served: gcs.Served, kind: str, draw: random.Random) -> None:
    victims = job.trainings()
    if kind in ("kill", "preempt"):
        _signal(draw.choice(victims), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    elif kind == "stand still":
        _signal(victim := draw.choice(victims), signal.SIGSTOP)
        time.sleep(2 * SILENCE)
        _signal(victim, signal.SIGCONT)
    elif kind == "errors":
        served.failing = 4
        time.sleep(2)
        served.failing = 0
    elif kind == "full":
        served.full = True
        time.sleep(4)
        served.full = False
    else:
        for victim in victims:
            _signal(victim, signal.SIGKILL)
        newest = path_of(f"{job.folder}/checkpoints/{job.checkpoints()[0]}/state/d", "it")
        file = draw.choice(sorted(newest.iterdir(), key=str))
        file.write_bytes(file.read_bytes()[: size_and_time(file)[0] // 2])


def _signal(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:  # it has just ended of what came before
        pass


def chaos(kills: int, seed: int, layouts: bool, here: Path) -> dict[str, object]:
    """What came of it. Raises AssertionError where anything was lost, and RuntimeError where a job does not get on."""
    draw, steps = random.Random(seed), 30 + 12 * kills
    served, told = gcs.Served(), []
    with gcs.serving(served) as port:
        os.environ |= gcs.environment(port) | {buckets.CACHE: str(here / "cache")}
        every = {"calm": steps, "disturbed": SAVE_EVERY}
        jobs = [Job(f"gs://{gcs.BUCKET}/{name}", here / name, steps, saves, port) for name, saves in every.items()]
        try:
            calm, job = jobs
            calm.start(*LAYOUTS[0])
            calm.wait(calm.ended, 60 + steps)
            job.start(*LAYOUTS[0])
            for number in range(kills):
                before = job.wait_for_more()
                time.sleep(draw.uniform(0, 1))
                kind = draw.choice(KINDS + (("layout",) if layouts else ()))
                if kind == "cut" and len(job.checkpoints()) < 2:
                    kind = "kill"  # of one checkpoint alone a copy is all that helps
                told.append((kind, time.monotonic()))
                print(f"{number + 1}: {kind} after step {before}", flush=True)
                if kind == "layout":
                    job.stop()
                    job.start(*draw.choice(LAYOUTS))
                else:
                    disturb(job, served, kind, draw)
            job.wait(job.ended, 120 + steps)
            run = watched(read_events(path_of(f"{job.folder}/events.jsonl", "it")))
        finally:
            for one in jobs:
                for process in [*one.trainings(), *(loop.pid for loop in one.loops)]:
                    _signal(process, signal.SIGKILL)
    wanted, found = (dict(np.load(one.here / "final.npz")) for one in jobs)
    trained = ".optimizer['trained']"
    np.testing.assert_array_equal(wanted[trained], expected(steps))
    lost = int(np.maximum(expected(steps) - found[trained], 0).sum())
    repeated = int(np.maximum(found[trained] - expected(steps), 0).sum())
    assert (lost, repeated) == (0, 0), f"{lost} examples were lost and {repeated} repeated"
    for name, array in wanted.items():
        if layouts and array.dtype == np.float32:
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    return {
        "steps": steps,
        "disturbances": dict(Counter(kind for kind, _ in told)),
        "seconds until steps again": _again(told, job.steps_begun()),
        "goodput": f"{run.goodput:.1%} of {run.wall:.0f} s",
        "in steps, waiting, evaluation and saving, s": {
            "by the events": round(
                sum(run.seconds[kind] for kind in ("counted", "waiting", "evaluation", "saving")), 1
            ),
            "by the steps' own record": round(_in_steps(job.steps_begun()), 1),
        },
        "its wall time, s": {kind: round(seconds, 1) for kind, seconds in run.seconds.items()},
    }


def _in_steps(begun: list[dict[str, float]]) -> float:
    """Seconds from a step to the next of the same process, of each step the last time that it was begun: what goodput
    is reckoned from events is seen once more, without them."""
    last = {line["step"]: number for number, line in enumerate(begun)}
    pairs = [(begun[number], begun[number + 1]) for number in last.values() if number + 1 < len(begun)]
    return sum(after["time"] - line["time"] for line, after in pairs if line["process"] == after["process"])


def _again(told: list[tuple[str, float]], begun: list[dict[str, float]]) -> dict[str, str]:
    """By kind, of those disturbances after which processes began anew: the median, and the most."""
    found: dict[str, list[float]] = {}
    for (kind, at), (_, after) in zip(told, [*told[1:], ("", math.inf)], strict=True):
        before = [line["process"] for line in begun if line["time"] < at]
        new = [line["time"] - at for line in begun if at < line["time"] < after and line["process"] != before[-1]]
        if new:
            found.setdefault(kind, []).append(new[0])
    return {kind: f"{np.median(x):.1f} ({max(x):.1f})" for kind, x in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="disturbances")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layouts", action="store_true", help="now and then another number of processes and devices")
    parser.add_argument("--here", type=Path, help="a new folder, to look at what was said; by default one that goes")
    config = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        print(json.dumps(chaos(config.kills, config.seed, config.layouts, config.here or Path(folder)), indent=1))


if __name__ == "__main__":
    main()
