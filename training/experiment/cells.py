"""An experiment is named cells, each one file: it goes on after a kill with what is missing, and ends in a report."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from training.compiled import remember_programs
from training.files.atomic import read_json, write_json
from training.files.errors import DataError
from training.files.locks import locked
from training.metrics import progress_bar

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
    if not path.exists() and any((path.parent / "cells").glob("*.json")):
        raise DataError(f"{path}: lost, so nobody knows what the cells beside it were made with; {DELETE}")
    found = read_json(path, DELETE) if path.exists() else {}
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name, value) != value:
            raise DataError(
                f"{path.parent}: its cells were made with {name} {found[name]}, not {value}: "
                "give that, or another --folder"
            )
    write_json(path, found | dict(wanted))


def run_cells(
    folder: Path, cells: Mapping[str, Cell], make: Callable[[Cell], dict], unit: str = "cell"
) -> list[dict[str, Any]]:
    """What `make` returns for each cell, in order, kept as cells/NAME.json in `folder`; where that exists it is read.

    A cell that ends in ValueError, such as DataError or a loss that is not finite, does not keep the others from being
    made: it is told of at once, and ends the whole in DataError after them.
    """
    paths = {name: folder / "cells" / f"{name}.json" for name in cells}
    missing, failed = [name for name, path in paths.items() if not path.exists()], []
    bar = progress_bar(len(paths) - len(missing), len(paths), unit=unit)
    for name in missing:
        bar.set_description(name, refresh=sys.stderr.isatty())
        try:
            write_json(paths[name], make(cells[name]))
        except ValueError as error:
            failed.append(f"{name}: {error}")
            bar.write(failed[-1], file=sys.stderr)
        bar.update()
    bar.close()
    if failed:
        others = f" (and {len(failed) - 1} more, above)" if len(failed) > 1 else ""
        raise DataError(f"{failed[0]}{others}; the rest is done, and the same command without it ends in the tables")
    return [read_json(path, REMAKE) for path in paths.values()]
