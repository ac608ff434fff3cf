"""The rows of a prepared set, opened: each split by random access. It loads no jax, so that workers start fast."""

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from pegasus_zh.rows.makers import known_sides
from pegasus_zh.rows.packing import decode_rows
from pegasus_zh.rows.prepared_set import Manifest, Split, checksum, read_manifest
from training.files.buckets import on_disk, path_of
from training.files.errors import DataError

Batch = dict[str, np.ndarray]


class PackedRows:
    """The rows of one split of a prepared set, by random access."""

    def __init__(self, folder: Path, manifest: Manifest, split: Split, place: Path):
        """place: where the files of the folder can be read."""
        self.manifest, self._name, self._row = manifest, f"{folder} ({split})", known_sides(manifest.row)
        files = [f"{place / file.name}[0:{file.rows}]" for file in manifest.files(split)]
        self._records = ArrayRecordDataSource(files)

    def __len__(self) -> int:
        return len(self._records)

    def batch(self, indices: Iterable[int]) -> Batch:
        """The arrays of these rows, see decode_rows; an index past the last gives an empty row."""
        tokenizer, dtype = self.manifest.tokenizer, self.manifest.dtype
        try:
            records = [self._records[index] if index < len(self) else b"" for index in indices]
        except RuntimeError as error:  # ArrayRecord checks a hash of each record
            raise DataError(
                f"{self._name}: a row cannot be read ({error}); "
                "delete manifest.json and run scripts/prepare.py again, which replaces damaged shards"
            ) from error
        return decode_rows(records, dtype, self._row, tokenizer["pad_id"], tokenizer["start_id"])


@dataclass(frozen=True)
class PreparedRows:
    """A prepared set that is whole."""

    folder: Path
    manifest: Manifest
    train: PackedRows
    heldout: PackedRows | None  # the documents of --eval-fraction, if there are any


def open_rows(folder: Path | str, tokenizer_fingerprint: str | None = None, *, verify: bool = False) -> PreparedRows:
    """Opens a prepared set after looking that it is whole.

    Raises DataError for a missing or unfinished set, one of another tokenizer than the given, a set without rows to
    train on, a missing or truncated shard and, with `verify`, which reads everything, a shard that is not to the bit as
    written.
    """
    folder = path_of(folder, "the prepared set")
    manifest = read_manifest(folder)
    found = manifest.tokenizer
    if tokenizer_fingerprint not in (None, found["fingerprint"]):
        raise DataError(
            f"{folder} was prepared with another tokenizer ({found['kind']}, {found['vocab_size']} ids, "
            f"{found['fingerprint'][:12]}): use {folder / 'tokenizer'}, or prepare the documents again with the new one"
        )
    if not manifest.files("train"):
        raise DataError(f"{folder} has no rows to train on: prepare with more documents, or another --eval-fraction")
    place = on_disk(folder)
    for file in manifest.contents.files:
        path = place / file.name
        size = path.stat().st_size if path.exists() else 0
        if size != file.size:
            raise DataError(f"{path} has {size} of {file.size} bytes: run scripts/prepare.py again, which replaces it")
        if verify and checksum(path) != file.sha256:
            raise DataError(f"{path} is damaged (by its checksum): delete it and run scripts/prepare.py again")
    _allow_open_files(len(manifest.contents.files))
    heldout = PackedRows(folder, manifest, "eval", place) if manifest.files("eval") else None
    return PreparedRows(folder, manifest, PackedRows(folder, manifest, "train", place), heldout)


def _allow_open_files(files: int) -> None:
    """Random access keeps every shard open; the usual soft limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (wanted := files + 512):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))
