"""All that is to be known of a GPU that is there for minutes: in eight of them, the most important first.

    python -m benchmarks.device [--record device.jsonl] [--part attention base …] [--small]

Each part is a command of its own with a time limit, whose results are printed and added to the record as they come, and
which ends none of the others. In it ours runs before any peer, so that a peer that takes too long costs no figure of
ours. --small is a trial of every part on a CPU, in little. Needs `jax[cuda13]` and, for the peers, the `parity` extra,
torch and sentence-transformers, as the Makefile installs them for `make parity`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.machine import accelerator, processor

CORPUS = str(Path(__file__).parents[1] / "pegasus_zh" / "corpus" / "train.jsonl")


@dataclass(frozen=True, kw_only=True)
class Part:
    command: str  # python -m benchmarks.…
    small: str  # what a trial has in the end of it
    seconds: int  # at most
    beside: str = ""  # what others have published


STEP = "training_step --rows 32 --dtype bfloat16 --steps 10 --repeats 3 --compiled --torch sdpa"
TINY = "--preset tiny --vocabulary 0 --rows 2 --source 32 --target 16"
FEW = "--steps 1 --repeats 1"
PARTS = {
    "attention": Part(
        command="cudnn --repeats 20",
        small="--rows 2 --source 64 --target 32 --heads 2 --size 16 --repeats 1",
        seconds=45,
    ),
    "base": Part(
        command=f"{STEP} --preset t5-pegasus-base --source 512 --target 160",
        small=f"{TINY} {FEW} --no-compiled",
        seconds=100,
    ),
    "mt5-base": Part(
        command=f"{STEP} --preset mt5-base --source 512 --target 160",
        small=f"{TINY} {FEW} --no-compiled",
        seconds=100,
    ),
    "t5-v1.1-base": Part(
        command="training_step --preset t5-pegasus-base --vocabulary 32128 --rows 64 --source 512 --target 114 "
        "--dropout 0 --dtype bfloat16 --steps 10 --repeats 3 --torch --attention cudnn xla",
        small=f"{TINY} {FEW} --attention xla",
        seconds=60,
        beside="nanoT5 on an A100: 237 rows/s (148,400 token/s); T5X's best: MFU 36.8%",
    ),
    "decoding": Part(
        command=f"decoding --data {CORPUS} --field text --preset t5-pegasus-base --dtype bfloat16 --beams 4 "
        "--batch-size 128 --torch-batches 128 --repeats 2",
        small="--preset tiny --inputs 4 --batch-size 4 --torch-batches 4 --max-source 32 --max-target 4 --repeats 1",
        seconds=60,
    ),
    "encoding": Part(
        command="embeddings --part encode --dtype bfloat16 --tokens 16384 --count 4000 --repeats 3",
        small="--count 20 --width 64 --layers 1 --repeats 1",
        seconds=45,
    ),
    "critic": Part(
        command="critics --part step --steps 500 --repeats 3",
        small="--dimensions 4 --batch 32 --steps 2 --seeds 2 --repeats 1",
        seconds=45,
    ),
    "where": Part(
        command="where --preset t5-pegasus-base --rows 32 --source 512 --target 160 --dtype bfloat16",
        small=TINY,
        seconds=45,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    part: tuple[str, ...] = tuple(PARTS)
    """Which are run, in this order."""
    record: str = "device.jsonl"
    """Every result is added to it as a line of JSON."""
    seconds: int = 480
    """All of them take at most; a part that finds no time left is told of."""
    small: bool = False
    """A trial in little, for a CPU, with no limit but that of all."""


def command(part: Part, record: str, small: bool) -> list[str]:
    apart = [] if part.command.startswith("where") else ["--apart"]
    words = [*part.command.split(), *(part.small.split() if small else ()), *apart, "--record", record]
    return [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]


def within(seconds: float, words: list[str]) -> str | None:
    """Runs the command, and ends it and all its processes after so long. Returns why it did not go well."""
    running = subprocess.Popen(words, start_new_session=True)
    try:
        status = running.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    return f"ended with status {status}" if status else None


def run(parts: Iterable[tuple[str, Part]], config: Config) -> bool:
    """Did all go well?"""
    begin, well = time.monotonic(), True
    for name, part in parts:
        left = config.seconds - (time.monotonic() - begin)
        print(f"\n== {name}, {time.monotonic() - begin:.0f} s after the start", flush=True)
        if part.beside:
            print(part.beside, flush=True)
        words = command(part, config.record, config.small)
        limit = left if config.small else min(left, part.seconds)
        problem = within(limit, words) if left > 1 else "no time is left"
        told = {"part": name, "problem": problem, "processor": processor(), "accelerator": accelerator()}
        with Path(config.record).open("a", encoding="utf-8") as file:
            print(json.dumps(told), file=file)
        if problem:
            print(f"{name}: {problem}", flush=True)
            well = False
    return well


def main() -> None:
    config = tyro.cli(Config)
    if unknown := [name for name in config.part if name not in PARTS]:
        sys.exit(f"--part is {unknown[0]}: it must be one of {', '.join(PARTS)}")
    if not config.small and not accelerator():
        sys.exit("there is no NVIDIA GPU here; --small tries every part on a CPU")
    os.chdir(Path(__file__).parents[1])
    sys.exit(0 if run(((name, PARTS[name]) for name in config.part), config) else 1)


if __name__ == "__main__":
    main()
