"""Arrays as a caller gives them: what is easily mistaken is refused."""

from typing import Any

import numpy as np


def points(given: Any, what: str) -> np.ndarray:
    """`given` as float [n, D], float32 unless it is float64 already; whole numbers become floats.

    Raises ValueError, in whose line it is called `what`, for one vector or another shape, for none, for complex
    numbers, truth values and what is no number, and for NaN and infinity.
    """
    try:
        found = np.asarray(given)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{what}: no array [n, D] ({error})") from None
    if found.dtype.kind == "V":  # bfloat16 and its like
        found = found.astype(np.float32)
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{what} of {found.dtype}: give real numbers [n, D], such as float32")
    if found.ndim == 1 and len(found):
        raise ValueError(
            f"{what} of shape {found.shape}: [n, D] is needed; one vector is x[None], numbers on a line are x[:, None]"
        )
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{what} of shape {found.shape}: [n, D] is needed, n and D from 1")
    if not (finite := np.isfinite(found).all(1)).all():
        raise ValueError(f"{what}: row {int((~finite).argmax())} has NaN or infinity; leave it out")
    return found if found.dtype == np.float64 else found.astype(np.float32)
