"""The lengths experiment's perplexity by position: curves with intervals, a table by octave, and a row for each bin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from training.experiment.page import Section, Table
from training.experiment.report import csv_text, png
from training.experiment.statistics import Estimate, estimate
from training.files.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("encoding", "first", "last", "perplexity", "low", "high", "times", "times low", "times high")


class Bins(NamedTuple):
    """Sums over bins of positions; S seeds, W windows, K bins."""

    edges: np.ndarray  # [K + 1], first positions
    counts: np.ndarray  # [W, K] masked tokens
    long: Mapping[str, np.ndarray]  # by encoding [S, W, K]: their cross-entropy in the longest rows
    short: Mapping[str, np.ndarray]  # the same tokens in rows of the trained length


def gather_bins(cells: Sequence[Mapping[str, Any]]) -> Bins:
    """Of the seeds there are; what continues a model has that model's own scores as short ones."""
    longs: dict[str, list] = {}
    shorts: dict[str, list] = {}
    for cell in cells:
        found = cell["positions"]["entropy"]
        least, most = (str(f(map(int, next(iter(found.values()))))) for f in (min, max))
        plain = found.get(cell["encoding"], next(iter(found.values())))
        for name, entropy in found.items():
            longs.setdefault(name, []).append(entropy[most])
            shorts.setdefault(name, []).append(plain[least])
    about = cells[0]["positions"]
    long, short = ({name: np.array(x) for name, x in of.items()} for of in (longs, shorts))
    return Bins(np.array(about["edges"]), np.array(about["counts"]), long, short)


def merged(bins: Bins, edges: Sequence[int]) -> Bins:
    """With these of its edges alone."""
    first = np.searchsorted(bins.edges, edges)[:-1]

    def add(x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x, first, -1)

    long, short = ({name: add(x) for name, x in of.items()} for of in (bins.long, bins.short))
    return Bins(np.array(edges), add(bins.counts), long, short)


def perplexities(bins: Bins, name: str) -> list[Estimate]:
    """Of each bin, in the longest rows."""
    return [_perplexity(bins.long[name][..., k], bins.counts[:, k]) for k in range(bins.counts.shape[1])]


def times(bins: Bins, name: str) -> list[Estimate]:
    """Of each bin: the perplexity in the longest rows over that of the same tokens in rows of the trained length, seed
    by seed and window by window."""
    less = bins.long[name] - bins.short[name]
    return [_perplexity(less[..., k], bins.counts[:, k]) for k in range(bins.counts.shape[1])]


def _perplexity(sums: np.ndarray, counts: np.ndarray) -> Estimate:
    return Estimate(*map(float, np.exp(estimate(sums, counts=counts))))


def position_section(folder: Path, cells: Sequence[Mapping[str, Any]], trained: int, long: int) -> Section:
    """The section; `positions.csv` in `folder` has its rows."""
    bins = gather_bins(cells)
    kept = bins.counts.sum(0) > 0
    found = {name: (perplexities(bins, name), times(bins, name)) for name in bins.long}
    rows = [
        (name, first, last - 1, *one, *other)
        for name, both in found.items()
        for first, last, one, other in zip(bins.edges[:-1], bins.edges[1:], *both, strict=True)
    ]
    write_bytes(folder / "positions.csv", csv_text(COLUMNS, rows).encode())
    octaves = merged(
        bins, [1, *(trained << k for k in range((long // trained).bit_length()) if trained << k < long), long]
    )
    heads = [f"{a:,} to {b - 1:,}" for a, b in zip(octaves.edges[:-1], octaves.edges[1:], strict=True)]
    table = [[name, *(x.text(3) for x in times(octaves, name))] for name in bins.long]
    return Section(
        "positions",
        "Perplexity by position",
        says=f"Of the masked tokens of rows of {long:,} by their position, and over that of the same tokens in rows of "
        f"{trained}. The encoder reads both ways: a token in the middle has keys half a row away, the "
        "first and the last a whole one. Bands: 95 % over seeds and windows.",
        picture=_picture(bins, found, kept, trained),
        table=Table(
            ["positions", *heads],
            table,
            caption=f"Perplexity of the masked tokens of rows of {long:,} by position, over that of the same tokens in "
            f"rows of {trained} [95 % interval]: 1 is no loss",
        ),
    )


def _picture(
    bins: Bins, found: Mapping[str, tuple[list[Estimate], list[Estimate]]], kept: np.ndarray, trained: int
) -> bytes:
    """Encodings above, what continues the rotary one below."""
    from matplotlib.figure import Figure

    continued = [name for name in found if name.startswith("rotary,")]
    groups = [("encodings", [name for name in found if name not in continued])]
    if continued:
        plain = [name for name in ("rotary",) if name in found]
        groups = [*(groups if len(groups[0][1]) > 1 else []), ("rotary, continued", [*plain, *continued])]
    figure = Figure(figsize=(12.4, 4.6 * len(groups)), layout="constrained")
    for (title, names), axes in zip(groups, figure.subplots(len(groups), 2, squeeze=False), strict=True):
        for which, axis in enumerate(axes):
            _curves(axis, bins.edges, {name: found[name][which] for name in names}, kept)
            axis.axvline(trained, color="0.4", linestyle=":", linewidth=1.2)
            axis.set(title=title, xlabel=f"position (trained up to {trained}, dotted)")
        axes[0].set(ylabel="perplexity of masked tokens", yscale="log")
        axes[1].set(ylabel="times that in rows as trained", yscale="log")
        axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def _curves(axes: "Axes", edges: np.ndarray, curves: Mapping[str, list[Estimate]], kept: np.ndarray) -> None:
    from matplotlib.ticker import ScalarFormatter

    middles = np.sqrt(edges[:-1] * edges[1:])[kept]
    for number, (name, found) in enumerate(curves.items()):
        mean, low, high = np.array(found)[kept].T
        line = axes.plot(middles, mean, "--" if number > 4 else "-", marker="o", markersize=3, lw=1.4, label=name)
        axes.fill_between(middles, low, high, color=line[0].get_color(), alpha=0.1, lw=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
