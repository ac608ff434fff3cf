"""Files and folders that are there whole or not at all, whenever the process is killed; but a folder in a bucket comes
object by object, and is whole when what was last written to it is there (buckets.send)."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import Timeout

from training.files.buckets import growing, in_bucket, send, sent_to
from training.files.errors import AGAIN, DataError, damaged
from training.files.processes import alive, system_lock


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write a file or folder to, which becomes `path` as the block ends,
    if it does not fail.

    A folder replaces a folder: the old one is out of the way for an instant, and a kill in it leaves no `path` until
    the next write puts the old one back. What killed processes left of `path` is removed. What is in a bucket is
    written on the disk and sent, as `sent_to` says.
    """
    if in_bucket(path):
        with sent_to(path) as temporary:
            yield temporary
        return
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{path.name}.{part}.tmp") for part in (os.getpid(), "old"))
    for left in _left_by_the_dead(path):
        _remove(left)
    _settle(path, temporary, old)
    try:
        yield temporary
        if not temporary.is_dir():
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        _name(error, path, temporary)
        raise
    finally:
        _settle(path, temporary, old)


@contextmanager
def resumable_write(path: Path, identity: str) -> Iterator[IO[bytes]]:
    """Gives a file to append to, which becomes `path` as the block ends, if it does not fail.

    What a killed process had written of the same `identity` is in the file, which is at its begin; what was not flushed
    may be missing from its end, or lie there in part; of a file in a bucket it lies on this machine. Raises DataError
    where another process is at work on it.
    """
    place = growing(path) if in_bucket(path) else path.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{path.name.lstrip('.')}.{identity}.partial")
    try:
        held = system_lock(partial).acquire()
    except Timeout:
        raise DataError(f"{path}: the same command is at work on it; wait for it, or write to another file") from None
    try:
        with held, open(partial, "a+b") as file:
            file.seek(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if in_bucket(path):
                send(partial, path)
                partial.unlink()
            else:
                os.replace(partial, path)
    except OSError as error:  # such as of a full disk, also as the file is closed
        _name(error, path, partial)
        raise


def _name(error: OSError, path: Path, hidden: Path) -> None:
    """The file that was asked for, in what is said of one that nobody knows."""
    if error.errno and error.filename in (None, str(hidden)):
        error.filename = str(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes a JSON file whole or not at all."""
    write_bytes(path, as_json(content))


def as_json(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def read_json(file: Path, remedy: str = AGAIN) -> dict[str, Any]:
    """The object in a JSON file. Raises DataError, which ends in what to do."""
    if not file.is_file():
        raise DataError(f"{file}: no such file; {remedy}")
    text = file.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(file, error, "not JSON", remedy) from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: not a JSON object; {remedy}")
    return content


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, none if it is missing; a line that a kill has cut is left out."""
    found = []
    # At line feeds alone: within JSON's strings splitlines would cut, too, such as at U+2028.
    for line in path.read_bytes().decode(errors="replace").split("\n") if path.exists() else []:
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def check_new(out: Path) -> None:
    """A folder that is to be written must be new, or empty. Raises DataError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists already; name another folder")


def check_out_file(out: Path, inputs: Iterable[str]) -> None:
    """A file that is to be written is neither a folder nor one of the inputs ("-" being none). Raises DataError."""
    if out.is_dir() or any(x != "-" and _same(out, x) for x in inputs):
        raise DataError(f"--out {out}: {'a folder' if out.is_dir() else 'the input'}; name a new file")


def _same(out: Path, name: str) -> bool:
    """Is it the file of this name?"""
    return str(out) == name if in_bucket(out) else out.exists() and Path(name).exists() and out.samefile(name)


def _settle(path: Path, temporary: Path, old: Path) -> None:
    """Removes `temporary`, and `old`, which becomes `path` instead where there is none."""
    _remove(temporary)
    if os.path.lexists(old):
        # By way of `temporary`, so that a kill leaves no half of a folder as `old`.
        os.replace(old, temporary if os.path.lexists(path) else path)
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _left_by_the_dead(path: Path) -> list[Path]:
    """The temporary names of processes that are no more."""
    name = re.compile(re.escape(f".{path.name}.") + r"(\d{1,9})\.tmp")
    matches = map(name.fullmatch, os.listdir(path.parent))
    return [path.with_name(match[0]) for match in matches if match and not alive(int(match[1]))]
