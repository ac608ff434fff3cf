"""What scripts.plan shows: one plan, alone or beside another, or what a search has found."""

import argparse
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax.sharding import Mesh

from training.files.atomic import write_json
from training.files.errors import DataError
from training.loop import LoopConfig
from training.partition import parts_of
from training.pods.collectives import slice_of
from training.pods.memory import GIB, DoesNotFit
from training.pods.plan import plan
from training.pods.search import Candidate, Found, candidates, cheap, pareto, search, time_a_row
from training.pods.table import against, breakdown, heading, known, memory, network, read_told, row
from training.program import Program
from training.telling import tell


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(those of plan, --against as the plan that it names; the others). Raises ValueError for what cannot be, before
    anything is compiled."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("runs/plans"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rows", default="8,16,32,64")
    options, rest = parser.parse_known_args(arguments)
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", options.rows):
        raise ValueError(f"--rows {options.rows}: give numbers of rows a chip, such as 8,16,32")
    options.rows = tuple(map(int, options.rows.split(",")))
    if options.slices < 1:
        raise ValueError(f"slices is {options.slices}: it must be 1 or more")
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise ValueError(f"minutes is {options.minutes}: it must be more than 0, and finite")
    if options.search and (options.json or options.against):
        raise ValueError("--json and --against are of one plan: leave them out, or --search")
    if options.against:
        options.against = read_told(options.against)
    if options.json:
        _check_writable(options.json)
    _check_writable(options.kept / "search" / "plan.json")
    return options, rest


def _check_writable(file: Path) -> None:
    """Can `file` be written, with the folders above it that are missing? Raises DataError."""
    above = next(folder for folder in file.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); name a file elsewhere") from None
    if file.is_dir():
        raise DataError(f"{file}: a folder; name a file in it")


SETTINGS = ("dtype", "remat", "attention", "optimizer")  # that decide a plan, where a config has them
SEARCHED = ("remat", "optimizer")  # of these what --search tries


def show_settings(config: Any, auto: Mapping[str, str], command: str, options: argparse.Namespace) -> None:
    """Tells what is planned: those of SETTINGS that the config has, in whatever part of it. auto: what auto is there,
    by the setting."""
    found = dict(_settings(config))
    names = [name for name in SETTINGS if name in found and not (options.search and name in SEARCHED)]
    shown = [f"{name} {found[name]}" + f" ({auto.get(name)})" * (found[name] == "auto") for name in names]
    tell(f"{command} on {_where(options)}" + "".join(f", {setting}" for setting in shown))
    if found.get("dtype") == "float32":
        tell("  float32 is planned: a TPU multiplies in bfloat16, so --dtype bfloat16 is what one trains with there")


def show_rows(program: Program, mesh: Mesh, loop: LoopConfig) -> None:
    """Tells the rows of a step, and their arrays."""
    arrays: dict[tuple[int, ...], str] = {}
    for name, array in program.shapes(loop.microbatch).items():
        arrays.setdefault(array.shape, name)
    shapes = ", ".join(f"{name} {list(shape)}" for shape, name in arrays.items())
    chip = loop.batch_size // parts_of("batch", mesh)
    parts = f"{loop.accumulate} microbatches" if loop.accumulate > 1 else "one microbatch"
    tell(f"  {loop.batch_size} rows a step, {chip} a chip, in {parts}: {shapes}")


def _settings(config: Any) -> Iterator[tuple[str, str]]:
    for name, value in vars(config).items():
        if is_dataclass(value):
            yield from _settings(value)
        elif isinstance(value, str):
            yield name, value


def _where(options: argparse.Namespace) -> str:
    return f"{options.slices} x {options.topology}" if options.slices > 1 else options.topology


def show_plan(program: Program, mesh: Mesh, loop: LoopConfig, options: argparse.Namespace, name: str) -> None:
    """Plans and shows it. Raises ValueError as `plan` does."""
    try:
        planned = plan(program, mesh, loop.microbatch, loop.accumulate, options.kept)
    except DoesNotFit as error:
        if options.json:
            write_json(options.json, {"refused": {"needed": error.needed, "room": error.room}})
        raise
    told = planned.told(name, _where(options))
    if options.json:
        write_json(options.json, told)
    tell("".join(f"{part}\n\n" for part in (memory(told), breakdown(told), known(told), network(told)) if part)[:-1])
    if options.against:
        tell(f"{against(told, options.against)}\n")
    tell(f"{heading()}\n{row(told)}")


def show_search(
    program: Program,
    mesh: Mesh,
    options: argparse.Namespace,
    command: Callable[[Candidate], list[str]],
    remat: Sequence[str | None],
    optimizer: Sequence[str | None],
) -> None:
    """Searches on the slice of `mesh`, and shows the candidates that no other beats in time and memory."""
    chips = slice_of(mesh)
    parameters = sum(x.size for x in jax.tree.leaves(jax.eval_shape(program.init).model))
    found = candidates(mesh.size, options.slices, options.rows, remat, optimizer)
    possible = [one for one in found if _possible(program, one, mesh)]
    ordered = sorted(possible, key=lambda one: cheap(one, program.flops_per_row, parameters, chips))
    tell(f"{len(ordered)} arrangements to plan, for {options.minutes:g} minutes at most, the likely best first")
    tell(searched(search(ordered, command, options.kept, options.minutes)))


def _possible(program: Program, candidate: Candidate, mesh: Mesh) -> bool:
    try:
        program.check(Mesh(mesh.devices.reshape(candidate.mesh), mesh.axis_names), candidate.batch)
    except ValueError:  # it cuts a dimension unevenly
        return False
    return True


def searched(found: Found) -> str:
    """What a search has found, in words and a table."""
    rows = [
        f"{row(told)} {one.remat or '-'} | {one.optimizer or '-'} | {1e6 * time_a_row(one, told):.0f} |"
        for one, told in pareto(found.planned)
    ]
    head, marks = heading().splitlines()
    lines = [f"{head} remat | optimizer | us a row |", f"{marks} --- | --- | --- |", *rows, ""]
    counts = {
        "planned": len(found.planned),
        "refused for want of memory": len(found.refused),
        "as large as one of those": len(found.skipped),
        "left for want of time": len(found.left),
    }
    lines.append(", ".join(f"{n} {what}" for what, n in counts.items()))
    lines += [f"refused: {one}: {needed / GIB:.2f} GiB" for one, needed in found.refused.items()]
    return "\n".join(lines + [f"failed: {one}: {why}" for one, why in found.failed.items()])
