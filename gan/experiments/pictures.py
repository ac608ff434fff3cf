"""Pictures that several experiments have: curves over steps, and grids of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gan.training import BINS, SLOPE
from training.experiment.report import png
from training.experiment.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves over steps, means with their intervals, and constants that are true whatever the step."""

    title: str
    curves: Mapping[str, Sequence[tuple[int, Estimate]]]
    lines: Mapping[str, float | None] = field(default_factory=dict)
    label: str = ""
    limited: bool = True
    """To heights near the constants: a critic that knows no scale does not hide the others."""

    def draw(self, axes: "Axes") -> None:
        for place, (name, points) in enumerate(self.curves.items()):
            if not points:
                continue
            steps, (mean, low, high) = [step for step, _ in points], np.array([e for _, e in points]).T
            color, style = f"C{place % 10}", "-" if place < 10 else ":"
            axes.plot(steps, mean, label=name, marker="o", markersize=3, color=color, linestyle=style)
            axes.fill_between(steps, low, high, alpha=0.15, color=color)
        for dash, (name, value) in zip(("--", ":", "-."), self.lines.items(), strict=False):
            if value is not None:
                axes.axhline(value, color="k", linestyle=dash, linewidth=1, label=f"{name}: {value:.3g}")
        known = [value for value in self.lines.values() if value]
        if known and self.limited:
            axes.set_ylim(min(-0.1 * max(known), 0), 1.6 * max(known))
        axes.set(title=self.title, xlabel="steps", ylabel=self.label)
        axes.grid(alpha=0.3)

    def picture(self) -> bytes:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots()
        self.draw(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        return png(figure)


def slopes(parts: Mapping[str, Sequence], seconds: Mapping[str, float]) -> bytes:
    """PNG of histograms [seeds, 3, BINS] of gradients' lengths at P, at Q and between them, a panel each, and of how
    long each took."""
    from matplotlib.figure import Figure

    columns = min(4, max(len(parts), 1))
    rows = max(-(-len(parts) // columns), 1)
    heights = (2.1 * rows, 0.6 + 0.22 * len(seconds))
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    above, below = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=heights), object))
    edges = np.linspace(0, SLOPE, BINS + 1)
    all_axes = [*above.subplots(rows, columns, squeeze=False, sharex=True).flat]
    for axes, (name, counts) in zip(all_axes, parts.items(), strict=False):
        for place, values in zip(("P", "Q", "between"), np.mean(counts, 0), strict=True):
            axes.stairs(values, edges, label=place)
        axes.axvline(1, color="k", linestyle=":", linewidth=1)
        axes.set_title(name, fontsize=8)
        axes.set_yticks([])
    for axes in all_axes[len(parts) :]:
        axes.axis("off")
    for axes in all_axes[max(len(parts) - columns, 0) : len(parts)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("|grad f|", fontsize=8)
    if parts:
        all_axes[0].legend(fontsize=7)
    bars = below.subplots()
    bars.barh([*seconds], [*seconds.values()])
    bars.invert_yaxis()
    bars.set_xlabel("seconds")
    bars.tick_params(axis="y", labelsize=7)
    return png(figure)


def grid(panels: Mapping[str, np.ndarray], image: tuple[int, int, int], columns: int = 4) -> bytes:
    """PNG of each panel's images [n, D], as many a side as make a square of them."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.6 * min(columns, len(panels)), 2.9 * rows), layout="constrained")
    all_axes = [*figure.subplots(rows, min(columns, len(panels)), squeeze=False).flat]
    for axes in all_axes:
        axes.axis("off")
    for axes, (name, images) in zip(all_axes, panels.items(), strict=False):
        side = int(len(images) ** 0.5)
        tiles = np.pad(images[: side * side].reshape(-1, *image), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=0.5)
        height, width, channels = tiles.shape[1:]
        sheet = (
            tiles.reshape(side, side, height, width, channels)
            .swapaxes(1, 2)
            .reshape(side * height, side * width, channels)
        )
        axes.imshow(sheet if channels == 3 else sheet.mean(-1), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name, fontsize=9)
    return png(figure)
