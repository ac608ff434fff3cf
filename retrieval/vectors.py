"""Arrays of vectors [n, D]: read from a file, checked, made of length 1."""

from pathlib import Path

import numpy as np

from training.errors import DataError


def open_vectors(path: str | Path) -> np.ndarray:
    """A .npy file of vectors [n, D], mapped into memory. Raises DataError."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; write it with scripts.embed") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a .npy file of numbers ({error}); write it with scripts.embed") from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
        raise DataError(f"{path}: not vectors [n, D] of floating point numbers; write it with scripts.embed")
    return vectors


def check_finite(vectors: np.ndarray, first: int = 0, where: str = "vectors") -> None:
    """Raises DataError for the first vector [n, D] with NaN or infinity; `first` is the number of vector 0."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim))))
    if len(bad):
        raise DataError(
            f"{where}: row {first + bad[0] + 1} has NaN or infinity; encode that text again, or leave it out"
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, D] of length 1, whose products are cosines; one of zeros stays so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
