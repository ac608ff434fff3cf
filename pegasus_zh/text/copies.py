"""Which texts are copies of earlier ones: exactly, or nearly, by MinHash (Broder 1997) and bands (Indyk, Motwani 1998).

Exact copies have the same characters after NFKC, in lower case and without white space. Near ones share much of their
n-grams of characters, since Chinese has no spaces: the Jaccard similarity of the two sets is estimated by the share of
PLACES random minima that are the same, with a standard error of at most 0.5 / sqrt(PLACES) = 0.044.
"""

import functools
import hashlib
import unicodedata
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # of the extra near
    from datasketch import LeanMinHash, MinHash

GRAM = 5  # characters
PLACES = 128
_TOGETHER = 1 << 12  # n-grams whose PLACES hashes are made at once


def normalised(text: str) -> str:
    """What of a text is compared."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def digest(text: str) -> bytes:
    """16 bytes, the same for exact copies."""
    return hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def signature(text: str) -> "LeanMinHash":
    """The minima of so many random hashes of a text's n-grams; of a shorter text it is one n-gram."""
    from datasketch import LeanMinHash

    text, minima = normalised(text), _none().copy()
    parts = {text[start : start + GRAM] for start in range(max(1, len(text) - GRAM + 1))}
    grams = [part.encode("utf-8", "surrogatepass") for part in parts]
    for first in range(0, len(grams), _TOGETHER):
        minima.update_batch(grams[first : first + _TOGETHER])
    return LeanMinHash(minima)


@functools.cache  # its random numbers cost more than the hashes of a short text
def _none() -> "MinHash":
    from datasketch import MinHash

    return MinHash(PLACES, seed=1, scheme="affine32", hashfunc=zlib.crc32)


def exact_copies(digests: Iterable[bytes | None]) -> set[int]:
    """The numbers of those that came before; None is the copy of nothing."""
    seen, copies = set[bytes](), set[int]()
    for number, found in enumerate(digests):
        if found in seen:
            copies.add(number)
        elif found is not None:
            seen.add(found)
    return copies


def near_copies(signatures: Iterable["LeanMinHash | None"], threshold: float) -> set[int]:
    """The numbers of those whose estimated similarity to an earlier one that is kept is `threshold` or more.

    Compared are those alike in a band of places, so narrow that of pairs whose similarity is at the threshold one in a
    hundred at most is not compared; near the threshold, the estimate decides.
    """
    from datasketch import MinHashLSH

    width = band_width(threshold)
    alike = MinHashLSH(num_perm=PLACES, params=(PLACES // width, width))
    kept: dict[int, LeanMinHash] = {}
    copies = set[int]()
    for number, found in enumerate(signatures):
        if found is None:
            continue
        if any(kept[other].jaccard(found) >= threshold for other in alike.query(found)):
            copies.add(number)
        else:
            kept[number] = found
            alike.insert(number, found, check_duplication=False)
    return copies


def band_width(threshold: float) -> int:
    """Places of a band: the most that leave at most 1 % of pairs of that similarity uncompared, else 1."""
    return max(w for w in range(1, 33) if w == 1 or (1 - threshold**w) ** (PLACES // w) <= 0.01)
