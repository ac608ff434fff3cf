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


def position_edges(short: int, long: int) -> list[int]:
    """The bounds of bins of positions from 1 on, half an octave each from an eighth of the trained length; the trained
    length and its powers of two are among them."""
    made = short / 8 * 2 ** (np.arange(2 * np.ceil(np.log2(8 * long / short))) / 2)
    return [1, *(int(x) for x in np.unique(np.round(made)) if 1 < x < long), long]


def in_bins(values: np.ndarray, edges: list[int]) -> list[list[float]]:
    """[W, bins]: sums of values [W, C] of windows whose first token is at position 1, over each bin of positions."""
    last = np.clip(np.array(edges) - 1, 0, values.shape[1])
    sums = np.pad(np.cumsum(values, 1, dtype=np.float64), ((0, 0), (1, 0)))[:, last]
    return np.diff(sums, axis=1).round(4).tolist()


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
        "first and the last a whole one. Bands: 95 % over seeds and windows; of perplexities, which differ most by "
        "what the tokens are, for one model alone.",
        picture=_picture(bins, trained),
        table=Table(
            ["positions", *heads],
            table,
            caption=f"Perplexity of the masked tokens of rows of {long:,} by position, over that of the same tokens in "
            f"rows of {trained} [95 % interval]: 1 is no loss",
        ),
    )


def _picture(bins: Bins, trained: int) -> bytes:
    """Encodings above, what continues the rotary one below."""
    from matplotlib.figure import Figure

    # Of few positions there are few tokens.
    first = [int(bins.edges[np.searchsorted(bins.edges, trained / part)]) for part in (4, 2)]
    bins = merged(bins, [*dict.fromkeys([1, *first]), *(int(x) for x in bins.edges if x >= trained)])
    continued = [name for name in bins.long if name.startswith("rotary,")]
    groups = [("encodings", [name for name in bins.long if name not in continued])]
    if continued:
        plain = [name for name in ("rotary",) if name in bins.long]
        groups = [*(groups if len(groups[0][1]) > 1 else []), ("rotary, continued", [*plain, *continued])]
    figure = Figure(figsize=(12.4, 4.6 * len(groups)), layout="constrained")
    for (title, names), (left, right) in zip(groups, figure.subplots(len(groups), 2, squeeze=False), strict=True):
        found = {name: (perplexities(bins, name), times(bins, name)) for name in names}
        if names[0] == "rotary":  # one model, whose rows as trained all are compared with
            short = perplexities(bins._replace(long=bins.short), names[0])
            _curve(left, bins, short, band=True, color="black", label=f"in rows of {trained}")
        for number, (name, (long, over)) in enumerate(found.items()):
            look = {"color": f"C{number}", "linestyle": "--" if number > 4 else "-", "label": name}
            _curve(left, bins, long, band=False, **look)
            _curve(right, bins, over, band=True, **look)
        right.axhline(1, color="black", linewidth=1)
        left.set(title=title, ylabel="perplexity of masked tokens")
        right.set(title=title, ylabel=f"times that in rows of {trained}")
        left.legend(fontsize=8, loc="center right", bbox_to_anchor=(-0.15, 0.5))
        for axes in (left, right):
            _scales(axes, trained)
    return png(figure)


def _curve(axes: "Axes", bins: Bins, found: Sequence[Estimate], *, band: bool, **look: Any) -> None:
    kept = bins.counts.sum(0) > 0
    middles = np.sqrt(bins.edges[:-1] * bins.edges[1:])[kept]
    mean, low, high = np.array(found)[kept].T
    axes.plot(middles, mean, marker="o", markersize=3, lw=1.4, **look)
    if band:
        axes.fill_between(middles, low, high, color=look["color"], alpha=0.12, lw=0)


def _scales(axes: "Axes", trained: int) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    axes.axvline(trained, color="0.4", linestyle=":", linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    few = MaxNLocator(5) if high < 1.5 * low else LogLocator(2, subs=(1, 1.25, 1.5, 1.75))
    axes.yaxis.set_major_locator(few)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=f"position (trained up to {trained}, dotted)")
    axes.grid(alpha=0.3)
