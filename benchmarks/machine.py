"""The machine under a measurement: its name, the cores that all sides share, and what else ran on them meanwhile."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # of /proc, a second


def processor() -> str:
    """As the kernel names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def accelerator() -> str | None:
    """The first NVIDIA GPU's name, without opening it."""
    if not shutil.which("nvidia-smi"):
        return None
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return (subprocess.run(asked, capture_output=True, text=True).stdout.splitlines() or [None])[0]


def pin(cores: int) -> tuple[int, ...]:
    """Keeps this process, and those it starts from now on, on so many of the cores it may use (0: all); returns them.

    Raises ValueError where there are fewer.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cores > len(allowed):
        raise ValueError(f"{cores} cores are asked for, and there are {len(allowed)}")
    os.sched_setaffinity(0, allowed[: cores or None])
    return tuple(allowed[: cores or None])


def environment(cores: int) -> dict[str, str]:
    """In which a process starts as many threads as it has cores. (XLA and Rust's pools see that by themselves, unless
    they have inherited otherwise.) And JAX takes of a GPU's memory what it needs: another side may have some."""
    pools = ("OMP", "MKL", "OPENBLAS", "RAYON")
    found = {f"{pool}_NUM_THREADS": str(cores) for pool in pools}
    return found | {"NPROC": str(cores), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def busy(cores: Iterable[int]) -> float:
    """Seconds since the start that these cores have worked, or were kept from it by other guests of the machine."""
    found = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(int, fields[:8])
            found += user + nice + system + interrupts + soft + stolen
    return found / TICKS


def used(pid: int) -> float:
    """Seconds of processor time of a process and those of its children that have ended; 0 where it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS
    return 0.0
