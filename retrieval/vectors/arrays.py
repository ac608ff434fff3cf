"""Arrays of vectors [n, D]: read from a file, checked, made of length 1."""

from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import jax
import numpy as np

from training.files.errors import DataError

Array = TypeVar("Array", np.ndarray, jax.Array)


def open_vectors(path: str | Path) -> np.ndarray:
    """A .npy file of vectors [n, D], mapped into memory. Raises DataError."""
    vectors = read_npy(path, None, "write it with scripts.embed")
    if vectors.ndim != 2 or not vectors.size:
        raise DataError(f"{path}: not vectors [n, D] but {vectors.shape}; write it with scripts.embed")
    return vectors


def read_npy(path: str | Path, shape: tuple[int, ...] | None, remedy: str) -> np.ndarray:
    """A .npy file of floating point numbers, mapped into memory. Raises DataError, which ends in the remedy."""
    try:
        found = np.lib.format.open_memmap(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {remedy}") from None
    except (ValueError, OSError, EOFError, OverflowError, SyntaxError, TokenError) as error:
        raise DataError(f"{path}: not a .npy file of numbers ({error}); {remedy}") from None
    if found.dtype.kind != "f" or shape not in (None, found.shape):
        raise DataError(f"{path}: {found.dtype} of {found.shape}, not floats of {shape or 'vectors'}; {remedy}")
    return found


def check_finite(vectors: np.ndarray, first: int = 0, where: str = "vectors") -> None:
    """Raises DataError for the first vector [n, D] with NaN or infinity; `first` is the number of vector 0."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim))))
    if len(bad):
        raise DataError(
            f"{where}: row {first + bad[0] + 1} has NaN or infinity; encode that text again, or leave it out"
        )


def unit(vectors: Array) -> Array:
    """Vectors [n, D], NumPy's or jax's, of length 1, whose products are cosines; one of zeros stays so."""
    xp: Any = vectors.__array_namespace__()
    return vectors / xp.maximum(xp.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
