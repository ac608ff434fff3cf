"""Files and folders in buckets, gs://BUCKET/NAME: the one place that knows how a store differs from a disk.

A path there is one of etils.epath, which joins, lists, reads and writes as pathlib's do. What a library reads or writes
on disks alone is fetched or sent whole. A store has no folders and renames nothing: an object appears at one instant,
as its last byte has come, and may be written on the condition that it is of a certain generation
(https://docs.cloud.google.com/storage/docs/request-preconditions).
"""

import base64
import mimetypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from training.files.errors import AGAIN, DataError
from training.files.processes import one_by_one
from training.telling import tell

_ODD = "*?[]#"
CACHE = "PEGASUS_ZH_CACHE"  # the variable that names the folder for what was fetched, and for what is to be sent
_SCHEME = re.compile(r"(\w[\w+.-]*)://?")  # one slash is left of two where it was a Path


def path_of(given: Path | str, what: str, *, pattern: bool = False) -> Path:
    """`given` as a path, on a disk or in a bucket, where it does all of pathlib.Path that this project asks for.

    Raises DataError for an empty one, which would be the folder one is in, for no path, for an address that cannot be
    read or written from here, and for a name in a bucket that is a `pattern`, where none is asked for, or has a # or ?:
    fsspec removes all that a name matches, and Orbax takes one for a URL.
    """
    if not isinstance(given, (str, os.PathLike)) or given == "":
        raise DataError(f"{what} is {given!r:.40}: give a path")
    scheme = _SCHEME.match(os.fspath(given))
    if not scheme:
        return Path(given)
    address = f"{scheme[1]}://{os.fspath(given)[scheme.end() :]}"
    if scheme[1] != "gs":
        raise DataError(f"{what} is {address}: a path on a disk or gs://BUCKET/NAME is read; copy it to one of these")
    if not find_spec("gcsfs"):
        raise DataError(f"{what} is {address}: buckets need the extra gcs: pip install 'pegasus-zh[gcs]'")
    if not address.removeprefix("gs://").strip("/"):
        raise DataError(f"{what} is {address}: name the bucket too, gs://BUCKET/NAME")
    if not pattern and (odd := next((one for one in address if one in _ODD), "")):
        raise DataError(f"{what} is {address}: give a name without {odd}, by which libraries would find another")
    from etils import epath

    _store()
    return cast(Path, epath.Path(address))


def disk_path(given: Path | str, what: str) -> Path:
    """The same on a disk, of what is not read or written elsewhere. Raises DataError for a bucket, too."""
    path = path_of(given, what)
    if in_bucket(path):
        raise DataError(f"{what} is {path}: on a disk alone here; give a folder or file of this machine")
    return path


def absolute(path: Path) -> Path:
    """With the folder that one is in; what is in a bucket is so already."""
    return path if in_bucket(path) else path.absolute()


def in_bucket(path: Path | str) -> bool:
    """Is it an object, or what a name of objects begins with?"""
    return os.fspath(path).startswith("gs://")


def on_disk(path: Path) -> Path:
    """The file or folder itself, or what of it was fetched from its bucket: objects are fetched once a generation.

    They lie in fetched/ of $PEGASUS_ZH_CACHE, by default ~/.cache/pegasus-zh, under their names; of several processes
    that ask for the same at once, one fetches it and the others wait. Raises DataError where nothing is there, and for
    an object that comes otherwise than its checksum says.
    """
    if not in_bucket(path):
        return path
    place, lock = cached(path), _here("locks", path)
    waiting = f"{path}: waiting for another process, which fetches it"
    with one_by_one(lock.with_name(f"{lock.name}.lock"), waiting), ThreadPoolExecutor(_AT_ONCE) as pool:
        found = _objects(path)
        if not found:
            raise DataError(f"{path}: nothing there; check the name")
        fetched = [pool.submit(_fetch, about, place / name if name else place) for name, about in found.items()]
        for one in fetched:
            one.result()
        if place.is_dir():  # what is there no more
            for file in [file for file in place.rglob("*") if file.is_file() and not file.name.endswith(_MARK)]:
                if file.relative_to(place).as_posix() not in found:
                    file.unlink()
    return place


def size_and_time(path: Path | str) -> tuple[int, int]:
    """Bytes of a file, and when it was written, in nanoseconds since the epoch. Raises FileNotFoundError."""
    if not in_bucket(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    about = _store().info(os.fspath(path))
    if about["type"] != "file":
        raise FileNotFoundError(f"{path}: no such object")
    return int(about["size"]), int(about["mtime"].timestamp() * 1e9)


def read_begins(folder: Path) -> None:
    """Reads a byte of every file of a folder, on a disk or in a bucket. Raises what its store or disk does where one
    cannot be read."""
    if in_bucket(folder):
        for about in _objects(folder).values():
            if about["size"]:
                _store().cat_file(about["name"], start=0, end=1)
    else:
        for file in folder.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    opened.read(1)


def matching(pattern: str) -> list[str]:
    """The objects of a bucket whose names match gs://BUCKET/PATTERN, in order."""
    return sorted(f"gs://{name}" for name in _store().glob(pattern))


@contextmanager
def sent_to(path: Path) -> Iterator[Path]:
    """Gives a name on a disk to write a file or folder to, which becomes `path` as the block ends, if it does not fail.

    A file is replaced at one instant. A folder's files are sent in the order in which they were last written, so what
    tells of the others had better be written last: it is removed first, with those that the folder has no more, and
    while it is missing the folder is not whole.
    """
    with tempfile.TemporaryDirectory(prefix="pegasus-zh-") as folder:
        written = Path(folder) / path.name
        yield written
        send(written, path)


def send(written: Path, path: Path) -> None:
    """Copies a file or folder of a disk into a bucket, as `sent_to` says."""
    if not written.is_dir():
        _put(written, path)
        return
    files = sorted((file for file in written.rglob("*") if file.is_file()), key=lambda file: file.stat().st_mtime_ns)
    names = [file.relative_to(written).as_posix() for file in files]
    for name in _objects(path):
        if name and name not in names[:-1]:
            _store().rm_file(f"{path}/{name}")
    for file, name in zip(files, names, strict=True):
        _put(file, path / name)


def _put(file: Path, path: Path) -> None:
    """Sends a file, which may grow meanwhile; a large one in parts.

    gcsfs puts a small one between lines of text. There a carriage return at its end is taken for a line's, and a line
    like those for one of them: bytes are lost, and every try fails at the checksum.
    """
    if file.stat().st_size > _SMALL:
        _store().put_file(os.fspath(file), os.fspath(path), chunksize=_CHUNK)
        return
    content, kind = file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if not content.endswith(b"\r") and b"--==0==" not in content:
        _store().pipe_file(os.fspath(path), content, content_type=kind)
        return
    about = _post(path, content)
    if about.get("crc32c") not in (None, _crc32c([content])):
        raise OSError(f"{path}: came to its bucket otherwise than it was sent; {AGAIN}")


def _post(path: Path, content: bytes, **more: Any) -> dict[str, Any]:
    """Writes an object by one request; what is known of it then."""
    store, (bucket, name) = _store(), _named(path)
    place = f"{store.base.replace('/storage/', '/upload/storage/')}b/{bucket}/o"
    return store.call("POST", place, data=content, json_out=True, uploadType="media", name=name, **more)


def loadable_name(folder: Path) -> str:
    """What libraries that read disks alone load a folder by; of one in a bucket it is told how to fetch it first."""
    if not in_bucket(folder):
        return str(folder)
    tell(f"gcloud storage cp -r {folder} .")
    return folder.name


def move(folder: Path, to: Path) -> None:
    """Gives a folder another name, instead of what has it now; in a bucket, object by object."""
    if in_bucket(folder):
        store = _store()
        if _objects(to):
            store.rm(os.fspath(to), recursive=True)
        store.mv(os.fspath(folder), os.fspath(to), recursive=True)
    else:
        shutil.rmtree(to, ignore_errors=True)
        os.replace(folder, to)


def write_if(path: Path, content: bytes, generation: int) -> int:
    """Writes an object on the condition that it is of this generation, 0 for none that is there; its generation then.

    `content` is to be like no other writer's: by it is known what was written although its answer was lost, even of
    an earlier call that failed. Raises FileExistsError where the object is of another generation and content.
    """
    try:
        about = _post(path, content, ifGenerationMatch=generation)
    except FileExistsError:
        with suppress(FileNotFoundError):  # removed meanwhile
            found, written = read_with_generation(path)
            if found == content:
                return written
        raise FileExistsError(f"{path}: written or removed by another since") from None
    return int(about["generation"])


def remove_if(path: Path, generation: int) -> None:
    """Removes an object if it is there and of this generation."""
    with suppress(FileNotFoundError, FileExistsError):
        _store().call("DELETE", "b/{}/o/{}", *_named(path), ifGenerationMatch=generation)


def _named(path: Path) -> tuple[str, str]:
    """The bucket, and the object's name in it (https://docs.cloud.google.com/storage/docs/json_api/v1/objects)."""
    bucket, _, name = os.fspath(path).removeprefix("gs://").partition("/")
    return bucket, name


def read_with_generation(path: Path) -> tuple[bytes, int]:
    """The content of an object, and its generation. Raises FileNotFoundError."""
    store = _store()
    generation = int(store.info(os.fspath(path))["generation"])
    return store.cat_file(os.fspath(path)), generation


def of_a_store(error: BaseException) -> bool:
    """Is it said by a store, or by those who know its users, rather than by this project?"""
    return type(error).__module__.partition(".")[0] in ("gcsfs", "google", "aiohttp")


_CHUNK = 50 * 2**20  # bytes of an upload
_SMALL = 5 * 2**20
_AT_ONCE = 8  # objects that are fetched
_MARK = ".generation"  # beside a fetched file: of which generation it is


def _store() -> Any:
    """The file system of all buckets. Other processes write there too, so no listing is remembered."""
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # which asks for every bucket's kind first
    import fsspec

    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    fsspec.config.conf["gcs"].setdefault("consistency", "md5")
    from etils.epath import backend

    store = backend.fsspec_backend.fs("gs://")
    store.isdir, store.isfile = partial(_is, "directory", store), partial(_is, "file", store)
    return store


def _is(kind: str, store: Any, path: str) -> bool:
    """gcsfs's own say no, too, where the store does not answer: checkpoints would be taken not to be there."""
    try:
        return store.info(path)["type"] == kind
    except FileNotFoundError:
        return False


def cached(path: Path) -> Path:
    """Where a fetched object lies, or would."""
    return _here("fetched", path)


def growing(path: Path) -> Path:
    """Where on this machine an object is written that is not sent yet."""
    return _here("growing", path)


def _here(kind: str, path: Path) -> Path:
    root = os.environ.get(CACHE) or Path.home() / ".cache" / "pegasus-zh"
    return Path(root, kind, *os.fspath(path).replace("gs://", "gs/").split("/"))


def _objects(path: Path) -> dict[str, dict[str, Any]]:
    """The objects of a folder by their names within it, or that of a file by no name; what is known of each."""
    store, address = _store(), os.fspath(path).removeprefix("gs://")
    try:
        found = store.find(address, detail=True)
    except FileNotFoundError:
        return {}
    objects = {
        name.removeprefix(address).lstrip("/"): about
        for name, about in found.items()
        if about["type"] == "file" and (name == address or name.startswith(f"{address}/")) and not name.endswith("/")
    }
    for name in objects:
        if name and {"", ".", ".."} & {*name.split("/")}:  # on a disk it would be another file, perhaps elsewhere
            raise DataError(f"{path}: has an object {name!r}, which is the name of no file: remove it")
    return objects


def _fetch(about: dict[str, Any], file: Path) -> None:
    mark = file.with_name(f".{file.name}{_MARK}")
    generation = str(about["generation"])
    if file.is_file() and mark.is_file() and mark.read_text() == generation and file.stat().st_size == about["size"]:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}{_MARK}")
    try:
        _store().get_file(about["name"], os.fspath(temporary))
        _check(temporary, about)
        mark.unlink(missing_ok=True)
        os.replace(temporary, file)
        mark.write_text(generation)
    finally:
        temporary.unlink(missing_ok=True)


def _check(file: Path, about: dict[str, Any]) -> None:
    """Compares a fetched object with the checksum that its store keeps, which composed objects have too."""
    with open(file, "rb") as opened:
        digest = _crc32c(iter(partial(opened.read, 1 << 24), b""))
    if about.get("crc32c") not in (None, digest):
        raise DataError(f"gs://{about['name']}: came otherwise than its checksum says; {AGAIN}")


def _crc32c(parts: Iterable[bytes]) -> str:
    """As a store writes it."""
    import google_crc32c

    digest = google_crc32c.Checksum()
    for part in parts:
        digest.update(part)
    return base64.b64encode(digest.digest()).decode()
