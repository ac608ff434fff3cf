"""Labels that follow from others: texts that a chain of pairs of label 1 joins are alike, each to each."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval.matching.pairs import Pair
from training.files.errors import DataError

MOST = 10  # pairs that may follow, as parts of those that are given


def closed(
    pairs: Sequence[Pair], tell: Callable[[str], object] = lambda line: None, unknown: int | None = None
) -> list[Pair]:
    """The pairs, and after them those of label 1 that follow, each once, in a fixed order. Soft labels join nothing,
    nor do texts that are not wholly known: with a number outside of the alphabet, or the id `unknown`. Labels of 0
    within a chain stay as they are; how many there are is told, as there the labels disagree. Raises DataError
    where more than MOST times as many follow."""
    places: dict[bytes, int] = {}
    texts: list[np.ndarray] = []
    for ids in itertools.chain.from_iterable(pair[:2] for pair in pairs):
        if places.setdefault(ids.tobytes(), len(texts)) == len(texts):
            texts.append(ids)
    both = np.array([[places[ids.tobytes()] for ids in pair[:2]] for pair in pairs], int).reshape(-1, 2)
    labels = np.array([pair.label for pair in pairs])
    sure = np.array([bool((ids >= 0).all() and unknown not in ids) for ids in texts], bool)
    first, second = both[(labels == 1) & sure[both].all(1)].T
    size = len(texts)
    _, group = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(size, size)), False)
    members: dict[int, list[int]] = {}
    for text, number in enumerate(group.tolist()):
        members.setdefault(number, []).append(text)
    counts = [len(x) * (len(x) - 1) // 2 for x in members.values()]
    if sum(counts) > MOST * len(pairs):
        raise DataError(
            f"{sum(counts):,} pairs would follow from {len(pairs):,}, {max(counts):,} of them from one chain of labels "
            "of 1, into which one wrong label may join much: leave out --closure"
        )
    known = {frozenset(pair) for pair in both.tolist()}
    found = (pair for texts_of in members.values() for pair in itertools.combinations(texts_of, 2))
    more = [Pair(texts[a], texts[b], 1.0) for a, b in found if frozenset((a, b)) not in known]
    against = int(np.sum((labels == 0) & (group[both[:, 0]] == group[both[:, 1]])))
    tell(f"{len(more):,} further pairs follow from labels of 1; {against:,} labels of 0 contradict them, and stay")
    return [*pairs, *more]
