"""Rows of metrics and events to Weights & Biases, by the extra `wandb`; its own environment variables say who and where
(https://docs.wandb.ai/models/track/environment-variables)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.events import listeners
from training.files.buckets import in_bucket
from training.files.errors import DataError


@contextmanager
def sending_rows(project: str, folder: Path) -> Iterator[None]:
    """Of the runs within, as one run there in a group by the folder's name: a restart is another run of the group.
    Raises DataError where the package is missing or refuses."""
    try:
        import wandb
    except ImportError:
        raise DataError("wandb needs the extra of its name: pip install 'pegasus-zh[wandb]'") from None
    # Without the command line, which may have secrets, and without what is printed.
    settings = wandb.Settings(x_disable_meta=True, console="off", disable_git=True, disable_code=True)
    place, group = None if in_bucket(folder) else os.fspath(folder), os.fspath(folder)[-128:]
    try:
        run = wandb.init(project=project, group=group, dir=place, settings=settings)
    except wandb.Error as error:
        raise DataError(f"wandb: {next(iter(str(error).splitlines()), 'no run could be made')}") from None
    run.define_metric("*", step_metric="step")  # which may go back, as W&B's own may not

    def send(_: Path, row: dict[str, Any]) -> None:
        run.log({"event": row["event"], "step": row["step"]} if "event" in row else row)

    listeners.append(send)
    try:
        with run:
            yield
    finally:
        listeners.remove(send)
