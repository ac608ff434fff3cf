"""Start a training on TPU slices or GPU hosts, and keep it running: python -m scripts.launch WHERE --help"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.command import run

from . import prog

# The words that begin a training, by its name for scripts.plan.
TRAININGS = {
    "pretrain": ("pretrain",),
    "finetune": ("finetune",),
    "pretrain_encoder": ("pretrain_encoder",),
    "simcse": ("simcse",),
    "roformer_sim": ("roformer_sim",),
    "match_anonymised": ("match_anonymised", "train"),
    "wgan_images": ("wgan", "images"),
}
ABOUT = """Start a training on many hosts, and keep it running. TRAINING is a command of this project, such as
scripts.pretrain --preset t5-pegasus-base --data 'gs://bucket/*.jsonl' --folder gs://bucket/run. docs/pods.md has each
step. tpu runs gcloud; the others print a file for sbatch, kubectl or sky."""


def main() -> None:
    from training.flags import parse_command
    from training.pods.launching import jobset, skypilot, slurm, tpu
    from training.pods.launching.job import Work, with_job

    at = [*sys.argv, "--"].index("--")
    kinds: dict[str, Callable[..., Any]] = {
        "tpu": tpu.TpuConfig, "slurm": slurm.SlurmConfig, "jobset": jobset.JobSetConfig,
        "skypilot": skypilot.SkyPilotConfig,
    }  # fmt: skip
    config = parse_command(kinds, args=sys.argv[1:at], prog=prog("launch"), description=ABOUT)
    given = sys.argv[at + 1 :]
    work = with_job(Work(*_split(given)), config.job) if given else None
    if isinstance(config, tpu.TpuConfig):
        text = tpu.script(config, work, [sys.executable, "-m", f"{__package__}.plan"])
        if not config.job.dry_run:
            if config.action == "up" and not Path(config.wheel).is_file():
                raise ValueError(f"{config.wheel}: no such wheel; python -m pip wheel --no-deps -w dist . makes it")
            sys.exit(subprocess.call(["bash", "-c", text]))
    elif work is None:
        raise ValueError("no training: give it after --, such as -- scripts.pretrain --preset t5-pegasus-base")
    elif isinstance(config, slurm.SlurmConfig):
        text = slurm.batch(config, work)
    elif isinstance(config, jobset.JobSetConfig):
        text = jobset.manifest(config, work)
    else:
        text = skypilot.task(config, work)
    print(text, end="")


def _split(given: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(the command's words, its arguments, its name for a plan). Raises ValueError for what is no training."""
    from training.flags import masked

    words = [given[0].removeprefix("scripts."), *given[1:]]
    for plan, command in TRAININGS.items():
        if (*words[: len(command)],) == command:
            return command, (*words[len(command) :],), plan
    known = ", ".join(f"scripts.{' '.join(command)}" for command in TRAININGS.values())
    raise ValueError(f"{masked(' '.join(given[:2]))!r} is no training: give one of {known}")


if __name__ == "__main__":
    run(main)
