"""One training to be launched elsewhere: its command there, as words and in a shell, and what cannot be."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

from training.files.buckets import path_of

# Of gcloud, the label of a DNS name: https://docs.cloud.google.com/compute/docs/naming-resources. Shorter by what is
# added to it for each slice and host.
NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
# Control characters, line separators and what is no character: in a comment or a block of YAML, and in a batch file,
# some of them end a line, for some readers.
BREAKS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
BUCKET = re.compile(r"gs://[^/*?#\[\]]+(/[^*?#\[\]]*)?")  # what path_of takes, which would first look for credentials
OWN_DISKS = ("/tmp", "/var", "/dev/shm", "/local")  # where a cluster's hosts share nothing


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    """Of what is made: lower-case letters, digits and -, 40 at most."""
    folder: str | None = None
    """The training's --folder, such as gs://bucket/run; it may as well stand after --."""
    data: tuple[str, ...] = ()
    """The training's --data; it may as well stand after --."""
    dry_run: bool = False
    """Print what would be run, and run nothing."""

    def __post_init__(self):
        check_words(self)
        if not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"name is {self.name!r}: it must begin with a letter, have lower-case letters, digits and -, end with "
                "none, and be of 40 at most"
            )


@dataclass(frozen=True)
class Work:
    """The training itself."""

    command: tuple[str, ...]  # such as ("pretrain",), of pegasus-zh
    arguments: tuple[str, ...]
    plan: str  # its name for scripts.plan

    def __post_init__(self):
        if any(map(BREAKS.search, self.arguments)):
            raise ValueError(
                "a line break in the arguments of the training, or another control character: no batch file holds it"
            )

    def value(self, flag: str) -> str | None:
        """Of the last --flag VALUE or --flag=VALUE."""
        pairs = zip(self.arguments, (*self.arguments[1:], ""), strict=False)
        found = [b if a == flag else a.partition("=")[2] for a, b in pairs if a == flag or a.startswith(f"{flag}=")]
        return found[-1] if found else None


def check_words(config: Any) -> None:
    """Raises ValueError for BREAKS in the words of a config, which come into files whose lines count."""
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        words = value if isinstance(value, tuple) else (value,)
        if any(isinstance(word, str) and BREAKS.search(word) for word in words):
            raise ValueError(f"{name} has a line break or another control character: give it without")


def check_wheel(path: str) -> None:
    """Raises ValueError for a wheel whose name a shell or YAML could read as anything else."""
    if not re.fullmatch(r"[\w.+-]+\.whl", PurePath(path).name, re.ASCII):
        raise ValueError(f"wheel is {path!r}: give a file whose name ends in .whl, of letters, digits, '.', _, + and -")


def with_job(work: Work, job: Job) -> Work:
    """The job's folder and data among the arguments. Raises ValueError for what is given twice."""
    added: list[str] = []
    for flag, values in (("--data", job.data), ("--folder", (job.folder,) if job.folder else ())):
        if values and work.value(flag) is not None:
            raise ValueError(f"{flag} is given before -- and after it: give it once")
        added += [flag, *values] if values else []
    return Work(work.command, (*work.arguments, *added), work.plan)


def check_folder(work: Work, hosts: int, *, shared: bool, kept: bool = True) -> None:
    """Raises ValueError for a run's folder that is no path on a disk or in a bucket, and for one on a host's own disk
    where there are several, the others of which would not see it, or where that is not kept when the run is over.
    shared: the hosts see the same files, but for OWN_DISKS."""
    folder = work.value("--folder")
    in_bucket = folder is not None and BUCKET.fullmatch(folder)
    if folder is not None and not in_bucket:
        path_of(folder, "folder")
    if in_bucket or (hosts == 1 and kept):
        return
    if hosts == 1:
        told = f"--folder {folder}" if folder else "--folder is not given, and so"
        raise ValueError(
            f"{told} is on a disk that goes with the machine: give one that stays, such as gs://bucket/run"
        )
    if not shared or (folder and folder.startswith(OWN_DISKS)):
        told = f"--folder {folder} is on each host's own disk" if folder else "--folder is not given"
        raise ValueError(f"{told}: {hosts} hosts need one that all see, such as --folder gs://bucket/run")


def words_of(work: Work, processes: int) -> list[str]:
    """What follows pegasus-zh on each host."""
    distributed = ["--distributed"] * (processes > 1 and "--distributed" not in work.arguments)
    return [*work.command, *work.arguments, *distributed]


def looped(work: Work, processes: int, program: str) -> str:
    """The training within the loop that starts it again, in a shell. program: pegasus-zh there, quoted already."""
    return f"{program} keep_running -- \\\n  {program} {shell(words_of(work, processes))}"


def extras(work: Work, *names: str) -> str:
    """Of this project, which the hosts install: those named, and what the training's flags ask for."""
    return ",".join([*names, *(["wandb"] if work.value("--wandb") else [])])


def shell(words: Sequence[str]) -> str:
    """Quoted for a shell, and where it is long a flag a line."""
    if len(line := shlex.join(words)) <= 100:
        return line
    return " ".join(("\\\n  " if word.startswith("--") else "") + shlex.quote(word) for word in words)
