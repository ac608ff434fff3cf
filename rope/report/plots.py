"""The pictures of a report on positions: PNG bytes, from curves and maps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 10.4, 3.9  # inches: the same for all, so that a page shows all letters in one size
DENSE = 2000  # points of a curve that a picture can show


def panels(*widths: float) -> "tuple[Figure, Sequence[Axes]]":
    """A figure of panels side by side, of these relative widths. Not pyplot's:
    nothing stays behind when it is forgotten."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT if len(widths) < 3 else 0.8 * HEIGHT), layout="constrained")
    return figure, figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]


def lines(
    axes: "Axes",
    x: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    title: str,
    xlabel: str,
    ylabel: str = "",
    xlog: bool = False,
    ylog: bool = False,
    bold: str = "",
    zero: bool = False,
    beside: bool = False,
) -> None:
    """A line a curve, by name; `bold` is the one that matters most, zero draws that level,
    beside puts the names outside."""
    # Of very many points those that a logarithmic axis tells apart.
    kept = np.arange(len(x))
    if xlog and len(x) > DENSE:
        kept = np.unique(np.geomspace(1, len(x), DENSE).astype(int) - 1)
    if zero:
        axes.axhline(0, color="0.4", linewidth=0.8)
    for number, (name, curve) in enumerate(curves.items()):
        strong = name == bold
        style = "--" if number > 4 else "-"
        axes.plot(x[kept], curve[kept], style, label=name, linewidth=2.4 if strong else 1.3, zorder=3 if strong else 2)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if xlog:
        axes.set_xscale("log")
    if ylog:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        if beside:
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        else:
            axes.legend(fontsize="small")


def heat(
    figure: "Figure",
    axes: "Axes",
    matrix: np.ndarray,
    *,
    title: str,
    span: tuple[float, float, float, float],
    xlabel: str = "position n",
    ylabel: str = "position m",
) -> None:
    """A matrix as colours about zero; span: the first and last column, and the last and first row."""
    most = float(np.abs(matrix).max()) or 1.0
    image = axes.imshow(
        matrix, cmap="RdBu_r", vmin=-most, vmax=most, extent=span, aspect="auto", interpolation="nearest"
    )
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    figure.colorbar(image, ax=axes, shrink=0.9)
