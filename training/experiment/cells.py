"""An experiment of many cells, each one file: it goes on after a kill with what is missing, and ends in tables and pictures."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from scipy.stats import t

from training.files.atomic import read_json, write_json
from training.files.errors import DataError
from training.metrics import progress_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESAMPLES = 2000
REMAKE = "delete it, and the same command makes it again"
DELETE = "delete the folder, or give another --folder"


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: int, sign: str = "") -> str:
        """As a table has it; sign "+" marks what is above 0."""
        mean, low, high = (f"{value:{sign}.{digits}f}" for value in self)
        return mean if np.isnan(self.low) else f"{mean} [{low}, {high}]"


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """Of values [seeds, examples], by a bootstrap of both: resampled seeds, and examples that are the same for all seeds.

    Of differences between two methods, seed by seed and example by example, it keeps each pair together. Where a seed has one
    number, values are [seeds, 1].
    """
    rng = np.random.default_rng(seed)
    # How often each seed and each example is drawn is all that a resample's mean needs.
    seeds, examples = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in values.shape)
    low, high = np.percentile(np.einsum("rs,se,re->r", seeds, values, examples, optimize=True), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def estimate_runs(values: Sequence[float]) -> Estimate:
    """Of independent runs with one number each: Student's interval, since a bootstrap of few is too narrow. One run has none, NaN."""
    mean, count = float(np.mean(values)), len(values)
    half = t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5 if count > 1 else np.nan
    return Estimate(mean, float(mean - half), float(mean + half))


def keep_settings(path: Path, wanted: Mapping[str, Any]) -> None:
    """Keeps what a folder's cells are made with. Raises DataError where it was another value; a new setting may come."""
    if not path.exists() and any((path.parent / "cells").glob("*.json")):
        raise DataError(f"{path}: lost, so nobody knows what the cells beside it were made with; {DELETE}")
    found = read_json(path, DELETE) if path.exists() else {}
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name, value) != value:
            raise DataError(
                f"{path.parent}: its cells were made with {name} {found[name]}, not {value}: give that, or another --folder"
            )
    write_json(path, found | dict(wanted))


def run_cells(paths: Mapping[Any, Path], make: Callable[[Any], dict], unit: str = "cell") -> list[dict[str, Any]]:
    """What `make` returns for each cell, in order; those whose file exists are read. Calls it in the order of the paths.

    A cell that ends in ValueError, such as DataError or a loss that is not finite, does not keep the others from being made: it is told of at once, and ends the whole in
    DataError after them.
    """
    missing, failed = [cell for cell, path in paths.items() if not path.exists()], []
    bar = progress_bar(len(paths) - len(missing), len(paths), unit=unit)
    for cell in missing:
        bar.set_description(paths[cell].stem, refresh=sys.stderr.isatty())
        try:
            write_json(paths[cell], make(cell))
        except ValueError as error:
            failed.append(f"{paths[cell].stem}: {error}")
            bar.write(failed[-1], file=sys.stderr)
        bar.update()
    bar.close()
    if failed:
        others = f" (and {len(failed) - 1} more, above)" if len(failed) > 1 else ""
        raise DataError(f"{failed[0]}{others}; the rest is done, and the same command without it ends in the tables")
    return [read_json(path, REMAKE) for path in paths.values()]


def remember_programs(folder: str | Path) -> None:
    """Compiled programs are kept in `folder`: dozens of cells, and a command that goes on, compile the same few."""
    jax.config.update("jax_compilation_cache_dir", str((Path(folder) / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are flush left, the others right."""
    lines = [heads, ["---"] * left + ["---:"] * (len(heads) - left), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=130, format="png")
    return file.getvalue()
