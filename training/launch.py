"""On what a training runs, and how it begins and ends:
processes joined, its folder held by one run alone, one process speaking."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from training.alerts import alerting, check_url
from training.compiled import remember_programs
from training.files.buckets import path_of
from training.files.locks import locked
from training.mesh import MeshConfig, join_processes
from training.profile import parse_steps, profiled
from training.pulse import Pulse
from training.ranges import check_ranges
from training.telling import fall_silent
from training.wandb_rows import sending_rows

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""
    distributed: bool = False
    """One process of several: joins them through jax.distributed (a TPU pod finds the others by itself)."""
    silence: float = 60.0
    """Seconds without a sign of life after which a process of several is dead: the others then end, to begin again."""
    keep_compiled: bool = False
    """Keep compiled programs in the folder, for the next run of the same shapes to begin sooner."""
    profile: str | None = None
    """Trace the steps FIRST:LAST, such as 10:12, into profile/ of the folder, for XProf or TensorBoard."""
    alert: str | None = field(default=None, repr=False)
    """A webhook's URL, which is sent a line when the run diverges, skips, rewinds, fails, is stopped or finished; it is
    neither printed nor saved."""
    wandb: str | None = None
    """A project of Weights & Biases, for metrics and events; needs the extra wandb."""

    def __post_init__(self):
        check_ranges(self, silence=1)
        if self.alert is not None:
            check_url(self.alert)
        if self.profile is not None:
            parse_steps(self.profile)


def joined(launch: LaunchConfig) -> None:
    """Joins the processes if there are several; all but the first are silent from then on.
    Raises ValueError where they cannot be found."""
    if launch.distributed:
        join_processes()
        if jax.process_count() > 1:
            Pulse(launch.silence)
    if jax.process_index() != 0:
        fall_silent()


@contextmanager
def hold(folder: Path | str, launch: LaunchConfig) -> Iterator[None]:
    """Holds the folder for this run alone. Raises ValueError where another run is at work in it,
    DataError for an empty path."""
    folder, first = path_of(folder, "folder"), jax.process_index() == 0
    with (
        locked(folder) if first else nullcontext(),
        remember_programs(folder / "compiled") if launch.keep_compiled else nullcontext(),
        alerting(launch.alert, folder) if launch.alert and first else nullcontext(),
        sending_rows(launch.wandb, folder) if launch.wandb and first else nullcontext(),
        profiled(launch.profile, folder / "profile") if launch.profile else nullcontext(),
    ):
        yield


def by_first(make: Callable[[], Made], reopen: Callable[[], Made], what: str) -> Made:
    """What the first process makes on the storage that all share, and the others open once it is there."""
    if jax.process_index() == 0:
        made = make()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
    return made if jax.process_index() == 0 else reopen()
