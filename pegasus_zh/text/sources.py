"""Where documents lie: files, globs and TensorFlow Datasets, and the records of each, unparsed.

| source             | a document is                                                                               |
|--------------------|---------------------------------------------------------------------------------------------|
| `.txt`             | lines up to a blank line (or the end), joined by newlines                                   |
| `.jsonl`, `.json`  | the string at `field` of a JSON object (see pegasus_zh.text.records)                        |
| `.parquet`         | the string in column `field` of one row                                                     |
| `tfds:NAME:FIELD`  | `FIELD` of one example of the split "train" of an already prepared dataset `NAME[/CONFIG]`  |

Text and JSON files may be compressed (`.gz`, `.zst`), and are UTF-8.
"""

import functools
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from pegasus_zh.text.lines import ends_in, is_blank_line, opened
from pegasus_zh.text.records import JSON_SUFFIXES, MAX_TEXT_BLOCK, TEXT_SUFFIXES, Record, read_rows
from training.files.buckets import in_bucket, matching, on_disk, path_of, size_and_time
from training.files.datasets import open_dataset
from training.files.errors import DataError
from training.telling import tell_once


@dataclass(frozen=True)
class Source:
    """A file, or a prepared dataset by its `tfds:` name."""

    path: str
    size: int  # bytes
    modified: int  # nanoseconds since the epoch


class Files(NamedTuple):
    """What may be given to read from."""

    suffixes: tuple[str, ...]
    told: str
    datasets: bool  # tfds: too


DOCUMENT_FILES = Files(
    (*TEXT_SUFFIXES, *JSON_SUFFIXES, ".parquet"),
    "documents come as .txt, .jsonl, .json (all may be .gz or .zst) or .parquet",
    datasets=True,
)


def find_sources(data: Sequence[str], files: Files = DOCUMENT_FILES) -> list[Source]:
    """The files behind paths, globs and `tfds:` names, in the order given (a glob's matches sorted), each once.

    Raises DataError for a missing or empty file, a glob without a match, a folder and an unknown kind of file.
    """
    if not data:
        raise DataError("no documents given: pass --data with files, globs or tfds:NAME:FIELD")
    sources: dict[str, Source] = {}
    for name in data:
        if name.startswith("tfds:") and files.datasets:
            sources[name] = _dataset_source(name)
            continue
        if in_bucket(path_of(name, "--data", pattern=True)):
            paths = matching(name)
        else:
            paths = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not paths and glob.has_magic(name):
            raise DataError(f"{name}: no file matches this pattern (quote it, and check the folder)")
        for path in paths or [name]:
            sources.setdefault(path if in_bucket(path) else os.path.realpath(path), _file_source(path, files))
    return list(sources.values())


def _file_source(path: str, files: Files) -> Source:
    if path_of(path, "--data").is_dir():
        raise DataError(
            f"{path} is a folder: name its files with a pattern, such as '{os.path.join(path, '*.jsonl.gz')}'"
        )
    try:
        size, modified = size_and_time(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'no such file'} (check the path)") from error
    if not ends_in(path, files.suffixes):
        raise DataError(f"{path}: unknown kind of file; {files.told}")
    if size == 0:
        raise DataError(f"{path} is empty: remove it, or fetch it again")
    return Source(path, size, modified)


def read_records(source: Source, field: str = "text", wanted: Sequence[str] = ()) -> Iterator[Record]:
    """The documents of one source in order, unparsed. Raises DataError where the file itself cannot be read on.

    wanted: as read_rows has it, of tables.
    """
    if source.path.startswith("tfds:"):
        yield from _dataset_records(source.path)
    elif ends_in(source.path, ".parquet"):
        yield from _parquet_records(source.path, field)
    elif ends_in(source.path, TEXT_SUFFIXES):
        with opened(source.path) as lines:
            yield from _text_blocks(source.path, lines)
    else:
        yield from (row for row in read_rows(source.path, wanted) if not is_blank_line(row.data or b""))


def _text_blocks(path: str, lines: Iterator[bytes]) -> Iterator[Record]:
    block: list[bytes] = []
    number = size = 0
    for number, line in enumerate(lines, 1):
        if is_blank_line(line):
            if block:
                yield Record(path, number - len(block), b"\n".join(block))
                block, size = [], 0
            continue
        block.append(line.rstrip(b"\r\n"))
        size += len(line)
        if size > MAX_TEXT_BLOCK:
            start = number - len(block) + 1
            raise DataError(
                f"{path}, line {start}: more than {MAX_TEXT_BLOCK >> 20} MiB without a blank line; "
                "put one between documents, or use .jsonl"
            )
    if block:
        if len(block) == number > 100:
            tell_once(f"{path}: no blank line, so its {number:,} lines are one document; put one between documents")
        yield Record(path, number - len(block) + 1, b"\n".join(block))


def _parquet_records(path: str, field: str) -> Iterator[Record]:
    import pyarrow as pa  # half a second: only where it is used
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(on_disk(path_of(path, "--data"))) as file:
            if file.schema_arrow.names.count(field) > 1:
                raise DataError(f"{path}: two columns are named {field!r}; rename one")
            if field not in file.schema_arrow.names:
                raise DataError(
                    f"{path}: no column {field!r}; give --field one of: {', '.join(file.schema_arrow.names)}"
                )
            kind = file.schema_arrow.field(field).type
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not any(
                is_text(plain) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            ):
                raise DataError(f"{path}: column {field!r} holds {kind}, not strings; give another --field")
            batches = (
                batch.column(0).cast(pa.large_string()).cast(pa.large_binary())
                for batch in file.iter_batches(256, columns=[field])
            )
            for row, text in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1):
                yield Record(path, row, text)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}); fetch it again"
        ) from error


def _dataset(name: str) -> tuple[Any, Any, list[str]]:
    """The data source, without TensorFlow, the builder and the field of `tfds:NAME[/CONFIG]:FIELD` in
    $TFDS_DATA_DIR; of a field within fields their names, FIELD/FIELD."""
    dataset, colon, field = name.removeprefix("tfds:").rpartition(":")
    if not (dataset and colon and field):
        raise DataError(
            f"{name}: write tfds:NAME:FIELD or tfds:NAME/CONFIG:FIELD, such as tfds:wikipedia/20230601.zh:text"
        )
    source, builder = open_dataset(dataset, "train", name)
    kind, names = builder.info.features, field.split("/")
    for number, part in enumerate(names):
        if part not in (fields := _fields(kind)):
            raise DataError(f"{name}: no field {part!r}; it has: {', '.join(fields)}")
        kind = kind[part]
        if "Sequence" in type(kind).__name__:
            raise DataError(f"{name}: {part!r} holds a list; name a field with one text")
        if number == len(names) - 1 and (within := [f"{field}/{inner}" for inner in _fields(kind)]):
            raise DataError(f"{name}: {part!r} holds fields; name one of them: {', '.join(within)}")
    return source, builder, names


def _fields(kind: Any) -> list[str]:
    """The names of a feature's own, if it is a dictionary of features."""
    return list(kind.keys()) if hasattr(kind, "keys") else []


def _dataset_source(name: str) -> Source:
    _, builder, _ = _dataset(name)
    files = [os.stat(os.path.join(builder.data_dir, entry)) for entry in sorted(os.listdir(builder.data_dir))]
    return Source(name, sum(file.st_size for file in files), max(file.st_mtime_ns for file in files))


def _dataset_records(name: str) -> Iterator[Record]:
    source, _, names = _dataset(name)
    for start in range(0, len(source), 256):
        examples = source.__getitems__(range(start, min(start + 256, len(source))))
        for number, example in enumerate(examples, start + 1):
            text = functools.reduce(lambda found, field: found[field], names, example)
            yield Record(
                name, number, text.encode() if isinstance(text, str) else text if isinstance(text, bytes) else None
            )
