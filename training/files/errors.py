"""The one exception that a user's data, vocabulary or checkpoint can cause."""

from contextlib import suppress
from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used: one line with the file, the line where there is one, and the remedy."""


AGAIN = "copy or fetch it again"
# What is often found under another file's name, by how it begins in lower case.
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; fetch that, as by git lfs pull",
    b"<!doctype html": "a page of HTML, such as one that says why a download failed; fetch the file again",
    b"<html": "a page of HTML, such as one that says why a download failed; fetch the file again",
    b"pk\x03\x04": "a zip archive, such as an .xlsx; unpack it, or save the table as .csv in UTF-8",
    b"\x1f\x8b": "compressed by gzip; add .gz to its name, or unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; add .zst to its name, or unpack it",
}


def something_else(file: Path | str, begin: bytes) -> DataError | None:
    """The one line on a file whose first bytes are those of quite another kind of file; None where they are not."""
    begin = begin[:64].removeprefix(b"\xef\xbb\xbf").lower()
    return next((DataError(f"{file}: {told}") for mark, told in _OTHERS.items() if begin.startswith(mark)), None)


def damaged(file: Path, error: Exception, what: str, remedy: str = AGAIN) -> DataError:
    """The one line on a file that a library could not read."""
    with suppress(OSError), open(file, "rb") as opened:
        begin = opened.read(64)
        if not begin.startswith(b"PK") and (other := something_else(file, begin)):  # torch's weights are zip archives
            return other
    return DataError(f"{file}: {what} ({line(error)}); {remedy}")


def line(error: BaseException) -> str:
    """An error's kind and the beginning of its first line."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:160]}"
