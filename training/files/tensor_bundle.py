"""TensorFlow's checkpoints (tensor bundles, format V2) without TensorFlow.

A bundle is name.index and name.data-00000-of-00001 (or more shards). The data are the tensors' bytes, one after the
other. The index is a sorted table of LevelDB's format (https://github.com/google/leveldb/blob/main/doc/table_format.md)
from "" to a BundleHeaderProto and from each tensor's name to its BundleEntryProto
(tensorflow/core/protobuf/tensor_bundle.proto): type, shape, shard, offset, size and CRC-32C.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from training.files.crc32c import crc32c, masked
from training.files.weights import Stored

_TYPES = {1: "float32", 2: "float64", 3: "int32", 9: "int64", 14: "bfloat16", 19: "float16"}  # of types.proto
_FLOAT = 1
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # of a block: its compression, 0 for none, and its checksum
_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # how a field is written


def open_bundle(index: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint by name, each read where it is used. Raises OSError, and ValueError and IndexError
    for what is no such file, or not all of it."""
    table = {key: _fields(value) for key, value in _read_table(index.read_bytes())}
    header, found = table.pop(b"", {}), dict[str, Stored]()
    if not header or _one(header, 2):
        raise ValueError("big-endian" if header else "no header")
    for key, entry in table.items():
        if key.startswith(b"\0"):  # a slice of a variable, which has an entry of its own
            continue
        shape = tuple(_one(_fields(size), 1) for size in _fields(_one(entry, 2, b""))[2])
        file = index.with_name(f"{index.stem}.data-{_one(entry, 3):05d}-of-{_one(header, 1):05d}")
        dtype = _TYPES.get(_one(entry, 1), f"type {_one(entry, 1)}")
        offset, size, crc = (_one(entry, number) for number in (4, 5, 6))
        tensor = _Tensor(file, dtype, shape, offset, size, crc, sliced=bool(entry[7]))
        found[key.decode()] = Stored(index, shape, dtype, tensor.read)
    return found


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes float32 arrays as prefix.index and prefix.data-00000-of-00001."""
    version = _field(3, _field(1, 1))
    entries, offset = {b"": _field(1, 1) + version}, 0
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        for key, array in sorted((name.encode(), array) for name, array in tensors.items()):
            data = np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8)
            file.write(data.data)
            shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
            crc = bytes([6 << 3 | _FIXED32]) + struct.pack("<I", masked(crc32c(data)))
            entries[key] = _field(1, _FLOAT) + _field(2, shape) + _field(4, offset) + _field(5, len(data)) + crc
            offset += len(data)
    Path(f"{prefix}.index").write_bytes(_table(entries))


@dataclass(frozen=True)
class _Tensor:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int
    sliced: bool

    def read(self) -> np.ndarray:
        if self.sliced:
            raise ValueError("a variable in slices; save the checkpoint with variables that are whole")
        data = np.fromfile(self.file, np.uint8, self.size, offset=self.offset)
        if masked(crc32c(data)) != self.crc:
            raise ValueError(f"{self.file.name} does not have the bytes that were written")
        return data.view(jnp.dtype(self.dtype)).reshape(self.shape)


def _read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, in order."""
    if len(content) < _FOOTER or not content.endswith(_MAGIC):
        raise ValueError("the end of a table is not there")
    (_, _, begin, size), _ = _varints(content, len(content) - _FOOTER, 4)
    for _, handle in _read_block(content, begin, size):
        (begin, size), _ = _varints(handle, 0, 2)
        yield from _read_block(content, begin, size)


def _read_block(content: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = begin + size
    checked, crc = content[begin : end + 1], content[end + 1 : end + _TRAILER]
    if struct.pack("<I", masked(crc32c(np.frombuffer(checked, np.uint8)))) != crc:
        raise ValueError("a block of the table does not have the bytes that were written")
    if checked[-1]:
        raise ValueError("a compressed table, as TensorFlow does not write it")
    block, place, key = checked[:-1], 0, b""
    end = size - 4 * (1 + int.from_bytes(block[-4:], "little"))  # after it come restarts, and their number
    while place < end:
        (shared, own, length), place = _varints(block, place, 3)
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : (place := place + own + length)]


def _table(entries: dict[bytes, bytes]) -> bytes:
    """Of entries in the order of their keys: a block of them all, one of no metadata, and one of the first's place."""
    content, handles = b"", list[bytes]()

    def add(block: bytes) -> None:
        nonlocal content
        handles.append(_varint(len(content)) + _varint(len(block)))
        crc = masked(crc32c(np.frombuffer(block + b"\0", np.uint8)))
        content += block + b"\0" + struct.pack("<I", crc)

    add(_block(entries))
    add(_block({}))
    add(_block({[*entries][-1]: handles[0]}))
    return content + (handles[1] + handles[2]).ljust(_FOOTER - len(_MAGIC), b"\0") + _MAGIC


def _block(entries: dict[bytes, bytes]) -> bytes:
    """Keys as a whole, each a place at which reading may begin."""
    content, restarts = b"", list[int]()
    for key, value in entries.items():
        restarts.append(len(content))
        content += _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value
    restarts = restarts or [0]
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer's message by number: integers and bytes, each as often as it comes."""
    found, place = defaultdict[int, list[Any]](list), 0
    while place < len(message):
        (tag,), place = _varints(message, place, 1)
        value: int | bytes
        if tag & 7 == _VARINT:
            (value,), place = _varints(message, place, 1)
        elif tag & 7 == _FIXED32:
            value, place = int.from_bytes(message[place : place + 4], "little"), place + 4
        elif tag & 7 == _BYTES:
            (size,), place = _varints(message, place, 1)
            value, place = message[place : place + size], place + size
        else:
            raise ValueError("a field of an unknown kind")
        found[tag >> 3].append(value)
    return found


def _one(fields: Mapping[int, list[Any]], number: int, absent: Any = 0) -> Any:
    return fields[number][-1] if fields.get(number) else absent


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varints(data: bytes, place: int, count: int) -> tuple[list[int], int]:
    """So many integers in pieces of 7 bits, the lowest first, and the place after them."""
    found = []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = data[place]
            value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
            if byte < 0x80:
                break
        found.append(value)
    return found, place


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
