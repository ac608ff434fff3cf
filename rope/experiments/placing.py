"""Test images where a model never saw them: shifted, anywhere on a larger canvas, enlarged."""

from collections.abc import Iterator, Sequence

import numpy as np


def placed(pixels: np.ndarray, canvas: tuple[int, int], corners: np.ndarray) -> np.ndarray:
    """Images [n, H, W, channels] on empty canvases, the upper left corner of each at corners [n, 2] (row, column).

    What lies outside is lost. Whole pixels; corners may be negative.
    """
    n, *size, _ = pixels.shape
    rows, columns = (np.arange(canvas[axis]) - corners[:, axis, None] for axis in (0, 1))  # in the image: [n, canvas]
    inside = [(x >= 0) & (x < size[axis]) for axis, x in enumerate((rows, columns))]
    rows, columns = (np.clip(x, 0, size[axis] - 1) for axis, x in enumerate((rows, columns)))
    out = pixels[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return out * (inside[0][:, :, None] & inside[1][:, None, :])[..., None]


def canvas_of(size: tuple[int, int], factor: float, patch: int) -> tuple[int, int]:
    """So many times the size, in whole patches."""
    height, width = (-(-round(factor * side) // patch) * patch for side in size)
    return height, width


def conditions(
    pixels: np.ndarray, patch: int, *, shifts: Sequence[int], canvases: Sequence[float], places: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(what is done to the images, [times, n, H, W, channels]): each image once where chance plays no part, else
    `places` times. No seed of an experiment changes them."""
    n, height, width, _ = pixels.shape
    size = (height, width)

    def often(canvas: tuple[int, int], number: int, choices: np.ndarray) -> np.ndarray:
        chosen = np.random.default_rng([len(pixels), number]).integers(len(choices), size=(places, n))
        return np.stack([placed(pixels, canvas, choices[which]) for which in chosen])

    yield "as trained", pixels[None]
    for k in shifts:
        around = np.stack(np.meshgrid(*[np.arange(-k, k + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
        yield f"shifted by {k}", often(size, k, around[np.abs(around).max(1) == k])
    for factor in canvases:
        canvas = canvas_of(size, factor, patch)
        # By whole patches a model reads the patches that it knows, elsewhere; anywhere, the image is cut otherwise too.
        for step, end in ((1, ""), (patch, ", by patches")):
            free = (np.arange(0, c - s + 1, step) for c, s in zip(canvas, size, strict=True))
            corners = np.stack(np.meshgrid(*free, indexing="ij"), -1).reshape(-1, 2)
            yield f"on {canvas[0]} x {canvas[1]}{end}", often(canvas, 1000 * step + canvas[0], corners)
    yield "twice as large", pixels.repeat(2, axis=1).repeat(2, axis=2)[None]
