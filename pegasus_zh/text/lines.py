"""Lines of text files, whatever they are compressed by; what is seen in them, and what encoding they have."""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

from training.files.buckets import on_disk, path_of
from training.files.errors import DataError, something_else

COMPRESSED = ("", ".gz", ".zst")
# What is seen: neither white space, nor a control character, nor one of no width.
_VISIBLE = re.compile(
    "[^\\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef]"  # tags, which flags end in, and more selectors of variants
)
_MAYBE_BLANK = (
    frozenset(b"\xc2\xcd\xd8\xe1\xe2\xe3\xef\xf3") | frozenset(range(32)) | {127}
)  # first bytes of the others


def ends_in(path: str, endings: str | tuple[str, ...]) -> bool:
    """Is this the kind of a file, by its name? Capitals count for nothing."""
    return path.endswith(endings) or path.lower().endswith(endings)


def is_blank(text: str) -> bool:
    """Is there nothing to see? White space, control characters and those of no width (U+200B, U+FEFF, …) alone."""
    return _VISIBLE.search(text) is None


def is_blank_line(line: bytes) -> bool:
    """The same of a line that is not decoded yet."""
    if line and line[0] not in _MAYBE_BLANK and line[0] != 32:  # nearly all
        return False
    line = line.strip()
    return not line or (line[0] in _MAYBE_BLANK and is_blank(line.decode(errors="replace")))


@contextmanager
def opened(path: str) -> Iterator[Iterator[bytes]]:
    """The lines of a file, also .gz and .zst, or of standard input (-), without a mark of the byte order.

    Raises DataError for a file that cannot be read on, and for what is not UTF-8 by its first line.
    """
    try:
        with _open(path) as file:
            lines = iter(file)
            first = first_line(path, next(lines, b""))
            yield chain([first] if first else [], lines)  # an empty file has no line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: broken or truncated gzip ({error}); fetch or compress it again") from error
    except OSError as error:
        if ends_in(path, ".zst") and error.errno is None:
            raise DataError(f"{path}: broken or truncated zstd ({error}); fetch or compress it again") from error
        raise DataError(f"{path}: {error.strerror or error}") from error


def _open(path: str) -> AbstractContextManager[Iterable[bytes]]:
    if path == "-":
        return nullcontext(sys.stdin.buffer)
    path = str(on_disk(path_of(path, "the file")))
    if not ends_in(path, ".zst"):
        return gzip.open(path, "rb") if ends_in(path, ".gz") else open(path, "rb")
    import pyarrow  # a quarter of a second: only where it is used

    return io.BufferedReader(pyarrow.input_stream(path, compression="zstd"))


def first_line(path: str, line: bytes) -> bytes:
    """Without a mark of the byte order. Raises DataError for one of UTF-16, for lines that end in CR alone, and for
    what is no text by its first bytes."""
    if other := something_else(path, line):
        raise other
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16, by its first two bytes; convert it, as by iconv -f utf-16 -t utf-8")
    if b"\r" in line.rstrip(b"\r") and not line.endswith(b"\n"):
        raise DataError(f"{path}: its lines end in CR alone; convert it, as by tr '\\r' '\\n'")
    return line.removeprefix(b"\xef\xbb\xbf")


def encoding_of(data: bytes) -> str:
    """Of Chinese text that is not UTF-8, where nearly all characters are then common ones; else nothing."""
    best = ("", 0.9)
    for name in ("gb18030", "big5", "utf-16-le", "utf-16-be"):
        try:
            text = data[: len(data) // 2 * 2 if name.startswith("utf") else None].rstrip(b"\r\n").decode(name)
        except UnicodeDecodeError:
            continue
        share = sum(map(_is_common, text)) / max(len(text), 1)
        best = max(best, (name, share), key=lambda x: x[1])
    return best[0]


def _is_common(character: str) -> bool:
    """ASCII that is seen, punctuation, or among the commoner halves of GB 2312 and Big5."""
    if character.isascii():
        return character.isprintable() or character in "\t\r\n"
    for name, last in (("gb2312", 0xD7), ("big5", 0xC6)):
        lead = character.encode(name, "ignore")[:1]
        if lead and (lead[0] in (0xA1, 0xA3) or (0xB0 if name == "gb2312" else 0xA4) <= lead[0] <= last):
            return True
    return False
