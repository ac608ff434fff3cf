"""Rouge-L as the package `rouge` (1.0.0) has it: by the distinct units of a longest common subsequence."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

Unit = TypeVar("Unit", bound=Hashable)


def longest_common(reference: Sequence[Unit], candidate: Sequence[Unit]) -> set[Unit]:
    """The distinct units of a longest common subsequence: of several, that which `rouge` finds.

    Which one decides how many are distinct, so a length (rapidfuzz) or another's path will not do. Bit j of rows[i] is
    0 where candidate[j] lengthens the subsequence of reference[: i + 1] and candidate[:j] (Hyyrö, 2004).
    """
    places: dict[Unit, int] = {}
    for j, unit in enumerate(candidate):
        places[unit] = places.get(unit, 0) | 1 << j
    row = ones = (1 << len(candidate)) - 1
    rows = []
    for unit in reference:
        matches = row & places.get(unit, 0)
        row = (row + matches | row - matches) & ones
        rows.append(row)
    found: set[Unit] = set()
    i, j = len(reference) - 1, len(candidate) - 1
    while i >= 0 and j >= 0:
        if reference[i] == candidate[j]:
            found.add(reference[i])
            i, j = i - 1, j - 1
        elif rows[i] >> j & 1:
            j -= 1
        else:
            i -= 1
    return found
