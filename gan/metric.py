"""The ground cost between points, and the norm in which a critic's gradient is then bounded.

f is 1-Lipschitz for the cost |x - y|_p where its gradient is at most 1 in the dual norm, 1/p + 1/q = 1: l2 with l2, l1
with the largest component.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

Metric = Literal["l2", "l1"]
FLOOR = 1e-12  # inside square roots, whose derivative at 0 is infinite
LEAST = 1e-30  # of a squared distance: below it points are one
NEAR = 0.01  # of |x|^2 + |y|^2: a square above it is right to 1e-5 by a product in float32


def known(metric: Metric) -> Metric:
    """Raises ValueError for another."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric is {metric!r}: it must be l2 or l1")
    return metric


def distances(x: jax.Array, y: jax.Array, metric: Metric = "l2") -> jax.Array:
    """[n, D], [m, D] -> [n, m]. Raises ValueError for points of other shapes and unknown metrics."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"points {x.shape} and {y.shape}: both must be [points, dimensions], of as many dimensions")
    if known(metric) == "l1":
        return jnp.sum(jnp.abs(x[:, None] - y[None]), -1)
    # The squares of a product of centred points, at full precision: an accelerator's default would round more than
    # critics differ. It rounds by the points' own squares, so that where some pair is near beside them, as in clusters
    # far from each other, all are of differences, which take many times the time.
    centre = jax.lax.stop_gradient(jnp.mean(y, 0, keepdims=True))
    x, y = x - centre, y - centre
    inner = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    own = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)[None]
    near = jax.lax.stop_gradient(jnp.any(own - 2 * inner < NEAR * own))
    squares = jax.lax.cond(near, _squares, lambda x, y: own - 2 * inner, x, y)
    return jnp.where(squares > LEAST, jnp.sqrt(jnp.maximum(squares, LEAST)), 0.0)


@jax.checkpoint  # as [n, m, D] nothing is kept for the gradient
def _squares(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum((x[:, None] - y[None]) ** 2, -1)


def lengths(x: jax.Array, metric: Metric = "l2") -> jax.Array:
    """[..., D] -> [...], in the ground cost."""
    return jnp.sum(jnp.abs(x), -1) if known(metric) == "l1" else jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1), FLOOR))


def dual_lengths(gradient: jax.Array, metric: Metric = "l2") -> jax.Array:
    """[..., D] -> [...]: how steep a critic with this gradient is; at most 1 where it is 1-Lipschitz."""
    return jnp.max(jnp.abs(gradient), -1) if known(metric) == "l1" else lengths(gradient)
