"""The one exception that a user's data, vocabulary or checkpoint can cause."""

from os import PathLike
from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used: one line with the file, the line where there is one, and the remedy."""


def path_of(given: Path | str, what: str) -> Path:
    """`given` as a Path. Raises DataError for an empty one, which would be the folder one is in, and for no path."""
    if not isinstance(given, (str, PathLike)) or given == "":
        raise DataError(f"{what} is {given!r:.40}: give a path")
    return Path(given)


AGAIN = "copy or fetch it again"


def damaged(file: Path, error: Exception, what: str, remedy: str = AGAIN) -> DataError:
    """The one line on a file that a library could not read."""
    reason = next(iter(str(error).strip().splitlines()), "")[:160]
    return DataError(f"{file}: {what} ({type(error).__name__}: {reason}); {remedy}")
