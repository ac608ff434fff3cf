"""Sentences of one passage that share much, and not nearly all: RoFormer-Sim's third corpus, out of documents.

Letters: n sentences of a passage, V different tokens of theirs.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from pegasus_zh.text.lists import many
from pegasus_zh.text.sentences import group_sentences, split_sentences
from retrieval.pairs.same import said, tokens, words
from retrieval.pairs.tally import SAME, Pair, Tally, sound
from training.ranges import check_choices, check_ranges

PASSAGE = 1 << 14  # characters that are compared with each other; a longer document is several passages
BEYOND = "pairs with a sentence of another pair, or beyond those of a document"
UNITS: dict[str, Callable[[str], list[str]]] = {"characters": tokens, "words": words}


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Which sentences of a document are a pair."""

    least: float = 0.4
    """Tokens that two sentences share, of all that either has (Jaccard): at least so much."""
    most: float = 0.8
    """And at most so much, or they are the same sentence."""
    of: Literal["characters", "words"] = "characters"
    """What is shared: characters, numbers and Latin words, or jieba's words."""
    length: int = 32
    """Characters up to which short sentences in a row are taken as one; a longer sentence stays whole."""
    shortest: int = 8
    """Tokens that a sentence has at least."""
    pairs_a_document: int = 4
    """At most, drawn at random; a sentence is in one pair, whatever the document."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self):
        check_choices(self)
        check_ranges(self, least=(0, 1), length=1, shortest=2, pairs_a_document=1, seed=0)
        if not self.least <= self.most <= 1:
            raise ValueError(f"least is {self.least:g} and most {self.most:g}: most is from least to 1")


def sentence_pairs(documents: Iterable[str], overlap: Overlap, tally: Tally) -> Iterator[list[Pair]]:
    """Of each document its pairs, in order of their first sentences; what was compared and left out is counted."""
    taken: set[str] = set()  # sentences of pairs, as they are the same to a reader
    with threadpool_limits(1, "blas"):  # the products are small: threads would wait for each other
        for number, document in enumerate(many(documents)):
            draw, found = random.Random(f"{overlap.seed} {number}"), list[Pair]()
            for passage in group_sentences(_sentences(document, overlap), max_characters=PASSAGE, min_sentences=2):
                found += _of_passage(passage, overlap, taken, draw, tally)
            kept = sorted(draw.sample(range(len(found)), min(len(found), overlap.pairs_a_document)))
            tally.dropped[BEYOND] += len(found) - len(kept)
            yield [found[i] for i in kept]


def _sentences(document: str, overlap: Overlap) -> Iterator[str]:
    for sentence in split_sentences(document, faithful=False, max_length=overlap.length):
        if len(tokens(sentence)) >= overlap.shortest:
            yield sentence


def _of_passage(
    sentences: Sequence[str], overlap: Overlap, taken: set[str], draw: random.Random, tally: Tally
) -> list[Pair]:
    """Pairs of different sentences, drawn one after the other, each sentence in one at most."""
    shares = jaccard([UNITS[overlap.of](sentence) for sentence in sentences])
    first, second = np.triu_indices(len(sentences), 1)
    of_pairs = shares[first, second]
    within = np.flatnonzero((of_pairs >= overlap.least) & (of_pairs <= overlap.most))
    tally.dropped[f"pairs that share less than {overlap.least:g}"] += int((of_pairs < overlap.least).sum())
    tally.dropped[f"pairs that share more than {overlap.most:g}"] += int((of_pairs > overlap.most).sum())
    found, same = list[tuple[int, int]](), 0
    for place in draw.sample(within.tolist(), len(within)):
        pair = int(first[place]), int(second[place])
        one, other = (said(sentences[i]) for i in pair)
        if one == other:
            same += 1
        elif not taken & {one, other}:
            taken.update((one, other))
            found.append(pair)
        if len(found) == overlap.pairs_a_document:
            break
    tally.dropped[SAME] += same
    tally.dropped[BEYOND] += len(within) - same - len(found)
    return [(sentences[i], sentences[j]) for i, j in sorted(found)]


def jaccard(sets: Sequence[Sequence[str]]) -> np.ndarray:
    """float32 [n, n]: what two share of what either has; 0 of two that are empty."""
    numbers: dict[str, int] = {}
    places = [[numbers.setdefault(token, len(numbers)) for token in found] for found in sets]
    has = np.zeros((len(sets), len(numbers)), np.float32)
    for row, found in zip(has, places, strict=True):
        row[found] = 1
    shared, sizes = has @ has.T, has.sum(1)
    return shared / np.maximum(sizes[:, None] + sizes - shared, 1)


def passage_pairs(documents: Iterable[str], **settings: Any) -> list[Pair]:
    """Pairs of sentences of one document that share much and not nearly all, each pair and each sentence once.

    settings: fields of Overlap, such as least=0.5, of="words". Raises ValueError for one text where a list belongs, and
    for bounds the wrong way round.
    """
    tally = Tally()
    return list(sound(chain.from_iterable(sentence_pairs(documents, Overlap(**settings), tally)), tally))
