"""Directions spread evenly over the sphere, with nothing drawn and nothing learned.

The i-th is the i-th point of a sequence of additive recurrence by powers of the generalised golden ratio, taken to the
sphere by the normal distribution's quantiles (Xiong 2025, https://jerryxio.ng/posts/nd-rope, "golden gate RoPE"; the
sequence is Roberts's R_d, https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/).
Like mixed frequencies they turn every pair by all axes, and keep the law of differences.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from rope.positions.angles import frequencies


def golden_ratio(axes: int) -> float:
    """The root above 1 of x^(axes + 1) = x + 1: the golden ratio for one axis, 1.3247 for two, 1.2207 for three."""
    x = 2.0
    for _ in range(64):  # a contraction: each step leaves less than half of the distance
        x = (1 + x) ** (1 / (axes + 1))
    return x


def golden_directions(count: int, axes: int) -> np.ndarray:
    """[count, A] unit vectors u_i = v_i / |v_i| with v_ia the normal quantile of the fraction of i / ratio^a, for i and
    a from 1. float64. Raises ValueError for no axes."""
    if axes < 1:
        raise ValueError(f"axes is {axes}: directions need one or more")
    parts = np.arange(1, count + 1)[:, None] * golden_ratio(axes) ** -np.arange(1.0, axes + 1)
    normal = ndtri(parts % 1)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def golden_frequencies(heads: int, size: int, axes: int = 2, theta: str = "10^-t") -> jax.Array:
    """[N, A, F]: pair f of head n is turned along direction n F + f + 1, as fast as `theta` has it.

    The source spaces magnitudes from a least to a largest one; here they are this package's, from the fastest on.
    Raises ValueError for an odd head size.
    """
    fast = frequencies(size, theta)
    directions = golden_directions(heads * (size // 2), axes).reshape(heads, size // 2, axes)
    return jnp.asarray(np.moveaxis(directions, -1, 1), fast.dtype) * fast[None, None]
