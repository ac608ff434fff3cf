"""Where the time of a training step goes on the device at hand, by line of the model.

    python -m benchmarks.where [--preset t5-pegasus-base] [--rows 32] [--dtype bfloat16] [--attention auto]

A few steps are traced, and what the device was busy with is added up by the line that `training/pods/lines.py` takes
each operation for, as in a plan for a TPU. On a CPU operations of several threads add up to more than the step.
"""

import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import tyro
from jax.profiler import ProfileData

from benchmarks.machine import accelerator, processor
from benchmarks.training_step import Config, compiled
from training.pods.lines import line_of, phase_of
from training.pods.program_text import read_program

STEPS = 3
AROUND = ("while", "call", "conditional")  # other operations, which are traced themselves


def traced(config: Config) -> tuple[float, Counter[tuple[str, str]]]:
    """Seconds of a step by the clock, and those of the device by line and phase."""
    step, state, batch = compiled(config, config.attention[0])
    origin = {
        one.name: (line_of(one.op_name, one.opcode), phase_of(one.op_name))
        for computation in read_program(step.as_text()).computations.values()
        for one in computation
        if one.opcode not in AROUND
    }

    def run(count: int) -> float:
        nonlocal state
        begin = time.perf_counter()
        for _ in range(count):
            state, sums = step(state, batch)
        jax.block_until_ready((state, sums))
        return (time.perf_counter() - begin) / count

    run(1)
    wall = run(STEPS)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(STEPS)
        (path,) = Path(folder).glob("**/*.xplane.pb")
        found: Counter[tuple[str, str]] = Counter()
        for name, seconds in operations(ProfileData.from_file(str(path))):
            if name in origin:
                found[origin[name]] += seconds / STEPS
    return wall, found


def operations(profile: ProfileData) -> list[tuple[str, float]]:
    """Of the steps, each operation's name and seconds: the device's, or those of the CPU's threads."""
    planes = [x for x in profile.planes if x.name.startswith("/device:")]
    found = []
    for plane in planes or [x for x in profile.planes if x.name == "/host:CPU"]:
        lines = list(plane.lines)
        for line in [x for x in lines if x.name == "XLA Ops"] or lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and stats.get("hlo_module", "").startswith("jit_step"):
                    found.append((str(stats["hlo_op"]), event.duration_ns / 1e9))
    return found


def main() -> None:
    config = tyro.cli(Config)
    wall, found = traced(config)
    total = sum(found.values()) or 1e-9  # where the trace has none
    print(f"where a step's time goes, {config.title}: {1e3 * wall:.1f} ms, operations {1e3 * total:.1f} ms")
    for (line, phase), seconds in found.most_common(24):
        print(f"  {line:40} {phase:12} {1e3 * seconds:9.2f} ms {seconds / total:7.1%}")
    if config.clock.record:
        lines = {f"{line}, {phase}": seconds for (line, phase), seconds in found.most_common()}
        where = {"title": f"where, {config.title}", "processor": processor(), "accelerator": accelerator()}
        with Path(config.clock.record).open("a", encoding="utf-8") as file:
            print(json.dumps(where | {"seconds": wall, "lines": lines}, ensure_ascii=False), file=file)


if __name__ == "__main__":
    # What is launched as one graph has no operations in a trace.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer="
    main()
