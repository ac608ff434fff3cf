"""Labelled pairs as examples of the instructions (templates), on which a model learns to follow them."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retrieval.pairs.same import one_line, said
from retrieval.pairs.tally import SAME, Tally
from retrieval.pairs.templates import Templates
from training.files.errors import DataError


class Instructed(NamedTuple):
    source: str  # a label's instruction about one text
    reference: str  # the other text, and the templates' mark


def instructed(pairs: Sequence[tuple[str, str, float]], templates: Templates, tally: Tally) -> list[Instructed]:
    """Each of the pairs (text, text, score) in both directions, by the label whose score is nearest: the least score of
    the pairs stands for the lowest label, the largest for the highest one, so that scores of 0 to 5 or 0 and 1 will do.

    Pairs of the same text, and texts that hold the mark which ends what is written, are left out; how many came to each
    label is told. Raises DataError where all scores of the pairs, or of the labels, are the same.
    """
    scores, levels = np.array([score for *_, score in pairs]), np.array([label.score for label in templates.labels])
    for whose, of in (("the pairs", scores), ("the templates", levels)):
        if len({*of.tolist()}) < 2:
            known = f"are all {of[0]:g}" if len(of) else "are missing"
            raise DataError(f"{tally.read}: scores of {whose} {known}; instructions are told apart by them")
    placed = np.interp(scores, [scores.min(), scores.max()], [levels.min(), levels.max()])
    chosen = np.abs(placed[:, None] - levels).argmin(1)
    found, counts = list[Instructed](), Counter[str]()
    for (a, b, _), place in zip(pairs, chosen.tolist(), strict=True):
        a, b, label = one_line(a), one_line(b), templates.labels[place]
        if said(a) == said(b):
            tally.dropped[SAME] += 1
        elif templates.end and templates.end in a + b:
            tally.dropped[f"pairs with {templates.end} in a text"] += 1
        else:
            counts[label.name] += 1
            found += [Instructed(label.prompt(x), y + templates.end) for x, y in ((a, b), (b, a))]
    tally.read += "".join(f", {count:,} {name}" for name, count in counts.items())
    return found
