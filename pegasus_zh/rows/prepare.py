"""The first of two stages: raw documents -> packed rows on disk, on all cores of a machine, restartable.

    document -> examples by a maker: sentences, groups, (source, target), ids -> rows -> ArrayRecord shards

A killed run goes on where it was, shard by shard. The bytes of a prepared set (see prepared_set) depend on documents,
settings and tokenizer alone, never on the number of workers.
"""

import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from pegasus_zh.rows.copies import CopiesConfig, copies_among
from pegasus_zh.rows.makers import PAIR, ExamplesConfig
from pegasus_zh.rows.packed_rows import PreparedRows, open_rows
from pegasus_zh.rows.packing import Example, choose_row_shape, encode_row, pack
from pegasus_zh.rows.prepared_set import (
    FORMAT,
    TOKENIZER_FIELDS,
    Contents,
    Manifest,
    ShardFile,
    Split,
    checksum,
    finished_set,
    finished_shard,
    id_dtype,
    journal,
    read_settings,
    total_contents,
)
from pegasus_zh.rows.progress import Done, DoneHere, DoneTogether, bar
from pegasus_zh.rows.workers import in_processes
from pegasus_zh.text.documents import mixed_records, parse_records, record_chunks
from pegasus_zh.text.losses import counting
from pegasus_zh.text.records import Record
from pegasus_zh.text.sources import Source, find_sources
from pegasus_zh.text.stamps import stamps
from pegasus_zh.text.tokenizers import Tokenizer
from training.files.atomic import atomic_write, write_json
from training.files.buckets import path_of
from training.files.errors import DataError
from training.files.locks import locked
from training.ranges import check_ranges
from training.telling import tell

SAMPLE_BYTES = 1_000_000  # of documents by which the shape of a row is chosen
BLOCK, BLOCK_CHARACTERS = 256, 1 << 18  # documents that go through the stages together, at most so many or of so much
KEPT = "then run the same command again; finished shards are kept"


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


@dataclass(frozen=True)
class ShardMaker:
    """Makes one shard after another."""

    examples: ExamplesConfig
    config: PrepareConfig
    tokenizer: Tokenizer
    folder: Path
    row: dict[str, int]  # positions of each side
    held: int | None = None  # the digest of what is held out beside the fraction
    done: Done = field(default_factory=DoneHere)  # of texts, in UTF-8

    def __call__(self, index: int, records: Sequence[Record]) -> Contents:
        """Writes the shard's files and then its journal. Raises DataError for a bad document or a full disk."""
        config, skipped = self.config, Counter[str]()
        counts = Counter(documents=0, without_examples=0, bytes=0)
        lowest: int | None = None
        tokenizer, lost = counting(self.tokenizer)
        examples: dict[Split, list[Example]] = {"train": [], "eval": []}
        texts = parse_records(records, self.examples.maker.reads.of(config), config.on_bad_record, skipped)
        for block in _blocks(texts):
            before = counts["bytes"]
            for text, found in zip(block, self.examples.make(block, tokenizer), strict=True):
                # By its source alone is a pair held out: so are then all the references of that source.
                content, *others = [part.encode() for part in ((text,) if isinstance(text, str) else text)]
                digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
                is_held = digest < config.eval_fraction * 2**64 or digest == self.held
                examples["eval" if is_held else "train"] += found
                if found and (lowest is None or digest < lowest):
                    lowest = digest
                counts.update(documents=1, without_examples=not found, bytes=len(content) + sum(map(len, others)))
            self.done.add(counts["bytes"] - before)
        try:
            files = [self._write(split, index, examples[split]) for split in examples if examples[split]]
            losses = lost()
            losses.characters = losses.commonest()
            bad = dict(sorted(skipped.items()))
            shard = Contents(files=files, skipped=bad, losses=losses, lowest=lowest, **counts)
            write_json(journal(self.folder, index), asdict(shard))
        except (OSError, RuntimeError) as error:  # ArrayRecord's is a RuntimeError
            raise DataError(f"{self.folder}: cannot write shard {index} ({error}); make room, {KEPT}") from error
        return shard

    def _write(self, split: Split, index: int, examples: list[Example]) -> ShardFile:
        lengths, dtype, row = lengths_of(examples), id_dtype(self.tokenizer.vocab_size), [*self.row.values()]
        rows = pack(lengths, row, self.examples.maker.most(row[0]))
        path = self.folder / f"{split}-{index:05d}.array_record"
        with atomic_write(path) as temporary:
            # Ids hardly compress (zstd: 16%), and uncompressed ones are read in half the time.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            for members in rows:
                writer.write(encode_row([examples[i] for i in members], dtype))
            writer.close()
            size, sha256 = temporary.stat().st_size, checksum(temporary)
        tokens = dict(zip(self.row, lengths.sum(0).tolist(), strict=True))
        return ShardFile(split, path.name, len(rows), len(examples), tokens, size, sha256)


def _blocks(texts: Iterable[Any]) -> Iterator[list[Any]]:
    """Documents, or pairs, in lists."""
    block: list[Any] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(block) == BLOCK or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """(examples, sides): ids of each side of one example or more."""
    return np.array([[len(side) for side in example] for example in examples], np.int64)


def prepare(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer, folder: Path | str) -> PreparedRows:
    """Prepares `config.data` into `folder`, or goes on with an earlier run's; returns its rows, at once if all is done.

    Another run into the same folder is waited for. With several workers, the script that calls this needs the line
    `if __name__ == "__main__":`, as with any process pool, best with its imports below: workers import what is above.
    Raises DataError for documents that cannot be read, or give no example at all; for a folder whose set was made with
    other settings, tokenizer or files; for a full disk; and for a killed worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports its parent's script
        sys.exit('the script that calls prepare needs the line `if __name__ == "__main__":` before it')
    maker = examples.maker
    folder, sources = path_of(folder, "--folder"), find_sources(config.data, maker.reads.files)
    if maker.kinds and tokenizer.kind not in maker.kinds:
        raise DataError(f"{examples.selector} {maker.reason}, not {tokenizer.kind}")
    settings = settings_of(examples, config, tokenizer)
    with locked(folder, wait=True):
        try:
            if not (found := read_settings(folder, settings, sources)):
                row = _choose_row(examples, config, tokenizer, sources)
                found = settings | {"sources": stamps(sources), "row": row}
                write_json(folder / "settings.json", found)
            if finished_set(folder):
                return open_rows(folder)
            started = time.perf_counter()
            tokenizer.save(folder / "tokenizer")
            make = ShardMaker(examples, config, tokenizer, folder, found["row"], found.get("held"))
            copies = copies_among(_mixed(examples, config, sources), examples, config, config.workers or _cores())
            contents, made = _make_shards(make, sources, copies)
            if _holds_none_by_chance(contents, config.eval_fraction):
                contents, made = _hold_one(make, sources, copies, contents, found), made + contents.bytes
            contents = replace(contents, copies=len(copies))
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
    return open_rows(folder)


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
    make: ShardMaker, sources: Sequence[Source], copies: frozenset[int], contents: Contents, settings: dict
) -> Contents:
    """What the set holds when its document of the lowest digest is held out, wherever it stands."""
    for path in make.folder.glob("shard-*.json"):
        if Contents.of(json.loads(path.read_bytes())).lowest == contents.lowest:
            path.unlink()  # first: what is killed between the two does this again
    write_json(make.folder / "settings.json", settings | {"held": contents.lowest})
    return _make_shards(replace(make, held=contents.lowest), sources, copies)[0]


def _make_shards(make: ShardMaker, sources: Sequence[Source], copies: frozenset[int]) -> tuple[Contents, int]:
    """What the set holds without the records numbered in `copies`, and the bytes of text that were not done before."""
    config, folder = make.config, make.folder
    total = sum(source.size for source in sources)
    size = config.shard_megabytes * 1e6 or min(max(total / 256, 2e6), 32e6)
    # No more workers than shards; text of more than ten times its compressed size is not to be expected.
    workers = min(config.workers or _cores(), 1 + int(10 * total / size))
    shards: dict[int, Contents] = {}

    def missing() -> Iterator[tuple[int, list[Record]]]:
        records = (one for n, one in enumerate(_mixed(make.examples, config, sources)) if n not in copies)
        for index, chunk in enumerate(record_chunks(records, size)):
            if shard := finished_shard(folder, index):
                shards[index] = shard
            else:
                yield index, chunk

    make = replace(make, done=DoneTogether() if workers > 1 else DoneHere())
    made = in_processes(make, missing(), workers) if workers > 1 else ((i, make(i, chunk)) for i, chunk in missing())
    with bar("prepare", make.done):
        for index, shard in made:
            shards[index] = shard
    return total_contents([shards[index] for index in sorted(shards)]), make.done.bytes
