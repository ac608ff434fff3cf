"""The first of two stages: raw documents -> packed rows on disk, on all cores of a machine, restartable.

    document -> sentences -> groups -> (source, target) by pseudo-summary -> ids -> rows -> ArrayRecord shards

A killed run goes on where it was, shard by shard. The bytes of a prepared set (see prepared_set) depend on documents,
settings and tokenizer alone, never on the number of workers.
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from pegasus_zh.rows.packing import choose_row_shape, encode_row, pack
from pegasus_zh.rows.prepared_set import (
    FORMAT,
    TOKENIZER_FIELDS,
    Contents,
    Manifest,
    ShardFile,
    checksum,
    finished_set,
    finished_shard,
    id_dtype,
    journal,
    read_settings,
    total_contents,
)
from pegasus_zh.rows.pseudo_summary import SELECTORS, Unit, pseudo_summary
from pegasus_zh.rows.span_corruption import corrupt
from pegasus_zh.text.documents import (
    OnBadRecord,
    Record,
    Source,
    find_sources,
    mixed_records,
    parse_records,
    record_chunks,
    stamps,
)
from pegasus_zh.text.sentences import group_sentences, split_sentences
from pegasus_zh.text.tokenizers import Tokenizer, load_tokenizer
from training.files.atomic import atomic_write, write_json
from training.files.errors import DataError
from training.files.locks import locked
from training.ranges import check_ranges

SAMPLE_BYTES = 1_000_000  # of documents by which the shape of a row is chosen
BLOCK = 256  # documents that go through the stages together
SPANS = "span-corruption"
TEXT = "text"  # no pairs: the text in pieces, for masked language models
KEPT = "then run the same command again; finished shards are kept"
Pair = tuple[np.ndarray, np.ndarray]  # ids of source and target


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how. The defaults are T5-PEGASUS's."""

    data: tuple[str, ...] = ()  # files, quoted globs and tfds:NAME:FIELD; .txt, .jsonl (both also .gz) and .parquet
    field: str = "text"  # the JSON field or Parquet column with a document's text
    selector: str = "lcs"  # rule of the pseudo-summary: lcs, random, lead, ind-orig, ind-uniq, seq-orig or seq-uniq; or span-corruption, as T5; or text: no pairs, the text in pieces
    unit: Unit = "character"  # what the selector compares
    faithful: bool = False  # cut sentences exactly as T5-PEGASUS did: at line ends and "。" alone
    ratio: float = 0.25  # sentences become target until it has more than this times the source's characters
    max_source: int = 384  # ids of a source, special tokens included
    max_target: int = 128  # ids of a target, start and end included
    row_source: int = 0  # encoder positions of a packed row; 0: chosen by a sample of the documents
    row_target: int = 0  # decoder positions of a packed row; 0: chosen by a sample of the documents
    shard_megabytes: float = 0  # raw input of a shard, held in memory and lost by a kill; 0: 1/256 of all, 2 to 32
    eval_fraction: float = 0.0  # documents held out for evaluation, by a hash of their text
    workers: int = 0  # processes; 0: one a core, 1: none beside this one
    on_bad_record: OnBadRecord = "stop"  # skip: leave bad documents out and count them by reason
    selector_seed: int = 0  # of random and span-corruption

    def __post_init__(self):
        check_ranges(
            self,
            ratio=0,
            max_source=(4, 1 << 15),
            max_target=(4, 1 << 15),
            row_source=(0, 1 << 16),
            row_target=(0, 1 << 16),
            shard_megabytes=(0, 4096),
            eval_fraction=(0, 1),
            workers=(0, 1024),
            selector_seed=(0, 1 << 32),
        )
        if self.selector not in (*SELECTORS, SPANS, TEXT):
            raise DataError(f"selector is {self.selector!r}: it must be one of {', '.join([*SELECTORS, SPANS, TEXT])}")
        if 0 < self.row_source < self.max_source or 0 < self.row_target < self.max_target:
            raise DataError(
                f"a row must hold the longest pair, so --row-source {self.row_source} may not be below --max-source "
                f"{self.max_source}, nor --row-target {self.row_target} below --max-target {self.max_target}: raise the "
                "one or lower the other (0: chosen by the documents)"
            )


def document_pairs(texts: Sequence[str], config: PrepareConfig, tokenizer: Tokenizer) -> list[list[Pair]]:
    """For each text the framed ids of (source, target) of its groups of sentences; none below three sentences.

    A group has 1.5 characters for each id that fits (T5-PEGASUS's 768 for 384 + 128). Stage by stage over many texts:
    each stage then finds its tables in the processor's cache, a fifth faster than text by text.
    """
    if config.selector == TEXT:
        return [_pieces(text, config, tokenizer) for text in texts]
    dtype, most = id_dtype(tokenizer.vocab_size), 3 * (config.max_source + config.max_target) // 2
    split = [split_sentences(text, faithful=config.faithful) for text in texts]
    groups = [(n, group) for n, text in enumerate(split) for group in group_sentences(text, max_characters=most)]
    if config.selector == SPANS:
        return _span_pairs(len(texts), groups, config, tokenizer)
    rule = {"selector": config.selector, "ratio": config.ratio, "unit": config.unit, "seed": config.selector_seed}
    chosen = [(n, group, pseudo_summary(group, **rule)) for n, group in groups]
    sides = [(n, *("".join([group[i] for i in side]) for side in pair)) for n, group, pair in chosen]
    pairs: list[list[Pair]] = [[] for _ in texts]
    for n, *pair in sides:
        source, target = map(tokenizer.encode, pair)
        if source and target:  # text of nothing but control characters gives no ids
            source = tokenizer.frame_source(source, config.max_source)
            target = tokenizer.frame_target(target, config.max_target)
            pairs[n].append((np.array(source, dtype), np.array(target, dtype)))
    return pairs


def _pieces(text: str, config: PrepareConfig, tokenizer: Tokenizer) -> list[Pair]:
    """The text's ids in pieces as long as a source; a target is the end token alone, as a record has one."""
    dtype, ids, room = id_dtype(tokenizer.vocab_size), tokenizer.encode(text), config.max_source - 2
    target = np.array(tokenizer.frame_target([], config.max_target), dtype)
    pieces = (ids[start : start + room] for start in range(0, len(ids), room))
    return [(np.array(tokenizer.frame_source(piece, config.max_source), dtype), target) for piece in pieces]


def _span_pairs(
    texts: int, groups: Sequence[tuple[int, list[str]]], config: PrepareConfig, tokenizer: Tokenizer
) -> list[list[Pair]]:
    dtype, pairs = id_dtype(tokenizer.vocab_size), [[] for _ in range(texts)]
    # Of so many ids source and target, sentinels included, are not cut.
    longest = int(min((config.max_source - 2) / 0.9, (config.max_target - 3) / 0.2))
    for n, group in groups:
        text = "".join(group)
        ids = tokenizer.encode(text)[:longest]
        source, target = corrupt(ids, np.random.default_rng([config.selector_seed, zlib.crc32(text.encode())]))
        if target:
            source = tokenizer.frame_source(source, config.max_source)
            pairs[n].append(
                (np.array(source, dtype), np.array(tokenizer.frame_target(target, config.max_target), dtype))
            )
    return pairs


def lengths_of(pairs: Sequence[Pair]) -> np.ndarray:
    """(pairs, 2): ids of source and target."""
    return np.array([(len(source), len(target)) for source, target in pairs], np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class ShardMaker:
    """Makes one shard after another; `config` has its row's shape."""

    config: PrepareConfig
    tokenizer: Tokenizer
    folder: Path

    def __call__(self, index: int, records: Sequence[Record]) -> Contents:
        """Writes the shard's files and then its journal. Raises DataError for a bad document or a full disk."""
        config, skipped = self.config, Counter()
        counts = Counter(documents=0, without_pairs=0, bytes=0)
        pairs: dict[str, list[Pair]] = {"train": [], "eval": []}
        texts = parse_records(records, config.field, config.on_bad_record, skipped)
        while block := list(islice(texts, BLOCK)):
            for text, found in zip(block, document_pairs(block, config, self.tokenizer), strict=True):
                content = text.encode()
                digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
                pairs["eval" if digest < config.eval_fraction * 2**64 else "train"] += found
                counts.update(documents=1, without_pairs=not found, bytes=len(content))
        try:
            files = [self._write(split, index, pairs[split]) for split in pairs if pairs[split]]
            shard = Contents(files=files, skipped=dict(sorted(skipped.items())), **counts)
            write_json(journal(self.folder, index), asdict(shard))
        except (OSError, RuntimeError) as error:  # ArrayRecord's is a RuntimeError
            raise DataError(f"{self.folder}: cannot write shard {index} ({error}); make room, {KEPT}") from error
        return shard

    def _write(self, split: str, index: int, pairs: list[Pair]) -> ShardFile:
        lengths, dtype = lengths_of(pairs), id_dtype(self.tokenizer.vocab_size)
        rows = pack(lengths, self.config.row_source, self.config.row_target)
        path = self.folder / f"{split}-{index:05d}.array_record"
        with atomic_write(path) as temporary:
            # Ids hardly compress (zstd: 16%), and uncompressed ones are read in half the time.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            for row in rows:
                writer.write(encode_row([pairs[i] for i in row], dtype))
            writer.close()
            size, sha256 = temporary.stat().st_size, checksum(temporary)
        return ShardFile(split, path.name, len(rows), len(pairs), *lengths.sum(0).tolist(), size, sha256)


def prepare(config: PrepareConfig, tokenizer: Tokenizer, folder: Path | str) -> Manifest:
    """Prepares `config.data` into `folder`, or goes on with an earlier run's; returns at once if all is done.

    Another run into the same folder is waited for. With several workers, the script that calls this needs the line
    `if __name__ == "__main__":`, as with any process pool, best with its imports below: workers import what is above.
    Raises DataError for documents that cannot be read, or give no pair at all; for a folder whose set was made with
    other settings, tokenizer or files; for a full disk; and for a killed worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports its parent's script
        sys.exit('the script that calls prepare needs the line `if __name__ == "__main__":` before it')
    folder, sources = Path(folder), find_sources(config.data)
    if config.selector == SPANS and tokenizer.kind != "pegasus":
        raise DataError("span-corruption marks spans by [unused1] to [unused99]: use a vocab.txt, not sentencepiece")
    settings = settings_of(config, tokenizer, sources)
    with locked(folder, wait=True):
        try:
            if not (found := read_settings(folder, settings)):
                found = settings | {"row": _choose_row(config, tokenizer, sources)}
                write_json(folder / "settings.json", found)
            if manifest := finished_set(folder):
                return manifest
            started = time.perf_counter()
            tokenizer.save(folder / "tokenizer")
            row_source, row_target = found["row"]
            config = replace(config, row_source=row_source, row_target=row_target)
            contents, made = _make_shards(config, tokenizer, folder, sources)
            if not contents.files:
                raise DataError(
                    f"{', '.join(config.data)}: no pair from {contents.documents} documents "
                    f"({sum(contents.skipped.values())} more skipped); "
                    + ("each needs text" if config.selector == TEXT else "each needs three sentences")
                    + ", and --field its name"
                )
            identity = {name: getattr(tokenizer, name) for name in TOKENIZER_FIELDS}
            manifest = Manifest(FORMAT, settings, identity, row_source, row_target, contents)
            write_json(folder / "manifest.json", asdict(manifest))
        except OSError as error:
            raise DataError(f"{folder}: cannot write ({error}); make room, {KEPT}") from error
    print(f"{manifest.summary()}; {made / 1e6 / (time.perf_counter() - started):.2f} MB/s", flush=True)
    return manifest


def settings_of(config: PrepareConfig, tokenizer: Tokenizer, sources: Sequence[Source]) -> dict:
    """All that decides the bytes of a prepared set."""
    settings = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, **asdict(config)}
    for name in ("data", "workers", "on_bad_record"):  # a run stopped by a bad document may go on without it
        del settings[name]
    return settings | {"sources": stamps(sources)}


def _choose_row(config: PrepareConfig, tokenizer: Tokenizer, sources: Sequence[Source]) -> tuple[int, int]:
    """The row's shape, by a sample of the documents where it is not given."""
    if config.row_source and config.row_target:
        return config.row_source, config.row_target
    records = next(record_chunks(mixed_records(sources, config.field), SAMPLE_BYTES), ())
    texts = [text[:SAMPLE_BYTES] for text in parse_records(records, config.field, "skip", Counter())]
    sample = [*chain.from_iterable(document_pairs(texts, config, tokenizer))]
    lengths = lengths_of(sample) if sample else np.array([[config.max_source, config.max_target - 1]])
    return choose_row_shape(lengths, config.max_source, config.max_target, config.row_source, config.row_target)


def _make_shards(
    config: PrepareConfig, tokenizer: Tokenizer, folder: Path, sources: Sequence[Source]
) -> tuple[Contents, int]:
    """What the set holds, and the bytes of text that were not done before."""
    total = sum(source.size for source in sources)
    size = config.shard_megabytes * 1e6 or min(max(total / 256, 2e6), 32e6)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # No more workers than shards; text of more than ten times its compressed size is not to be expected.
    workers = min(config.workers or cores, 1 + int(10 * total / size))
    shards: dict[int, Contents] = {}

    def missing() -> Iterator[tuple[int, list[Record]]]:
        for index, chunk in enumerate(record_chunks(mixed_records(sources, config.field), size)):
            if shard := finished_shard(folder, index):
                shards[index] = shard
            else:
                yield index, chunk

    if workers == 1:
        make = ShardMaker(config, tokenizer, folder)
        made = ((index, make(index, chunk)) for index, chunk in missing())
    else:
        made = _in_processes(config, folder, missing(), workers)
    done = 0
    with tqdm(desc="prepare", unit="B", unit_scale=True, disable=None) as progress:
        for index, shard in made:
            shards[index] = shard
            done += shard.bytes
            progress.update(shard.bytes)
    return total_contents([shards[index] for index in sorted(shards)]), done


def _in_processes(
    config: PrepareConfig, folder: Path, chunks: Iterator[tuple[int, list[Record]]], workers: int
) -> Iterator[tuple[int, Contents]]:
    """Shards as they get done; one chunk more than workers is held. Spawned, since the threads of jax forbid a fork."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(config, folder))
    running = {}
    try:
        for index, chunk in chunks:
            if len(running) > workers:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
            running[pool.submit(_make_in_worker, index, chunk)] = index
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"{folder}: a worker was killed (out of memory?) or could not start; give fewer --workers, {KEPT}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_make: Callable[[int, Sequence[Record]], Contents]  # of this process, if it is a worker


def _start_worker(config: PrepareConfig, folder: Path) -> None:
    global _make
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it, once

    def die_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    _make = ShardMaker(config, load_tokenizer(folder / "tokenizer"), folder)


def _make_in_worker(index: int, records: Sequence[Record]) -> Contents:
    return _make(index, records)
