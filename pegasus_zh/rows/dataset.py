"""The second of two stages: a prepared set -> batches of int32 arrays, the same on any number of hosts.

The position in the data is the step number alone: batch n of a run is a pure function of (set, seed, n), and process p
of P reads rows p*B/P .. (p+1)*B/P of it. So a run resumes on another number of hosts without replaying or losing a row.
"""

import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

import grain
import numpy as np

from pegasus_zh.rows.packing import decode_rows
from pegasus_zh.rows.prepared_set import Manifest, Split, checksum, read_manifest
from training.files.errors import DataError

Batch = dict[str, np.ndarray]
READING = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)  # batches; decoding one takes about a millisecond


class PackedRows:
    """The rows of one split of a prepared set, by random access."""

    def __init__(self, folder: Path, manifest: Manifest, split: Split):
        self.manifest, self._name = manifest, f"{folder} ({split})"
        files = manifest.files(split)
        _allow_open_files(len(files))
        self._records = grain.sources.ArrayRecordDataSource([f"{folder / file.name}[0:{file.rows}]" for file in files])

    def __len__(self) -> int:
        return len(self._records)

    def batch(self, indices: Iterable[int]) -> Batch:
        """The arrays of these rows, see decode_rows; an index past the last gives an empty row."""
        manifest, tokenizer = self.manifest, self.manifest.tokenizer
        try:
            records = [self._records[index] if index < len(self) else b"" for index in indices]
        except RuntimeError as error:  # ArrayRecord checks a hash of each record
            raise DataError(
                f"{self._name}: a row cannot be read ({error}); "
                "delete manifest.json and run scripts/prepare.py again, which replaces damaged shards"
            ) from error
        shape = (manifest.row_source, manifest.row_target)
        return decode_rows(records, manifest.dtype, *shape, tokenizer["pad_id"], tokenizer["start_id"])


def _allow_open_files(files: int) -> None:
    """Random access keeps every shard open; the usual soft limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (wanted := files + 512):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))


def open_rows(
    folder: Path | str, tokenizer_fingerprint: str | None = None, *, split: Split = "train", verify: bool = False
) -> PackedRows:
    """Opens a prepared set after looking that it is whole.

    Raises DataError for a missing or unfinished set, one of another tokenizer than the given, a split without rows, a
    missing or truncated shard and, with `verify`, which reads everything, a shard that is not to the bit as written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    found = manifest.tokenizer
    if tokenizer_fingerprint not in (None, found["fingerprint"]):
        raise DataError(
            f"{folder} was prepared with another tokenizer ({found['kind']}, {found['vocab_size']} ids, "
            f"{found['fingerprint'][:12]}): use {folder / 'tokenizer'}, or prepare the documents again with the new one"
        )
    if not (files := manifest.files(split)):
        raise DataError(f"{folder} has no rows for {split}: prepare with more documents, or another --eval-fraction")
    for file in files:
        path = folder / file.name
        size = path.stat().st_size if path.exists() else 0
        if size != file.size:
            raise DataError(f"{path} has {size} of {file.size} bytes: run scripts/prepare.py again, which replaces it")
        if verify and checksum(path) != file.sha256:
            raise DataError(f"{path} is damaged (by its checksum): delete it and run scripts/prepare.py again")
    return PackedRows(folder, manifest, split)


def train_batches(
    folder: Path | str,
    *,
    split: Split = "train",
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Endless batches from number `start_step` on, this process's share of each; every epoch is a new global shuffle.

    Arrays are int32 (batch_size / process_count, row length): source, source_segments, target (the labels),
    target_inputs and target_segments, see packing.decode_rows. Raises DataError as open_rows does, and ValueError for a
    batch size that does not divide among the processes.
    """
    rows = open_rows(folder, split=split)
    order = grain.MapDataset.range(len(rows)).shuffle(seed=seed % 2**32).repeat()
    return _batches(rows, order, batch_size, start_step, process_index, process_count)


def eval_batches(
    folder: Path | str,
    *,
    split: Split = "eval",
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every row once, in order, as train_batches gives them; the last batch is filled with empty rows."""
    rows = open_rows(folder, split=split)
    batches = -(-len(rows) // batch_size)
    order = grain.MapDataset.range(batches * batch_size)
    return _batches(rows, order, batch_size, 0, process_index, process_count)


def _batches(
    rows: PackedRows, order: grain.MapDataset, batch_size: int, start: int, process: int, processes: int
) -> Iterator[Batch]:
    if batch_size < 1 or batch_size % processes:
        raise ValueError(f"batch size {batch_size} does not divide among {processes} processes")
    # In batches of one process's size, number n * processes + p is process p's share of batch n.
    shares = order.batch(batch_size // processes)[start * processes + process :: processes].map(rows.batch)
    return iter(shares.to_iter_dataset(READING))
