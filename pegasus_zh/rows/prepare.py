"""The first of two stages: raw documents -> packed rows on disk, on all cores of a machine, restartable.

    document -> examples by a maker: sentences, groups, (source, target), ids -> rows -> ArrayRecord shards

A killed run goes on where it was, shard by shard. The bytes of a prepared set (see prepared_set) depend on documents,
settings and tokenizer alone, never on the number of workers.
"""

import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from pegasus_zh.rows.copies import CopiesConfig, copies_among
from pegasus_zh.rows.makers import PAIR, ExamplesConfig
from pegasus_zh.rows.packed_rows import PreparedRows, open_rows
from pegasus_zh.rows.packing import choose_row_shape
from pegasus_zh.rows.prepared_set import (
    FORMAT,
    TOKENIZER_FIELDS,
    Contents,
    Manifest,
    finished_set,
    finished_shard,
    read_settings,
    total_contents,
)
from pegasus_zh.rows.progress import DoneHere, DoneTogether, bar
from pegasus_zh.rows.shards import KEPT, ShardMaker, lengths_of
from pegasus_zh.rows.workers import in_processes
from pegasus_zh.text.documents import mixed_records, parse_records, record_chunks
from pegasus_zh.text.records import Record
from pegasus_zh.text.sources import Source, find_sources
from pegasus_zh.text.stamps import stamps
from pegasus_zh.text.tokenizers import Tokenizer
from training.files.atomic import write_json
from training.files.buckets import path_of
from training.files.errors import DataError
from training.files.locks import locked
from training.ranges import check_ranges
from training.telling import tell

SAMPLE_BYTES = 1_000_000  # of documents by which the shape of a row is chosen


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(CopiesConfig):
    """Which documents are prepared, and how the work is done."""

    pair_fields: tuple[str, str] = ("source", "reference")
    """Of pairs: their fields or columns. Where the selector is pairs, --data is .jsonl, .json, .csv, or .tsv (reference
    TAB source, or with names in the first line)."""
    shard_megabytes: float = 0
    """Raw input of a shard, held in memory and lost by a kill; 0: 1/256 of all, 2 to 32."""
    eval_fraction: float = 0.01
    """Documents held out for evaluation, by a hash of their text; of 1/fraction or more it is one at least."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, shard_megabytes=(0, 4096))


class Runner(Protocol):
    """Where the work on a set is done."""

    def stamps(self, sources: Sequence[Source], folder: Path) -> list[list]:
        """As pegasus_zh/text/stamps.py has them."""

    def shards(self, make: ShardMaker, config: PrepareConfig, sources: Sequence[Source]) -> tuple[Contents, int]:
        """Makes those that are missing: what the set holds then, and the bytes of text that were not done before."""


def prepare(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer, folder: Path | str) -> PreparedRows:
    """As prepare_set, and opens the set's rows; of a bucket they are fetched."""
    prepare_set(examples, config, tokenizer, folder)
    return open_rows(folder)


def prepare_set(
    examples: ExamplesConfig,
    config: PrepareConfig,
    tokenizer: Tokenizer,
    folder: Path | str,
    runner: Runner | None = None,
) -> Manifest:
    """Prepares `config.data` into `folder`, or goes on with an earlier run's; returns at once if all is done.

    runner: by default, processes of this machine; pegasus_zh/rows/beam.py has another.

    Another run into the same folder is waited for. With several workers, the script that calls this needs the line
    `if __name__ == "__main__":`, as with any process pool, best with its imports below: workers import what is above.
    Raises DataError for documents that cannot be read, or give no example at all; for a folder whose set was made with
    other settings, tokenizer or files; for a full disk; and for a killed worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports its parent's script
        sys.exit('the script that calls prepare needs the line `if __name__ == "__main__":` before it')
    maker, runner = examples.maker, runner or Processes()
    folder, sources = path_of(folder, "--folder"), find_sources(config.data, maker.reads.files)
    if maker.kinds and tokenizer.kind not in maker.kinds:
        raise DataError(f"{examples.selector} {maker.reason}, not {tokenizer.kind}")
    settings = settings_of(examples, config, tokenizer)
    with locked(folder, wait=True):
        try:
            if not (found := read_settings(folder, settings, sources)):
                row = _choose_row(examples, config, tokenizer, sources)
                found = settings | {"sources": runner.stamps(sources, folder), "row": row}
                write_json(folder / "settings.json", found)
            if finished := finished_set(folder):
                return finished
            started = time.perf_counter()
            tokenizer.save(folder / "tokenizer")
            make = ShardMaker(examples, config, tokenizer, folder, found["row"], found.get("held"))
            work = partial(runner.shards, config=config, sources=sources)
            contents, made = work(make)
            if _holds_none_by_chance(contents, config.eval_fraction):
                contents, made = _hold_one(work, make, contents, found), made + contents.bytes
            if not contents.files:
                # Nothing is lost, and mended documents may come here. The settings last: of them the journals are.
                for path in (*folder.glob("shard-*.json"), folder / "settings.json"):
                    path.unlink()
                skipped = f" ({sum(contents.skipped.values()):,} bad ones skipped)" if contents.skipped else ""
                raise DataError(
                    f"{', '.join(config.data)}: nothing to train on, as none of {contents.documents:,} texts{skipped} "
                    f"has {maker.needs}; give longer ones ({maker.reads.found})"
                )
            identity = {name: getattr(tokenizer, name) for name in TOKENIZER_FIELDS}
            made_of = settings | {"sources": found["sources"]}
            manifest = Manifest(FORMAT, made_of, identity, found["row"], contents)
            write_json(folder / "manifest.json", asdict(manifest))
        except BrokenProcessPool as error:
            raise DataError(
                f"{folder}: a worker was killed (out of memory?) or could not start; give fewer --workers, {KEPT}"
            ) from error
        except OSError as error:
            raise DataError(f"{folder}: cannot write ({error}); make room, {KEPT}") from error
    tell(f"{manifest.summary()}; {made / 1e6 / (time.perf_counter() - started):.2f} MB/s")
    if warning := manifest.contents.losses.warning():
        tell(warning)
    return manifest


def settings_of(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer) -> dict:
    """All that decides the bytes of a prepared set, beside its documents."""
    settings = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, **asdict(examples)}
    # Not on_bad_record: a run stopped by a bad document may go on without it.
    for name in (*examples.maker.reads.settings, "shard_megabytes", "eval_fraction"):
        value = getattr(config, name)
        settings[name] = list(value) if isinstance(value, tuple) else value  # as JSON gives it back
    return settings | config.of_copies()


def _choose_row(
    examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer, sources: Sequence[Source]
) -> dict[str, int]:
    """The row's shape, by a sample of the documents where it is not given."""
    row = examples.row
    if all(row.values()):
        return row
    records = next(record_chunks(_mixed(examples, config, sources), SAMPLE_BYTES), ())
    texts = [text[:SAMPLE_BYTES] for text in parse_records(records, examples.maker.reads.of(config), "skip", Counter())]
    sample = [*chain.from_iterable(examples.make(texts, tokenizer))]
    lengths = lengths_of(sample) if sample else np.array([examples.longest])
    chosen = dict(zip(row, choose_row_shape(lengths, examples.longest, [*row.values()]), strict=True))
    flags = " and ".join(f"--{side.row.replace('_', '-')}" for side in examples.maker.sides)
    tiny = " (scripts.pretrain's preset tiny: 512 and 160)" if examples.maker.sides == PAIR else ""
    shape = " + ".join(map(str, chosen.values()))
    tell(f"rows of {shape}, chosen by a sample of the documents; {flags} fix them{tiny}")
    return chosen


def _mixed(examples: ExamplesConfig, config: PrepareConfig, sources: Sequence[Source]) -> Iterator[Record]:
    return mixed_records(sources, config.field, examples.maker.reads.names(config))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _holds_none_by_chance(contents: Contents, fraction: float) -> bool:
    enough = fraction * (contents.documents - contents.without_examples) >= 1
    return enough and not any(file.split == "eval" for file in contents.files)


def _hold_one(
    shards: Callable[[ShardMaker], tuple[Contents, int]], make: ShardMaker, found: Contents, settings: dict
) -> Contents:
    """What the set holds when its document of the lowest digest is held out, wherever it stands."""
    for path in make.folder.glob("shard-*.json"):
        if Contents.of(json.loads(path.read_bytes())).lowest == found.lowest:
            path.unlink()  # first: what is killed between the two does this again
    write_json(make.folder / "settings.json", settings | {"held": found.lowest})
    return shards(replace(make, held=found.lowest))[0]


def shard_bytes(config: PrepareConfig, sources: Sequence[Source]) -> float:
    """Of the records of a shard, as they lie in the files but not compressed."""
    total = sum(source.size for source in sources)
    return config.shard_megabytes * 1e6 or min(max(total / 256, 2e6), 32e6)


class Processes(Runner):
    """Of this machine."""

    def stamps(self, sources: Sequence[Source], folder: Path) -> list[list]:
        return stamps(sources)

    def shards(self, make: ShardMaker, config: PrepareConfig, sources: Sequence[Source]) -> tuple[Contents, int]:
        examples, folder = make.examples, make.folder
        size, workers = shard_bytes(config, sources), config.workers or _cores()
        copies = copies_among(_mixed(examples, config, sources), examples, config, workers)
        # No more workers than shards; text of more than ten times its compressed size is not to be expected.
        workers = min(workers, 1 + int(10 * sum(source.size for source in sources) / size))
        shards: dict[int, Contents] = {}

        def missing() -> Iterator[tuple[int, list[Record]]]:
            records = (one for n, one in enumerate(_mixed(examples, config, sources)) if n not in copies)
            for index, chunk in enumerate(record_chunks(records, size)):
                if shard := finished_shard(folder, index):
                    shards[index] = shard
                else:
                    yield index, chunk

        make = replace(make, done=DoneTogether() if workers > 1 else DoneHere())
        todo = missing()
        made = in_processes(make, todo, workers) if workers > 1 else ((i, make(i, chunk)) for i, chunk in todo)
        with bar("prepare", make.done):
            for index, shard in made:
                shards[index] = shard
        return total_contents([shards[index] for index in sorted(shards)], len(copies)), make.done.bytes
