"""A batch file for Slurm: https://slurm.schedmd.com/sbatch.html and srun.html."""

import re
from dataclasses import dataclass
from typing import Annotated

from training.command import STOPPED
from training.flags import FLAT
from training.pods.launching.job import Job, Work, check_folder, check_words, looped, shell


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    job: Annotated[Job, FLAT]
    nodes: int = 1
    """Hosts."""
    gpus: int = 8
    """Of each host; as many processes, for that is how JAX finds them under Slurm."""
    cpus: int = 8
    """Cores of each process."""
    time: str = "1-00:00:00"
    """The longest a job may take, as Slurm writes it: days-hours:minutes:seconds. The training is told two minutes
    before, saves, and is queued again."""
    partition: str | None = None
    account: str | None = None
    environment: str = ".venv"
    """A folder that all hosts see, of a Python environment in which this project is installed."""

    def __post_init__(self):
        check_words(self)
        for name in ("nodes", "gpus", "cpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("time", "partition", "account"):
            if not re.fullmatch(r"[\w:.,-]+", getattr(self, name) or "-"):
                raise ValueError(f"{name} is {getattr(self, name)!r}: Slurm has no such value")


# JAX takes SLURM_LOCALID for the one GPU that is a process's own, of all that its host has (jax/_src/clusters and
# distributed.py); so every task sees all. A signal without B: goes to the tasks, and not to this shell, which lives on
# to queue the job again. srun does not take --cpus-per-task over from sbatch. Tasks end within a moment of each other:
# ten minutes (--wait) are for the last one's files.
BATCH = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.out
{more}status=0
srun --cpus-per-task={cpus} --wait=600 {looped} || status=$?
if [ "$status" -eq {stopped} ]; then  # told to stop, and saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def batch(config: SlurmConfig, work: Work) -> str:
    """Raises ValueError for what cannot be."""
    check_folder(work, config.nodes, shared=True)
    more = [("partition", config.partition), ("account", config.account)]
    return BATCH.format(
        name=config.job.name,
        nodes=config.nodes,
        gpus=config.gpus,
        cpus=config.cpus,
        time=config.time,
        more="".join(f"#SBATCH --{name}={value}\n" for name, value in more if value),
        looped=looped(work, config.nodes * config.gpus, shell([f"{config.environment}/bin/pegasus-zh"])),
        stopped=STOPPED,
    )
