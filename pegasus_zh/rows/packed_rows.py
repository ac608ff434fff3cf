"""The rows of a prepared set, opened: each split by random access. It loads no jax, so that workers start fast."""

import hashlib
import json
import resource
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from pegasus_zh.rows.makers import known_sides
from pegasus_zh.rows.mixture import MOST, lowest_terms
from pegasus_zh.rows.packing import decode_rows
from pegasus_zh.rows.prepared_set import Manifest, Split, checksum, read_manifest
from training.files.buckets import on_disk, path_of
from training.files.errors import DataError

Batch = dict[str, np.ndarray]


class PackedRows:
    """The rows of one split of a prepared set, or of several, one set after another, by random access."""

    def __init__(self, sets: Mapping[Path, Manifest], split: Split, weights: Sequence[int] = (1,)):
        """sets: folders of the same tokenizer and row. weights: one for each, of its share of what is trained on."""
        self.manifest = next(iter(sets.values()))
        self.weights = tuple(weights)
        self.sizes = [sum(file.rows for file in manifest.files(split)) for manifest in sets.values()]
        self._name, self._row = f"{', '.join(map(str, sets))} ({split})", known_sides(self.manifest.row)
        files = {on_disk(folder): manifest.files(split) for folder, manifest in sets.items()}
        rows = [f"{place / file.name}[0:{file.rows}]" for place, found in files.items() for file in found]
        self._records = ArrayRecordDataSource(rows)

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
    """A prepared set that is whole, or a mixture of such."""

    folder: Path  # of the first set, as the manifest
    manifest: Manifest
    train: PackedRows
    heldout: PackedRows | None  # the documents of --eval-fraction, if there are any
    fingerprint: str  # of the rows to train on and their order


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
    heldout = PackedRows({folder: manifest}, "eval") if manifest.files("eval") else None
    return PreparedRows(folder, manifest, PackedRows({folder: manifest}, "train"), heldout, manifest.fingerprint)


def open_mixture(
    folders: Sequence[Path | str], weights: Sequence[int] = (), tokenizer_fingerprint: str | None = None
) -> PreparedRows:
    """Opens several prepared sets as one, with their weights, all 1 unless given; what is held out are the documents
    held out of each.

    Raises DataError as open_rows does, for sets that differ in tokenizer or row, for a set named twice, and for weights
    that are not one whole number of 1 or more for each set.
    """
    weights = tuple(weights) or (1,) * len(folders)
    if len(weights) != len(folders) or min(weights) < 1 or sum(lowest_terms(weights)) > MOST:
        raise DataError(
            f"--weights {' '.join(map(str, weights))}: give one whole number of 1 or more for each of the "
            f"{len(folders)} sets of --prepared, together at most {MOST:,}"
        )
    first, *others = opened = [open_rows(folder, tokenizer_fingerprint) for folder in folders]
    if not others:
        return first
    for other in others:
        for what, one, two in (
            ("tokenizer", first.manifest.tokenizer["fingerprint"][:12], other.manifest.tokenizer["fingerprint"][:12]),
            ("row", _row_of(first), _row_of(other)),
        ):
            if one != two:
                raise DataError(
                    f"{other.folder} cannot be mixed with {first.folder}: its {what} is {two}, not {one}; prepare it "
                    "again with the same --tokenizer, --row-source and --row-target"
                )
    sets = {one.folder: one.manifest for one in opened}
    if len({one.fingerprint for one in opened}) < len(opened):  # by whatever path
        raise DataError("--prepared names a set twice: give it a larger weight in --weights")
    _allow_open_files(sum(len(manifest.contents.files) for manifest in sets.values()))
    weights = lowest_terms(weights)
    parts = [[one.fingerprint, weight] for one, weight in zip(opened, weights, strict=True)]
    return PreparedRows(
        first.folder,
        first.manifest,
        PackedRows(sets, "train", weights),
        PackedRows(sets, "eval") if any(one.heldout for one in opened) else None,
        hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
    )


def _row_of(rows: PreparedRows) -> str:
    return " + ".join(f"{positions} of {side}" for side, positions in rows.manifest.row.items())


def _allow_open_files(files: int) -> None:
    """Random access keeps every shard open; the usual soft limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (wanted := files + 512):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))
