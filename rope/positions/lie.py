"""LieRE: a rotation of many dimensions at once, R(p) = exp(sum_a p_a B_a), whose skew-symmetric generators B_a are
learned (Ostmeier et al. 2024, arXiv 2406.10322).

Generators that commute keep the law of differences, R(p)^T R(q) = R(q - p): blocks of two dimensions do, and are mixed
rotary positions. Others keep it on every line through the origin alone.

Letters: T positions, A axes, N heads, H head size, G blocks of S dimensions.
"""

import jax
import jax.numpy as jnp

from rope.positions.blocks import BlockRotation

TERMS, SQUARINGS = 14, 16  # (1/2)^15 / 15! is less than a float64 tells from nothing


def lie_parameters(key: jax.Array, heads: int, size: int, axes: int = 2, block: int | None = None) -> jax.Array:
    """[N, A, G, S, S] to be learned, of which what is above the diagonal counts; blocks are of the whole head unless
    given.

    N(0, 1 / (4 S)), with which a generator's largest frequency is about 1 a unit, as that of the other encodings; the
    paper draws uniformly in [0, 2 pi). Raises ValueError for blocks that a head is no multiple of.
    """
    block = size if block is None else block
    if block < 2 or size % block:
        raise ValueError(f"blocks of {block} dimensions for a head of {size}: it must be 2 or more and divide the head")
    return jax.random.normal(key, (heads, axes, size // block, block, block)) / (2 * block**0.5)


def skew(parameters: jax.Array) -> jax.Array:
    """The generators [..., S, S] of parameters [..., S, S]: what is above the diagonal, and below it its negative."""
    above = jnp.triu(parameters, 1)
    return above - above.swapaxes(-1, -2)


def lie_rotation(positions: jax.Array, parameters: jax.Array) -> BlockRotation:
    """The rotation of positions [..., T, A] by parameters [N, A, G, S, S], as far as `exponential` goes: of initial
    ones, to coordinates of some ten thousand.
    Raises ValueError for another number of coordinates."""
    axes = parameters.shape[1]
    if positions.ndim < 2 or positions.shape[-1] != axes:
        raise ValueError(f"positions of shape {positions.shape}: the generators have {axes} axes, so it must end so")
    by = skew(parameters.astype(jnp.promote_types(parameters.dtype, jnp.float32)))
    places = jnp.expand_dims(positions.astype(by.dtype), (-2, -3, -4, -5))  # [..., T, 1, 1, 1, 1, A]
    turned = sum(places[..., a] * jnp.expand_dims(by[:, a], range(positions.ndim - 1)) for a in range(axes))
    return BlockRotation(exponential(turned))


@jax.default_matmul_precision("highest")
def exponential(x: jax.Array) -> jax.Array:
    """exp of matrices [..., S, S], by a Taylor series of a part of them that is then squared; differentiable.

    For norms up to 2^15, in float32 within about 1e-7 times the norm; jax.scipy.linalg.expm, of another series, is up
    to 3e-3 away there (JAX 0.10.2), as it halves by one too few.
    """
    one = jnp.expand_dims(jnp.eye(x.shape[-1], dtype=x.dtype), range(x.ndim - 2))
    # Each matrix by its own norm: what a position becomes is no matter of the others.
    norm = jnp.max(jnp.sum(jnp.abs(jax.lax.stop_gradient(x)), -1, keepdims=True), -2, keepdims=True)
    times = jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(2 * norm, 1))), 0, SQUARINGS).astype(jnp.int32)
    part = x / jnp.exp2(times.astype(x.dtype))  # of a norm of at most 1/2
    found = one
    for n in range(TERMS, 0, -1):
        found = one + part @ found / n
    return jax.lax.fori_loop(0, SQUARINGS, lambda n, y: jnp.where(n < times, y @ y, y), found)
