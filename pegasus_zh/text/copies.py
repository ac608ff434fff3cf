"""Which texts are copies of earlier ones: exactly, or nearly, by MinHash (Broder 1997) and bands (Indyk, Motwani 1998).

Exact copies have the same characters after NFKC, in lower case and without white space. Near ones share much of their
n-grams of characters, since Chinese has no spaces: the Jaccard similarity of the two sets is estimated by the share of
PLACES random minima that are the same, with a standard error of at most 0.5 / sqrt(PLACES) = 0.044.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

GRAM = 5  # characters
PLACES = 128
_TOGETHER = 1 << 12  # n-grams whose PLACES hashes are made at once
_RANDOM = np.random.default_rng(20261)
_FACTORS = _RANDOM.integers(0, 2**63, (PLACES, 1), np.uint64) * np.uint64(2) + np.uint64(1)
_TERMS = _RANDOM.integers(0, 2**63, (PLACES, 1), np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


def normalised(text: str) -> str:
    """What of a text is compared."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def digest(text: str) -> bytes:
    """16 bytes, the same for exact copies."""
    return hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def signature(text: str) -> np.ndarray:
    """uint32 [PLACES]: the minima of so many random hashes of a text's n-grams; of a shorter text it is one n-gram."""
    characters = np.frombuffer(normalised(text).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    width = max(1, min(GRAM, len(characters)))
    grams = np.zeros(max(1, len(characters) - width + 1), np.uint64)
    for window in range(width if len(characters) else 0):
        grams = (grams + characters[window : window + len(grams)] + np.uint64(1)) * _BASE
        grams ^= grams >> np.uint64(29)
    grams = np.unique(grams)
    least = np.full(PLACES, 2**32 - 1, np.uint32)
    for first in range(0, len(grams), _TOGETHER):
        # Multiply and shift: the upper half of a product by a random odd number.
        hashed = (grams[first : first + _TOGETHER] * _FACTORS + _TERMS) >> np.uint64(32)
        least = np.minimum(least, hashed.min(1).astype(np.uint32))
    return least


def exact_copies(digests: Iterable[bytes | None]) -> set[int]:
    """The numbers of those that came before; None is the copy of nothing."""
    seen, copies = set[bytes](), set[int]()
    for number, found in enumerate(digests):
        if found in seen:
            copies.add(number)
        elif found is not None:
            seen.add(found)
    return copies


def near_copies(signatures: Iterable[np.ndarray | None], threshold: float) -> set[int]:
    """The numbers of those whose estimated similarity to an earlier one that is kept is `threshold` or more.

    Compared are those alike in a band of places, so narrow that of pairs whose similarity is at the threshold one in a
    hundred at most is not compared; near the threshold, the estimate decides.
    """
    width = band_width(threshold)
    bands: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(PLACES // width)]
    kept: dict[int, np.ndarray] = {}
    copies = set[int]()
    for number, found in enumerate(signatures):
        if found is None:
            continue
        keys = [found[i * width : (i + 1) * width].tobytes() for i in range(len(bands))]
        alike = {other for band, key in zip(bands, keys, strict=True) for other in band.get(key, ())}
        if any((kept[other] == found).mean() >= threshold for other in alike):
            copies.add(number)
            continue
        kept[number] = found
        for band, key in zip(bands, keys, strict=True):
            band[key].append(number)
    return copies


def band_width(threshold: float) -> int:
    """Places of a band: the most that leave at most 1 % of pairs of that similarity uncompared, else 1."""
    return max(w for w in range(1, 33) if w == 1 or (1 - threshold**w) ** (PLACES // w) <= 0.01)
