"""What others call: queries and keys turned by their positions, on a line, on a grid or in more dimensions."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from rope.positions.angles import SINUSOIDAL, Layout, axial_frequencies, mixed_frequencies
from rope.positions.extension import Extension, extended_rotation
from rope.positions.rerope import LongRotation
from rope.positions.rotary import Rotation, rotation
from rope.positions.rotary import rotate as rotate_by
from training.arrays import floats, reals
from training.ranges import check_number

Encoding = Literal["rotary", "axial", "mixed"]


def rotate(
    x: jax.Array | np.ndarray,
    positions: jax.Array | np.ndarray,
    encoding: Encoding | jax.Array | np.ndarray = "rotary",
    *,
    theta: str = SINUSOIDAL,
    layout: Layout = "interleaved",
    extension: Extension | None = None,
    seed: int = 0,
) -> jax.Array:
    """Queries or keys [..., T, N, H] turned by their positions [T],
    or of d coordinates [T, d] (or [..., T, d], one set a row).

    Inner products of what is turned then depend on the difference of positions alone. encoding: rotary, of positions
    [T]; axial, an equal block of the head for each of d coordinates; mixed, each pair of dimensions by all of them, in
    a direction drawn by `seed`; or frequencies of one's own, [H / 2], [d, H / 2] or [N, d, H / 2]. theta: the
    frequencies' names are those of rope.positions.angles. layout: which dimensions are a pair; half is Llama's.
    extension: of rotary, positions beyond the trained length.

    In x's type, computed in float32, which has all whole positions to 2^24; differentiable. NaN in x stays where it is.
    Sources: rope/positions/rotary.py and angles.py. Raises ValueError for shapes that do not belong together, for whole
    or complex numbers in x, for positions and frequencies that are no finite real numbers, and for settings of another
    kind.
    """
    x, positions = _checked(x, positions)
    if not isinstance(encoding, str):
        encoding = _real(encoding, "encoding")
    if not isinstance(theta, str):
        raise ValueError(f"theta is {theta!r}: it must be like {SINUSOIDAL}")
    if not isinstance(extension, Extension | None):
        raise ValueError(f"extension is {extension!r:.40}: it must be a rope.positions.extension.Extension")
    check_number("seed", seed, (0, 1 << 32))
    by = _rotation(x, positions, encoding, theta, extension, seed)
    turned = by.cos.shape[:-1]  # [..., T, 1 or N], which must add no axis to x and lengthen none
    if len(turned) >= x.ndim or any(a not in (1, b) for a, b in zip(turned[::-1], x.shape[-2::-1], strict=False)):
        kinds = "" if isinstance(encoding, str) else f" and frequencies of shape {encoding.shape}"
        raise ValueError(
            f"positions of shape {positions.shape}{kinds} do not go with x of shape {x.shape}: [T] with [H / 2], or "
            "[T, d] or [..., T, d] with [d, H / 2] or [N, d, H / 2]"
        )
    return rotate_by(x, by, layout)


def _real(given: jax.Array | np.ndarray, what: str) -> jax.Array:
    """Finite real numbers, whole ones as floats: int32 would wrap those beyond it. Raises ValueError."""
    found = reals(given, what)
    if not isinstance(found, jax.Array):
        found = jnp.asarray(floats(found, what))
    if not isinstance(found, jax.core.Tracer) and not bool(jnp.isfinite(found).all()):
        raise ValueError(f"{what} of NaN or infinity: give finite numbers")
    return found


def _checked(x: jax.Array | np.ndarray, positions: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    x, positions = jnp.asarray(reals(x, "x")), _real(positions, "positions")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x of {x.dtype}: what is turned must be of a floating type, as float32")
    if x.ndim < 3 or not x.size:
        raise ValueError(
            f"x of shape {x.shape}: queries or keys [..., T, N, H] are needed; of one head x[..., None, :]"
        )
    length = positions.shape[0 if positions.ndim == 1 else -2] if positions.ndim else 0
    if length != x.shape[-3]:
        raise ValueError(
            f"positions of shape {positions.shape}: [T] or [..., T, d] for T = {x.shape[-3]} of x {x.shape}; of rows "
            "of their own on a line, positions[..., None]"
        )
    return x, positions


def _rotation(
    x: jax.Array,
    positions: jax.Array,
    encoding: Encoding | jax.Array | np.ndarray,
    theta: str,
    extension: Extension | None,
    seed: int,
) -> Rotation:
    heads, size = x.shape[-2:]
    if not isinstance(encoding, str):
        return rotation(positions, jnp.asarray(encoding))
    if extension is not None and encoding != "rotary":
        raise ValueError(f"encoding is {encoding!r}: an extension is of rotary positions")
    axes = 0 if positions.ndim == 1 else positions.shape[-1]
    if encoding == "rotary":
        if axes > 1:
            raise ValueError(f"positions of {axes} coordinates: encoding must be axial or mixed")
        places = positions[..., 0] if axes else positions
        found = extended_rotation(extension or Extension(), places, size, x.shape[-3], theta)
        if isinstance(found, LongRotation):
            raise ValueError("ReRoPE changes scores, which no turning does: give rope.layers.attention its rotation")
        return found
    if encoding not in get_args(Encoding):
        raise ValueError(f"encoding is {encoding!r}: it must be {', '.join(get_args(Encoding))}, or frequencies")
    if not axes:
        raise ValueError(f"positions of shape {positions.shape}: {encoding} ones have coordinates, [T, d]")
    if encoding == "axial":
        return rotation(positions, axial_frequencies(size, axes, theta))
    return rotation(positions, mixed_frequencies(jax.random.key(seed), heads, size, axes, theta))
