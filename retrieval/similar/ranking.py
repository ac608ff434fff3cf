"""Of draws those that are worth having: no copies, the nearest, unlike each other where that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Similar(NamedTuple):
    text: str
    score: float  # cosine to the source


@dataclass(frozen=True)
class Found:
    """Of one text."""

    text: str
    similar: list[Similar]  # in the order in which they were chosen, the nearest first
    drawn: int
    copies: int  # of the text itself among them, those that have a word that was to change, and empty ones
    repeated: int  # draws that had come already

    @property
    def distinct_2(self) -> float:
        """Of the characters' pairs in what is kept, the share of different ones."""
        return distinct_n([text for text, _ in self.similar])

    def row(self) -> dict[str, object]:
        """As it is written."""
        return {
            "text": self.text,
            "similar": [{"text": text, "score": round(score, 6)} for text, score in self.similar],
            "drawn": self.drawn,
            "copies": self.copies,
            "repeated": self.repeated,
            "kept": len(self.similar),
            "distinct_2": round(self.distinct_2, 4),
        }


def different(draws: Sequence[str], own: frozenset[str], words: Sequence[str]) -> tuple[list[str], int, int]:
    """(The texts among draws, each once and as they came; how many were the text itself, in one of its spellings `own`,
    had one of the words or nothing; how many had come already)."""
    kept = [draw for draw in draws if draw.strip() and draw not in own and not any(word in draw for word in words)]
    found = [*dict.fromkeys(kept)]
    return found, len(draws) - len(kept), len(kept) - len(found)


def chosen(
    vectors: np.ndarray,
    source: np.ndarray,
    keep: int,
    least: float = -1.0,
    greatest: float = 1.0,
    diversity: float = 0.0,
) -> tuple[list[int], np.ndarray]:
    """(At most `keep` of the vectors [n, D], of length 1, the nearest to the source [D] first; all cosines [n]).

    diversity: the weight of the largest cosine to one that is chosen already against that to the source (maximal
    marginal relevance; Carbonell and Goldstein 1998, section 2).
    """
    near = np.clip(vectors @ source, -1, 1)
    left = [int(i) for i in np.argsort(-near, kind="stable") if least <= near[i] <= greatest]
    if not diversity:
        return left[:keep], near
    places, beside = np.array(left, int), np.full(len(left), -1.0)
    found: list[int] = []
    while len(found) < min(keep, len(left)):
        gain = (1 - diversity) * near[places] - diversity * beside if found else near[places].copy()
        gain[np.isin(places, found)] = -np.inf
        found.append(int(places[np.argmax(gain)]))
        beside = np.maximum(beside, vectors[places] @ vectors[found[-1]])
    return found, near


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Of all runs of n characters in the texts the share of different ones (distinct-n: Li et al. 2016,
    arXiv 1510.03055, section 5.2, of characters); 0 of none."""
    runs = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
    return len({*runs}) / max(len(runs), 1)
