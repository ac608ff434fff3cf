"""An experiment is named cells, each one file: it goes on after a kill with what is missing, and ends in a report."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from training.compiled import remember_programs
from training.files.atomic import read_json, write_json
from training.files.errors import DataError
from training.files.locks import locked
from training.metrics import progress_bar
from training.telling import tell

AGAIN = "it is made again"
REMAKE = "delete it, and the same command makes it again"
DELETE = "delete the folder, or give another --folder"
Cell = TypeVar("Cell")


@contextmanager
def experiment(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Within it this process alone is at work in `folder`, whose cells are all made with `settings`
    (where there are any), and compiled programs are kept there: dozens of cells, and a command that goes on, compile
    the same few."""
    with locked(folder), remember_programs(folder / "compiled"):
        if settings:
            keep_settings(folder / "settings.json", settings)
        yield


def keep_settings(path: Path, wanted: Mapping[str, Any]) -> None:
    """Keeps what a folder's cells are made with. Raises DataError where it was another value;
    a new setting may come."""
    found = read_json(path, DELETE) if path.exists() else {}
    if not found and any((path.parent / "cells").glob("*.json")):
        raise DataError(f"{path}: lost, so nobody knows what the cells beside it were made with; {DELETE}")
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name, value) != value:
            raise DataError(
                f"{path.parent}: its cells were made with {name} {found[name]}, not {value}: "
                "give that, or another --folder"
            )
    write_json(path, found | dict(wanted))


class Made(NamedTuple):
    """An experiment's cells, of which some may have failed: the report is of those there are, and names the others."""

    cells: dict[str, dict[str, Any]]  # by name, in order
    missing: list[str]  # a line for each of the others: its name, and why

    def complete(self) -> None:
        """After the report: raises DataError where a cell is missing."""
        if self.missing:
            others = f" (and {len(self.missing) - 1} more, above)" if len(self.missing) > 1 else ""
            rest = "the rest is done" + (" and reported" if self.cells else "")
            raise DataError(f"{self.missing[0]}{others}; {rest}, and the same command makes what is missing again")


def run_cells(
    folder: Path,
    cells: Mapping[str, Cell],
    make: Callable[[Cell], dict],
    unit: str = "cell",
    fits: Callable[[dict[str, Any]], bool] = lambda row: True,
) -> Made:
    """What `make` returns for each cell, kept as cells/NAME.json in `folder`; where that exists it is read, and where
    it is damaged, or not what `make` returns today by `fits`, it is told of and the cell made again.

    A cell that ends in ValueError, such as DataError or a loss that is not finite, or for want of memory, does not keep
    the others from being made: it is told of at once, and is missing from what is returned. Raises DataError where all
    are.
    """
    paths = {name: folder / "cells" / f"{name}.json" for name in cells}
    found = {name: row for name, path in paths.items() if (row := _kept(path, fits)) is not None}
    wanted, missing = [name for name in paths if name not in found], []
    bar = progress_bar(len(paths) - len(wanted), len(paths), unit=unit)
    for name in wanted:
        bar.set_description(name, refresh=sys.stderr.isatty())
        try:
            write_json(paths[name], make(cells[name]))
            found[name] = read_json(paths[name])  # as the next command has it
        except (ValueError, MemoryError, jax.errors.JaxRuntimeError) as error:
            missing.append(f"{name}: {_reason(error)}")
            bar.write(missing[-1], file=sys.stderr)
        bar.update()
    bar.close()
    made = Made({name: found[name] for name in paths if name in found}, missing)
    if not made.cells:
        made.complete()
    return made


def _kept(path: Path, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """A cell that is there; None for one that is to be made."""
    if not path.exists():
        return None
    try:
        row = read_json(path, AGAIN)
    except DataError as error:
        tell(str(error))
        return None
    if not row or not fits(row):
        tell(f"{path}: not a cell as this version makes it; {AGAIN}")
        return None
    return row


def _reason(error: Exception) -> str:
    """One line. Raises what is no failure of one cell: of XLA's errors, all but too little memory."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    return f"out of memory ({text}): give smaller sizes"


def digest_of_files(paths: Iterable[str | Path]) -> str:
    """Of what is in them, one after the other."""
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:12]
