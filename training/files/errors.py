"""The one exception that a user's data, vocabulary or checkpoint can cause."""

from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used: one line with the file, the line where there is one, and the remedy."""


AGAIN = "copy or fetch it again"


def damaged(file: Path, error: Exception, what: str, remedy: str = AGAIN) -> DataError:
    """The one line on a file that a library could not read."""
    reason = next(iter(str(error).strip().splitlines()), "")[:160]
    return DataError(f"{file}: {what} ({type(error).__name__}: {reason}); {remedy}")
