"""How good scores are against labels of 0 and 1: the area under the ROC curve, the accuracy at its best threshold, and
whether a probability is what it says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import rankdata

from training.experiment.statistics import Estimate
from training.files.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 10


class Scored(NamedTuple):
    """Of n pairs."""

    auc: float
    accuracy: float  # at the threshold that is best for these pairs
    threshold: float
    calibration: float  # expected calibration error (Guo et al. 2017, arXiv 1706.04599), in BINS bins of equal size
    bins: list[tuple[float, float, int]]  # mean probability, share of 1, pairs


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The probability that a pair of label 1 scores above one of label 0, a tie counting half. Raises DataError where
    there is one class alone."""
    ones = int(np.sum(labels == 1))
    if not 0 < ones < len(labels):
        raise DataError(f"of {len(labels):,} labels {ones:,} are 1: AUC needs both 0 and 1")
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(labels) - ones)))


class Parts(NamedTuple):
    """What an AUC is the mean of (DeLong et al. 1988)."""

    above: np.ndarray  # [m] of each 1, the share of 0 below it
    below: np.ndarray  # [n] of each 0, the share of 1 above it


def parts_of_auc(scores: np.ndarray, labels: np.ndarray) -> Parts:
    """By ranks (Sun and Xu 2014). Raises DataError as `auc` does."""
    auc(scores, labels)
    ones, others = scores[labels == 1], scores[labels == 0]
    together, m, n = rankdata(np.concatenate([ones, others])), len(ones), len(others)
    return Parts((together[:m] - rankdata(ones)) / n, 1 - (together[m:] - rankdata(others)) / m)


def estimate_auc(folds: Sequence[Parts]) -> Estimate:
    """The mean of the AUC of different pairs, with its 95 % interval by DeLong's variance. Parts of several AUC of the
    same pairs may be averaged before, or subtracted."""
    few = min(len(part) for parts in folds for part in parts) < 2
    mean = float(np.mean([parts.above.mean() for parts in folds]))
    variances = [part.var(ddof=1) / len(part) for parts in folds for part in parts] if not few else [np.nan]
    half = 1.96 * float(np.sum(variances) ** 0.5) / len(folds)
    return Estimate(mean, mean - half, mean + half)


def auc_interval(scores: np.ndarray, labels: np.ndarray) -> Estimate:
    """With its 95 % interval by DeLong's variance."""
    return estimate_auc([parts_of_auc(scores, labels)])


def score(scores: np.ndarray, labels: np.ndarray) -> Scored:
    """Of probabilities [n] and labels [n]. Raises DataError as `auc` does."""
    area, order = auc(scores, labels), np.argsort(scores, kind="stable")
    ranked, found = scores[order], labels[order]
    # At a threshold before place i all from there on are taken for 1; only where scores differ is there one.
    right = np.cumsum([np.sum(found == 1), *np.where(found == 1, -1, 1)])
    may = np.concatenate([[True], ranked[1:] != ranked[:-1], [True]])
    best = int(np.argmax(np.where(may, right, -1)))
    edge = np.concatenate([[ranked[0]], (ranked[1:] + ranked[:-1]) / 2, [np.nextafter(ranked[-1], np.inf)]])
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    _, tie = np.unique(scores, return_inverse=True)
    shares = (np.bincount(tie, labels) / np.bincount(tie))[tie]  # what is tied has no order within a bin
    bins = [(float(scores[part].mean()), float(shares[part].mean()), len(part)) for part in parts]
    error = sum(abs(p - share) * count for p, share, count in bins) / len(scores)
    return Scored(area, float(right[best] / len(scores)), float(edge[best]), error, bins)


def picture(found: Scored, scores: np.ndarray, labels: np.ndarray) -> "Figure":
    """Calibration, a dot a bin, beside the ROC curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    p, share, _ = np.array(found.bins).T
    left.plot([0, 1], [0, 1], color="0.7", lw=1)
    left.plot(p, share, "o", color="C0")
    left.set_xlabel("probability that was told")
    left.set_ylabel("share of label 1")
    left.set_title(f"calibration error {found.calibration:.3f}, {BINS} bins of equal size", fontsize=10)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # where a tie is over
    hits = np.cumsum(labels[order] == 1)[ends]
    right.plot([0, 1], [0, 1], color="0.7", lw=1)
    right.plot([0, *(ends + 1 - hits) / (labels == 0).sum()], [0, *hits / hits[-1]], color="C1")
    right.set_xlabel("share of label 0 above the threshold")
    right.set_ylabel("share of label 1 above it")
    right.set_title(f"ROC: area {found.auc:.4f}, {len(labels):,} pairs", fontsize=10)
    for axes in (left, right):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
    return figure
