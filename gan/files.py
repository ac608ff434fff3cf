"""Points and images from files."""

import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.files.errors import DataError
from training.files.images import IDX_IMAGES, NAME, read_idx, read_images


class Cloud(NamedTuple):
    """A set of points."""

    points: np.ndarray  # float64 [n, D]
    shape: tuple[int, ...]  # of one: (D,), or (height, width, channels) of an image, whose values are from 0 to 1


def read_cloud(path: str) -> Cloud:
    """Points as `read_points` has them, also of an .npz with one array, or images: MNIST's files, with labels or
    without, or whatever else `read_images` takes, and an .npy [n, H, W] or [n, H, W, channels]. Raises DataError."""
    file = Path(path)
    if file.suffix == ".npy" and _dimensions(file) < 3:
        points = read_points(path)
    elif file.suffix == ".npz" and (name := _only_array(file)):
        points = _points(path, np.load(file, allow_pickle=False)[name])
    elif file.is_file() and NAME.fullmatch(file.name):
        points = (read_idx(file, IDX_IMAGES)[..., None] / 255).astype(np.float32).astype(np.float64)
    elif path.startswith("tfds:") or file.is_dir() or file.suffix in (".npy", ".npz") or not file.is_file():
        points = read_images(path).pixels.astype(np.float64)
    else:
        points = read_points(path)
    if not len(points):
        raise DataError(f"{path}: no image in it")
    return Cloud(points.reshape(len(points), -1), points.shape[1:])


def _dimensions(file: Path) -> int:
    """Of the array in an .npy; 0 where there is none, of which read_points tells."""
    try:
        return int(np.load(file, allow_pickle=False, mmap_mode="r").ndim)
    except (OSError, ValueError, EOFError):
        return 0


def _only_array(file: Path) -> str | None:
    """Its name in an .npz that has no other, and is no set of images."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            (name,) = arrays
            return name if arrays[name].ndim < 3 else None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file}: damaged: its array cannot be read ({error}); make it again") from None
    except (OSError, ValueError, EOFError, TypeError):  # read_images tells
        return None


def read_points(path: str) -> np.ndarray:
    """float64 [n, D] of an .npy, or of text with a point a line, its numbers apart by spaces or commas; an array [n] is
    n numbers on a line. Raises DataError."""
    try:
        if path.endswith(".npy"):
            found = np.load(path, allow_pickle=False)
        else:
            with open(path, encoding="utf-8") as file:
                found = _numbers(path, file)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "no array of points, as many numbers a line"
        raise DataError(f"{path}: {reason}") from None
    return _points(path, found)


def _numbers(path: str, lines: Iterable[str]) -> np.ndarray:
    """float64 [n, D]"""
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        cells = re.split(r"\s*,\s*", line.strip()) if "," in line else line.split()
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            head = "; remove a line of names" if number == 1 else ""
            raise DataError(
                f"{path}: line {number}: {line.strip()[:40]!r} is not numbers, apart by spaces or commas{head}"
            ) from None
        if row and rows and len(row) != len(rows[0]):
            raise DataError(f"{path}: line {number}: {len(row)} numbers, where line 1 has {len(rows[0])}")
        rows += [row] if row else []
    return np.array(rows, np.float64)


def _points(path: str, found: np.ndarray) -> np.ndarray:
    if found.dtype.kind not in "buif":
        raise DataError(f"{path}: an array of {found.dtype}, where points are numbers")
    given, found = found, np.asarray(found, np.float64)
    if given.dtype.kind in "ui" and np.any(np.abs(found) > 2**53):
        raise DataError(f"{path}: whole numbers above 2^53, which float64 does not tell apart; subtract an offset")
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or not found.size:
        raise DataError(f"{path}: an array {found.shape}, where points are [n, D]")
    if not np.isfinite(found).all():
        raise DataError(f"{path}: no finite number in point {int((~np.isfinite(found)).any(1).argmax())}")
    return found
