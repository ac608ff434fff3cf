"""A prepared set on disk: a folder of packed rows that `prepare` writes and `packed_rows` reads.

    settings.json             of what the set is made; written first
    tokenizer/                vocab.txt or spiece.model
    train-00003.array_record  rows (see packing.encode_row), and eval-00003.array_record where documents are held out
    shard-00003.json          the journal of a finished shard, with the checksums of its files
    manifest.json             written last: without it the set is unfinished

Every file is written whole (training/files/atomic.py), so that none is ever half-written.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pegasus_zh.rows.packing import padding
from pegasus_zh.text.losses import Losses
from pegasus_zh.text.sources import Source
from pegasus_zh.text.stamps import changes
from training.files.buckets import on_disk, path_of, size_and_time
from training.files.errors import DataError

FORMAT = 2  # of the files; a set of another format is refused
TOKENIZER_FIELDS = ("kind", "fingerprint", "vocab_size", "pad_id", "start_id", "eos_id")
Split = Literal["train", "eval"]
SPLITS = get_args(Split)
# Of settings that sets of earlier versions do not name.
_EARLIER = {"duplicates": "keep", "duplicate_threshold": None, "kept": 0.0, "characters": 1.5}
_NOT_AS_WRITTEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)  # what reading a damaged JSON file raises


@dataclass(frozen=True)
class ShardFile:
    """One ArrayRecord file."""

    split: Split
    name: str
    rows: int
    examples: int
    tokens: dict[str, int]  # ids of each side
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Contents:
    """Of one shard, as its journal, or of a whole set."""

    files: list[ShardFile]
    documents: int  # with a text
    without_examples: int  # of these, how many were too short for one
    bytes: int  # of text in UTF-8
    skipped: dict[str, int]  # bad documents by reason
    losses: Losses = field(default_factory=Losses)  # of tokenizing; in sets of earlier versions none are known
    copies: int = 0  # documents left out as copies of others; of a whole set
    lowest: int | None = None  # digest of a document with examples: the next to be held out

    @staticmethod
    def of(fields: dict) -> "Contents":
        """From the fields that `asdict` gave."""
        losses = Losses(**fields.get("losses", {}))
        return Contents(**fields | {"files": [ShardFile(**file) for file in fields["files"]], "losses": losses})


def total_contents(shards: Sequence[Contents], copies: int) -> Contents:
    """Of a whole set, with the number of documents left out of it."""
    skipped = sum((Counter(shard.skipped) for shard in shards), Counter())
    return Contents(
        files=[file for shard in shards for file in shard.files],
        documents=sum(shard.documents for shard in shards),
        without_examples=sum(shard.without_examples for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        skipped=dict(sorted(skipped.items())),
        losses=sum((shard.losses for shard in shards), Losses()),
        copies=copies,
        lowest=min((shard.lowest for shard in shards if shard.lowest is not None), default=None),
    )


@dataclass(frozen=True)
class Manifest:
    """What a prepared set is."""

    format: int
    settings: dict  # see prepare.settings_of, and `sources`, as stamps gives them
    tokenizer: dict  # the TOKENIZER_FIELDS
    row: dict[str, int]  # positions of each side, in the order of the records
    contents: Contents
    padding: dict[str, dict[str, float]] = field(init=False)  # split -> side -> share of the positions

    def __post_init__(self):
        object.__setattr__(self, "padding", {split: self._padding(split) for split in SPLITS if self.files(split)})

    def _padding(self, split: str) -> dict[str, float]:
        files = self.files(split)
        tokens = np.array([[file.tokens[side] for side in self.row] for file in files])
        share = padding(tokens, sum(file.rows for file in files), [*self.row.values()])
        return dict(zip((*self.row, "all"), share, strict=True))

    def files(self, split: str) -> list[ShardFile]:
        """The files of a split, in order."""
        return [file for file in self.contents.files if file.split == split]

    @property
    def fingerprint(self) -> str:
        """Of the training rows and their order."""
        return hashlib.sha256("".join(file.sha256 for file in self.files("train")).encode()).hexdigest()

    @property
    def shape(self) -> str:
        """Of a row, in words: 512 + 160."""
        return " + ".join(map(str, self.row.values()))

    @property
    def dtype(self) -> str:
        """Of the ids on disk."""
        return id_dtype(self.tokenizer["vocab_size"])

    def summary(self) -> str:
        """One line of counts and padding."""
        contents, several = self.contents, len(self.row) > 1
        examples, rows = (sum(getattr(file, name) for file in contents.files) for name in ("examples", "rows"))
        held = f", {sum(file.examples for file in self.files('eval'))} of them held out,"
        if not self.files("eval"):
            asked = self.settings["eval_fraction"]
            held = ", none of them held out (a larger --eval-fraction would)," if asked else ""
        shares = self.padding.get("train") or self.padding["eval"]
        sides = ", ".join(f"{side} {shares[side]:.1%}" for side in self.row)
        left_out = f"{contents.copies:,} left out as copies of others, " if contents.copies else ""
        return (
            f"{contents.documents} documents ({contents.without_examples} too short), {left_out}"
            f"{sum(contents.skipped.values())} bad ones skipped; "
            f"{examples} {'pairs' if several else 'pieces'}{held} in {rows} rows of {self.shape}; "
            f"padding {shares['all']:.1%}{f' ({sides})' * several}; {contents.bytes / 1e6:.1f} MB of text; "
            f"{contents.losses.line(targets=several)}"
        )


def id_dtype(vocab_size: int) -> str:
    """The smallest of two sizes, little-endian, that holds the ids."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of a prepared set. Raises DataError where there is none, or one of another format."""
    path = path_of(folder, "the prepared set") / "manifest.json"
    if not path.exists():
        state = "an unfinished set" if (path.parent / "settings.json").exists() else "no prepared set"
        raise DataError(f"{folder} holds {state}: run scripts/prepare.py into it")
    try:
        fields = json.loads(path.read_bytes())
        found = fields["format"]
        if found == FORMAT:
            del fields["padding"]
            return Manifest(**fields | {"contents": Contents.of(fields["contents"])})
    except _NOT_AS_WRITTEN as error:
        raise DataError(
            f"{path} is damaged ({error}): delete it and prepare again; finished shards are kept"
        ) from error
    raise _other_format({path.parent: found})


def check_formats(folders: Sequence[Path]) -> None:
    """Of sets that one command prepares: raises DataError, which names all that are of another format."""
    found = {}
    for folder in folders:
        with suppress(*_NOT_AS_WRITTEN):  # no set, or a damaged one, which preparing tells
            found[folder] = json.loads((folder / "settings.json").read_bytes())["format"]
    if other := {folder: number for folder, number in found.items() if number != FORMAT}:
        raise _other_format(other)


def _other_format(found: Mapping[Path, int]) -> DataError:
    several, formats = len(found) > 1, " and ".join(map(str, sorted({*found.values()})))
    return DataError(
        f"{', '.join(map(str, found))} {'hold sets' if several else 'holds a set'} of format {formats}, and this "
        f"version reads format {FORMAT}: delete {'those folders' if several else 'that folder'} and run the same "
        "command again, or give another"
    )


def finished_set(folder: Path) -> Manifest | None:
    """The manifest, if the set is finished and its files have their sizes."""
    try:
        manifest = read_manifest(folder)
        complete = all(size_and_time(folder / file.name)[0] == file.size for file in manifest.contents.files)
    except (DataError, OSError):
        return None
    return manifest if complete else None


def finished_shard(folder: Path, index: int) -> Contents | None:
    """The journal of a shard, if its files are there, to the bit."""
    try:
        contents = Contents.of(json.loads(journal(folder, index).read_bytes()))
        intact = all(checksum(folder / file.name) == file.sha256 for file in contents.files)
    except _NOT_AS_WRITTEN:
        return None
    return contents if intact else None


def journal(folder: Path, index: int) -> Path:
    """Where a shard's journal lies."""
    return folder / f"shard-{index:05d}.json"


def checksum(path: Path) -> str:
    """sha256 of a file, which is on the disk afterwards, whatever becomes of the machine."""
    with open(on_disk(path), "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_settings(folder: Path, wanted: dict, sources: Sequence[Source]) -> dict | None:
    """settings.json, if there is one. Raises DataError, naming what differs, where it is not as wanted or was of other
    sources."""
    path = folder / "settings.json"
    if not path.exists():
        return None
    try:
        found = _EARLIER | json.loads(path.read_bytes())
        known = (made := found["format"]) == FORMAT
        changed = {name: found[name] for name in wanted if known and found[name] != wanted[name]}
        if known and not (found["row"].items() and all(len(stamp) >= 3 for stamp in found["sources"])):
            raise ValueError("no shape of a row, or no sources")
    except _NOT_AS_WRITTEN as error:
        raise DataError(f"{path} is damaged ({error}): delete the folder, or give another") from error
    if not known:
        raise _other_format({folder: made})
    differences = [f"{name} {str(value)[:20]!r} (here {str(wanted[name])[:20]!r})" for name, value in changed.items()]
    if other := changes(found["sources"], sources):
        differences.insert(0, f"other documents ({other})")
    if differences:
        raise DataError(
            f"{folder} holds a set made with {', '.join(differences)}: give another --folder, or delete {folder}"
        )
    return found
