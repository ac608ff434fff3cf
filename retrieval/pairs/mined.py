"""Pairs among short texts by their vectors: nearest neighbours whose cosine lies within bounds, mutual ones first.

Letters: n texts, D dimensions, P pairs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from pegasus_zh.text.lists import listed
from retrieval.pairs.same import one_line, said
from retrieval.pairs.tally import Tally, distinct
from retrieval.search.index import Index, make_index
from retrieval.vectors.arrays import unit
from training.ranges import check_ranges

PIECE = 1 << 12  # texts whose neighbours are sought at a time


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Which neighbours are a pair."""

    least: float = 0.7
    """Cosine of a pair at least."""
    most: float = 0.99
    """Cosine of a pair at most."""
    copies: float = 0.8
    """Pairs that are more alike by spelling are left out: 1 - edits / length of the longer one, punctuation apart."""
    neighbours: int = 10
    """How many of the nearest of a text are looked at."""
    pairs_a_text: int = 2
    """Pairs that one text is in at most."""

    def __post_init__(self):
        check_ranges(self, least=-1, most=-1, copies=(0, 2), neighbours=1, pairs_a_text=1)
        if not -1 <= self.least <= self.most <= 1:
            raise ValueError(f"least is {self.least:g} and most {self.most:g}: most is from least to 1")
        if self.copies > 1:
            raise ValueError(f"copies is {self.copies:g}: it must be from 0 to 1, and 1 leaves none out")


class Mined(NamedTuple):
    first: str
    second: str
    cosine: float


def neighbour_pairs(
    texts: Sequence[str],
    vectors: np.ndarray,
    bounds: Bounds,
    tally: Tally,
    index: Index | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> list[Mined]:
    """The pairs of distinct texts, of vectors [n, D], best first: those that are among each other's nearest, and then
    those of which one is among the other's, by cosine.

    index: an empty one, by default exact. progress: told how many further texts have been compared. What is left out is
    counted, and where the nearest neighbours lie goes into what is said of the texts.
    """
    found = _nearest(unit(np.asarray(vectors, np.float32)), bounds.neighbours, index, progress)
    if not len(found.cosines):
        return []
    tenth, half, most = np.quantile(found.best, (0.1, 0.5, 0.9))
    tally.read += f", {len(found.pairs):,} pairs of neighbours; the nearest of a text lies at a cosine of "
    tally.read += f"{half:.3f} (a tenth below {tenth:.3f}, a tenth above {most:.3f})"
    below, above = found.cosines < bounds.least, found.cosines > bounds.most
    tally.dropped[f"pairs of a cosine below {bounds.least:g}"] += int(below.sum())
    tally.dropped[f"pairs of a cosine above {bounds.most:g}"] += int(above.sum())
    within = np.flatnonzero(~(below | above))
    alike = _spelt_alike(texts, found.pairs[within])
    tally.dropped["pairs that are spelt alike"] += int((alike > bounds.copies).sum())
    within = within[alike <= bounds.copies]
    order = within[np.lexsort((found.pairs[within, 0], -found.cosines[within], ~found.mutual[within]))]
    pairs_of, kept = Counter[int](), list[Mined]()
    for (one, other), cosine in zip(found.pairs[order].tolist(), found.cosines[order].tolist(), strict=True):
        if max(pairs_of[one], pairs_of[other]) < bounds.pairs_a_text:
            pairs_of.update((one, other))
            kept.append(Mined(one_line(texts[one]), one_line(texts[other]), cosine))
    tally.dropped["pairs with a text that has enough"] += len(order) - len(kept)
    return kept


class _Neighbours(NamedTuple):
    pairs: np.ndarray  # int64 [P, 2], the smaller place first
    cosines: np.ndarray  # float32 [P]
    mutual: np.ndarray  # bool [P]
    best: np.ndarray  # float32 [n], of each text's nearest


def _nearest(
    vectors: np.ndarray, neighbours: int, index: Index | None, progress: Callable[[int], object]
) -> _Neighbours:
    index = make_index("exact", vectors.shape[1]) if index is None else index
    index.add(vectors)
    scores, places = [], []
    for first in range(0, len(vectors), PIECE):
        found = index.search(vectors[first : first + PIECE], neighbours + 1)  # a text is near itself
        scores.append(found.scores)
        places.append(found.places)
        progress(len(found.scores))
    cosines, others = np.concatenate(scores), np.concatenate(places)
    own = np.broadcast_to(np.arange(len(vectors))[:, None], others.shape)
    real = (others >= 0) & (others != own)
    best = np.where(real, cosines, -np.inf).max(1)
    low, high = np.sort(np.stack([own[real], others[real]]), 0)
    codes, where, times = np.unique(low * len(vectors) + high, return_index=True, return_counts=True)
    pairs = np.stack(np.divmod(codes, len(vectors)), 1)
    return _Neighbours(pairs, cosines[real][where], times > 1, best[np.isfinite(best)])


def _spelt_alike(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """1 - edits / length of the longer one, of each pair [P]."""
    if not len(pairs):
        return np.zeros(0, np.float32)
    one, other = ([said(texts[place]) for place in column] for column in pairs.T.tolist())
    return cpdist(one, other, scorer=Levenshtein.normalized_similarity)


def mine_pairs(texts: Sequence[str], vectors: np.ndarray, **settings: Any) -> list[Mined]:
    """Pairs (first, second, cosine) of texts that are near by their vectors [n, D], as Embedder.encode makes them, and
    not copies of each other; mutual neighbours first, the nearest first.

    settings: fields of Bounds, such as least=0.8, pairs_a_text=1. Raises ValueError for a string where a list belongs,
    no texts, vectors of another number, and bounds the wrong way round; DataError for vectors with NaN.
    """
    found, given, bounds = listed(texts), np.asarray(vectors, np.float32), Bounds(**settings)
    if given.ndim != 2 or len(given) != len(found):
        raise ValueError(f"{len(found)} texts and vectors of shape {given.shape}: [n, D] of as many is needed")
    tally = Tally()
    places = distinct(found, tally)
    if len(places) < 2:
        return []
    return neighbour_pairs([found[place] for place in places], given[places], bounds, tally)
