"""Arrays as a caller gives them: what is easily mistaken is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def points(given: Any, what: str) -> np.ndarray:
    """`given` as float [n, D], float32 where that holds all numbers of its type, else float64.

    Raises ValueError, in whose line it is called `what`, for one vector or another shape, for none, for NaN and
    infinity, and as `reals` does.
    """
    found = floats(given, what)
    if found.ndim == 1 and len(found):
        raise ValueError(
            f"{what} of shape {found.shape}: [n, D] is needed; one vector is x[None], numbers on a line are x[:, None]"
        )
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{what} of shape {found.shape}: [n, D] is needed, n and D from 1")
    if not (finite := np.isfinite(found).all(1)).all():
        raise ValueError(f"{what}: row {int((~finite).argmax())} has NaN or infinity; leave it out")
    return found


def floats(given: Any, what: str) -> np.ndarray:
    """`given` in float32 where that holds all numbers of its type, as of int16 and bfloat16, else in float64."""
    found = np.asarray(reals(given, what))
    with np.errstate(over="ignore"):  # of long doubles: infinity says it
        return found.astype(np.float32 if np.can_cast(found.dtype, np.float32) else np.float64)


def reals(given: Any, what: str) -> np.ndarray | jax.Array:
    """`given` as an array of its own type; one of JAX, traced or not, as it is.

    Raises ValueError for a masked array, for complex numbers, truth values and what is no number.
    """
    if np.ma.isMaskedArray(given):
        raise ValueError(f"{what} is a masked array, whose mask would be lost: leave out what is masked, or fill it")
    try:
        found = given if isinstance(given, jax.Array) else np.asarray(given)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{what}: no array of numbers ({error})") from None
    real = jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)
    if not real or found.dtype.kind == "m":  # to NumPy a time is an integer
        raise ValueError(f"{what} of {found.dtype}: give real numbers, such as float32")
    return found
