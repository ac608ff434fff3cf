"""Which arrangement of a training is the quickest on a slice, and which the smallest?

A candidate is a mesh, rows a chip, what the backward pass recomputes and an optimizer. Each is planned by a process of
its own, two at a time, the likely best first. Answers are kept: the next search of the same sources takes seconds.
"""

import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from training.files.atomic import read_json
from training.metrics import progress_bar
from training.pods.collectives import Slice
from training.pods.compilation import compiler
from training.pods.table import Told

AT_ONCE = 2
LEAST_TO_MOST = ("full", "dots", "none")  # remat by the memory it leaves in use


@dataclass(frozen=True, kw_only=True)
class Candidate:
    mesh: tuple[int, ...]  # data x fsdp x tensor, of several slices replica x data x fsdp x tensor
    rows: int  # a chip: of a microbatch, over all but tensor
    remat: str | None  # None: the training has none
    optimizer: str | None

    @property
    def batch(self) -> int:
        return self.rows * math.prod(self.mesh[:-1])

    def __str__(self) -> str:
        parts = (" x ".join(map(str, self.mesh)), f"{self.rows} rows a chip", self.remat, self.optimizer)
        return ", ".join(part for part in parts if part)


def candidates(
    chips: int, slices: int, rows: Sequence[int], remat: Sequence[str | None], optimizer: Sequence[str | None]
) -> list[Candidate]:
    """All arrangements, each slice a replica."""
    chips //= slices
    sides = [n for n in range(1, chips + 1) if chips % n == 0]
    meshes = [
        (*(slices,) * (slices > 1), chips // (fsdp * tensor), fsdp, tensor)
        for fsdp, tensor in itertools.product(sides, sides)
        if chips % (fsdp * tensor) == 0
    ]
    found = itertools.product(meshes, rows, remat, optimizer)
    return [Candidate(mesh=mesh, rows=n, remat=kind, optimizer=by) for mesh, n, kind, by in found]


def larger(one: Candidate, other: Candidate) -> bool:
    """Does `one` need at least the memory of `other`, for all that is known without compiling either?"""
    same = (one.mesh, one.optimizer) == (other.mesh, other.optimizer)
    kept = [LEAST_TO_MOST.index(x.remat) if x.remat in LEAST_TO_MOST else 0 for x in (one, other)]
    return same and one.rows >= other.rows and kept[0] >= kept[1]


def pareto(found: Iterable[tuple[Candidate, Told]]) -> list[tuple[Candidate, Told]]:
    """Those that no other beats in both time a row and memory a chip, the quickest first."""
    best: list[tuple[Candidate, Told]] = []
    for candidate, told in sorted(found, key=lambda x: (time_a_row(x[0], x[1]), x[1]["memory"]["all"])):
        if not best or told["memory"]["all"] < best[-1][1]["memory"]["all"]:
            best.append((candidate, told))
    return best


def time_a_row(candidate: Candidate, told: Told) -> float:
    """Seconds of the whole slice; a step may be of several microbatches."""
    return told["seconds"] / (told["rows"] * math.prod(candidate.mesh[:-1]))


def cheap(candidate: Candidate, flops_per_row: float, parameters: int, chips: Slice) -> float:
    """Seconds a row, roughly: to order by, no more.

    Products at half of the peak, a third more where all is recomputed, a tenth where nothing is (what is saved goes to
    HBM and back); gradients summed over `data`, weights gathered and gradients scattered over `fsdp`, each
    chip's part of them summed over slices. What crosses `tensor` depends on the model: a tenth more for each doubling.
    """
    (*replicas, data, fsdp, tensor), chip = candidate.mesh, chips.chip
    again = {"full": 4 / 3, "none": 1.1}.get(candidate.remat or "", 1.0)
    products = (
        again * flops_per_row * candidate.batch / (len(chips.slices) * 0.5 * chip.peak) * (1 + 0.1 * math.log2(tensor))
    )
    summed = 2 * 4 * parameters / (fsdp * tensor) * (data - 1) / data / chip.link
    gathered = 3 * 4 * parameters / tensor * (fsdp - 1) / fsdp / chip.link
    crossed = 2 * 4 * parameters / (data * fsdp * tensor) * (1 - 1 / math.prod(replicas)) / chip.network
    updated = 7 * 4 * parameters / (fsdp * tensor) / chip.hbm_rate  # AdamW reads and writes its states once
    return (products + summed + gathered + crossed + updated) / candidate.batch


@dataclass
class Found:
    """What a search has come to."""

    planned: list[tuple[Candidate, Told]] = field(default_factory=list)
    refused: dict[Candidate, float] = field(default_factory=dict)  # the bytes a chip that it asks for
    skipped: list[Candidate] = field(default_factory=list)  # they need at least as much as one that is refused
    failed: dict[Candidate, str] = field(default_factory=dict)
    left: list[Candidate] = field(default_factory=list)  # for want of time

    def take(self, candidate: Candidate, answer: Path, said: str) -> None:
        """answer: of a process that has ended; said: its last line of errors."""
        if not answer.exists():
            self.failed[candidate] = said
            return
        told = read_json(answer, "delete it, and search again")
        if "refused" in told:
            self.refused[candidate] = told["refused"]["needed"]
        else:
            self.planned.append((candidate, told))


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Within, SIGTERM raises: libtpu's own handler dumps its state, and leaves running what is started here."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        sys.exit("stopped: the same search goes on from here")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_ends_in_order()
def search(
    ordered: Sequence[Candidate], command: Callable[[Candidate], list[str]], kept: Path, minutes: float
) -> Found:
    """Plans the candidates in order, as many as the minutes allow.

    command: a process that plans one, and writes its answer as JSON to the file of the `--json` that is added to it.
    What the folder `kept` has of the same command, compiler, sources, and files that it names is read instead.
    """
    folder = kept / "search"
    folder.mkdir(parents=True, exist_ok=True)
    given = _given({word for candidate in ordered for word in command(candidate)}, kept)
    files = {candidate: folder / f"{_key(command(candidate), given)}.json" for candidate in ordered}
    found, until = Found(), time.monotonic() + 60 * minutes
    running: dict[Candidate, _Planning] = {}
    for candidate in ordered:
        if files[candidate].exists():
            found.take(candidate, files[candidate], "")
    waiting = [candidate for candidate in ordered if not files[candidate].exists()]
    bar = progress_bar(len(ordered) - len(waiting), len(ordered), unit="plan")
    try:
        while (waiting or running) and time.monotonic() < until:
            while waiting and len(running) < AT_ONCE:
                candidate = waiting.pop(0)
                if any(larger(candidate, other) for other in found.refused):
                    found.skipped.append(candidate)
                    bar.update()
                else:
                    running[candidate] = _Planning.start([*command(candidate), "--json", str(files[candidate])])
            for candidate in [one for one, planning in running.items() if planning.process.poll() is not None]:
                found.take(candidate, files[candidate], running.pop(candidate).last_line())
                bar.update()
            time.sleep(0.1)
    finally:
        for planning in running.values():
            planning.kill()
        bar.close()
    found.left = [*running, *waiting]
    return found


@dataclass(frozen=True)
class _Planning:
    """A process that plans one candidate, and what it says on the way."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]  # a file: a pipe that nobody reads fills up

    @classmethod
    def start(cls, command: Sequence[str]) -> "_Planning":
        errors = tempfile.TemporaryFile()
        return cls(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors), errors)

    def last_line(self) -> str:
        with self.errors:
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "it ended without a word")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def _key(command: Sequence[str], given: str) -> str:
    return hashlib.sha256("\0".join([*command, given]).encode()).hexdigest()[:24]


def _given(words: Iterable[str], kept: Path) -> str:
    """Of what answers depend on beside their command: the compiler, the sources of the training, and by size and time
    the files that words of the command name, themselves or by their folder; but not what plans keep."""
    digest = hashlib.sha256(compiler().encode())
    for source in loaded_sources():
        digest.update(source.read_bytes())
    for name in sorted({word.partition("=")[2] or word for word in words}):
        for file in [name] if os.path.isfile(name) else _files(name, kept):
            with suppress(OSError):  # a link to nothing
                digest.update(f"{file} {os.stat(file).st_size} {os.stat(file).st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(folder: str, kept: Path) -> list[str]:
    aside = os.path.realpath(kept)
    walked = [one for one in os.walk(folder) if not f"{os.path.realpath(one[0])}/".startswith(f"{aside}/")]
    return sorted(os.path.join(at, name) for at, _, names in walked for name in names)


def loaded_sources() -> list[Path]:
    """The files of this project's modules that are loaded by now, those of a training with all that it uses."""
    ours = {path.parent.name for path in Path(__file__).parents[2].glob("*/__init__.py")}
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] in ours]
    return sorted(Path(file) for module in modules if (file := getattr(module, "__file__", None)))
