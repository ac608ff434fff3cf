"""Points from a file."""

import numpy as np

from training.files.errors import DataError


def read_points(path: str) -> np.ndarray:
    """float64 [n, D] of an .npy, or of text with a point a line, its numbers apart by spaces or commas; an array [n] is
    n numbers on a line. Raises DataError."""
    try:
        if path.endswith(".npy"):
            found = np.asarray(np.load(path, allow_pickle=False), np.float64)
        else:
            with open(path, encoding="utf-8") as file:
                found = np.array([line.replace(",", " ").split() for line in file if line.strip()], np.float64)
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "no array of points, as many numbers a line"
        raise DataError(f"{path}: {reason}") from None
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or not found.size:
        raise DataError(f"{path}: an array {found.shape}, where points are [n, D]")
    if not np.isfinite(found).all():
        raise DataError(f"{path}: no finite number in point {int((~np.isfinite(found)).any(1).argmax())}")
    return found
