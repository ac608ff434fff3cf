"""A trained matcher: its encoder, and how its pairs became ids."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from training.checkpoints import Checkpoints, checkpoints_of
from training.files.atomic import read_json, write_json
from training.files.errors import DataError

SETTINGS = "matching.json"  # beside a run's checkpoints, or an aligned encoder


class Reading(NamedTuple):
    """How pairs become ids."""

    most: int  # ids between the marks
    rare: bool
    shared: bool  # token types say which ids the other text has

    def write(self, folder: Path) -> None:
        """Raises DataError where the folder's is another, which the checkpoints there were trained with."""
        kept = checkpoints_of(folder)
        if kept != folder and any(kept.iterdir()) and is_matcher(folder) and read_reading(folder) != self:
            raise DataError(f"{folder / SETTINGS}: the run there had other settings; give them, or another --folder")
        write_json(folder / SETTINGS, self._asdict())


class Matcher(NamedTuple):
    """A trained encoder."""

    source: TextEncoder
    reading: Reading


def is_matcher(folder: str | Path) -> bool:
    """Does it match pairs: a run of scripts.match_anonymised train, or what align made of one?"""
    return (Path(folder) / SETTINGS).is_file()


def read_reading(folder: str | Path) -> Reading:
    """Raises DataError where `is_matcher` says no."""
    if not is_matcher(folder):
        folds = sorted(path.parent for path in Path(folder).glob(f"fold-*/{SETTINGS}"))
        more = f"; give a fold of it, such as {folds[0]}" if folds else ""
        raise DataError(
            f"{folder}: no run of scripts.match_anonymised train, nor aligned of one ({SETTINGS} is not there){more}"
        )
    found = read_json(Path(folder) / SETTINGS)
    return Reading(most=int(found["most"]), rare=bool(found["rare"]), shared=bool(found["shared"]))


def load_matcher(folder: str | Path, average: int = 1) -> Matcher:
    """That of a run of scripts.match_anonymised train, or of what align made of one; the mean of the weights of a run's
    `average` newest checkpoints, but for one that it saved when it was told to stop. Raises DataError."""
    folder, reading = Path(folder), read_reading(folder)
    if average == 1:
        return Matcher(load_text_encoder(folder), reading)
    steps = _regular(folder)[-average:]
    if len(steps) < average:
        raise DataError(
            f"{folder}: {len(steps)} checkpoints, fewer than the {average} to be averaged; train with --average"
        )
    sources = [load_text_encoder(folder, step=step) for step in steps]
    mean = jax.tree.map(lambda *arrays: np.mean(arrays, 0), *(source.model for source in sources))
    return Matcher(sources[0]._replace(model=mean), reading)


def _regular(folder: Path) -> list[int]:
    """Steps of the checkpoints of a run's schedule, and of its last."""
    if not (folder / "checkpoints").is_dir():
        return []
    with Checkpoints(checkpoints_of(folder), keep=None) as checkpoints:
        about = {step: checkpoints.config(step)["schedule"] for step in checkpoints.steps}
    newest = max(about, default=0)
    return [step for step, (every, last) in about.items() if step % every == 0 or step == last == newest]
