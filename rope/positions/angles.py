"""Angles of positions, of which sinusoidal, rotary and axial encodings are made.

An encoding of this family is a set of frequencies theta_0..theta_{F-1}: position p has the angles p theta_i. With
several axes (x, y, ... of an image) a frequency is a vector, one component an axis, and the angle is the inner product.

Letters: T positions of a row, A axes, F = H/2 frequencies (pairs of dimensions), N heads.
"""

import math
import operator
import re
from collections.abc import Callable
from functools import reduce
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Schedule = Callable[[jax.Array | np.ndarray], jax.Array]  # t in [0, 1) -> theta_t
Layout = Literal["interleaved", "half"]  # of the two dimensions of a pair: side by side, or in both halves
SINUSOIDAL = "10000^-t"  # Vaswani et al. 2017, arXiv 1706.03762, section 3.5


SCHEDULES: dict[str, Schedule] = {}  # frequencies of one's own, by the name that `theta` then is


def schedule(name: str) -> Schedule:
    """`10000^-t` (any base above 0), `t^2` (any exponent from 0) or `t`, as https://kexue.fm/archives/8231 compares
    them; or what SCHEDULES has under the name.

    Raises ValueError for another name.
    """
    if name in SCHEDULES:
        return SCHEDULES[name]
    number = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
    if found := re.fullmatch(rf"{number}\^-t", name):
        base = float(found[1])
        if 0 < base < math.inf:
            return lambda t: jnp.exp(-math.log(base) * t)
    elif found := re.fullmatch(rf"t(?:\^{number})?", name):
        exponent = float(found[1] or 1)
        return lambda t: jnp.asarray(t**exponent)
    raise ValueError(
        f"theta is {name!r}: it must be like 10000^-t, 1000^-t, t^2 or t" + "".join(f", or {own}" for own in SCHEDULES)
    )


def frequencies(size: int, theta: str = SINUSOIDAL) -> jax.Array:
    """[F]: theta_t at t = 0, 1/F, ..., for vectors of `size` = 2F. Raises ValueError for an odd size."""
    if size < 2 or size % 2:
        raise ValueError(f"the head size (or width) is {size}: positions turn pairs of dimensions, so it must be even")
    return schedule(theta)(jnp.arange(size // 2, dtype=jnp.float32) / (size // 2))


def axial_frequencies(size: int, axes: int, theta: str = SINUSOIDAL) -> jax.Array:
    """[A, F]: the dimensions in `axes` equal blocks, each turned by one axis with the 1-D frequencies of its size.

    For two axes it is the block-diagonal solution of https://kexue.fm/archives/8397. Raises ValueError for a size that
    is not a multiple of 2 x axes.
    """
    if axes < 1 or size % (2 * axes):
        raise ValueError(f"the head size (or width) is {size}: for {axes} axes it must be a multiple of {2 * axes}")
    return jnp.kron(jnp.eye(axes), frequencies(size // axes, theta))


def mixed_frequencies(key: jax.Array, heads: int, size: int, axes: int = 2, theta: str = "10^-t") -> jax.Array:
    """[N, A, F] to be learned: every pair is turned by all axes, in a random direction of its own at first.

    RoPE-Mixed of Heo et al. 2024 (arXiv 2403.13298, section 3.2), where the axial one cannot see diagonals; their base
    for images is 10.
    """
    direction = jax.random.normal(key, (heads, axes, size // 2))
    return direction / jnp.linalg.norm(direction, axis=1, keepdims=True) * frequencies(size, theta)[None, None]


def angles(positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """[..., T, F] from positions [..., T] and frequencies [F], or from [..., T, A] and [A, F]; [..., T, N, F] from
    [..., T, A] and [N, A, F]. Positions are whole numbers or not; the angles
    have the frequencies' type, float32.

    Raises ValueError where the coordinates of a position are not as many as the frequencies' axes.
    """
    kind = jnp.promote_types(frequencies.dtype, jnp.float32)  # bfloat16 holds 256 positions
    positions, frequencies = jnp.asarray(positions, kind), frequencies.astype(kind)
    if frequencies.ndim == 1:
        return _outer(positions, frequencies)
    axes = frequencies.shape[-2]
    if positions.ndim < 2 or positions.shape[-1] != axes:
        raise ValueError(
            f"positions of shape {positions.shape}: the frequencies have {axes} axes, so it must end in {axes}"
        )
    # A sum of products, not a product of matrices: that may run in bfloat16 on a TPU, too coarse for an angle.
    return reduce(operator.add, (_outer(positions[..., a], frequencies[..., a, :]) for a in range(axes)))


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.expand_dims(x, range(x.ndim, x.ndim + y.ndim)) * jnp.expand_dims(y, range(x.ndim))


def grid(*lengths: int) -> jax.Array:
    """The coordinates [T, A] of the cells of a grid, row by row (the last axis fastest):
    for an image grid(height, width)."""
    return jnp.stack(jnp.meshgrid(*map(jnp.arange, lengths), indexing="ij"), -1).reshape(-1, len(lengths))


def lookup(table: jax.Array, positions: jax.Array) -> jax.Array:
    """The rows [..., T, ...] of a table [P, ...] at positions [..., T]: learned positions, or a cached encoding.

    Raises ValueError for a position outside of the table, where positions are not traced; under jit such a row is NaN.
    """
    if not isinstance(positions, jax.core.Tracer) and np.size(positions):
        least, most = int(np.min(np.asarray(positions))), int(np.max(np.asarray(positions)))
        if least < 0 or most >= len(table):
            raise ValueError(f"position {least if least < 0 else most}: the table has positions 0 to {len(table) - 1}")
    return rows_of(table, positions)


def rows_of(table: jax.Array, numbers: jax.Array, sharding: jax.P | None = None) -> jax.Array:
    """The rows [..., E] of a table [P, E] with these numbers [...]; NaN for numbers that it does not have.

    By itself JAX would take the last row for larger ones, and count negative ones from the end.
    """
    numbers = jnp.where(numbers < 0, len(table), numbers)
    return jnp.asarray(table).at[numbers].get(mode="fill", fill_value=jnp.nan, out_sharding=sharding)


def join(first: jax.Array, second: jax.Array, layout: Layout) -> jax.Array:
    """Two [..., F] as the first and the second of every pair of dimensions: [..., 2F]."""
    check_layout(layout)
    if layout == "half":
        return jnp.concatenate([first, second], -1)
    return jnp.stack([first, second], -1).reshape(*first.shape[:-1], 2 * first.shape[-1])


def check_layout(layout: str) -> None:
    if layout not in ("interleaved", "half"):
        raise ValueError(
            f"layout is {layout!r}: it must be interleaved (pairs side by side) or half (halves of a head)"
        )
