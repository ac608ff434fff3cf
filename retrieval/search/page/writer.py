"""What writes sentences like a text, where there is one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Writer(NamedTuple):
    """A model that writes, or none."""

    write: Callable[[str, int], Sequence[tuple[str, float]]] | None = None
    """(a text, k) -> at most k others with their cosines to it, the best first. Raises DataError."""
    says: str = ""
    """Why there is none, or what to know of it: a sentence."""


NOTHING = Writer(says="This server has nothing that writes.")
