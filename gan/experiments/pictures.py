"""Grids of images."""

from collections.abc import Mapping

import numpy as np

from training.experiment.cells import png


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
