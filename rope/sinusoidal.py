"""Sinusoidal positions, added to the embeddings (Vaswani et al. 2017, arXiv 1706.03762; analysed in
https://kexue.fm/archives/8231)."""

from typing import Literal

import jax
import jax.numpy as jnp

from rope.angles import angles

Layout = Literal["interleaved", "half"]


def sinusoidal(positions: jax.Array, frequencies: jax.Array, layout: Layout = "interleaved") -> jax.Array:
    """The sines and cosines [..., T, 2F] of the angles of positions [..., T] (or [..., T, A]) at frequencies [F] ([A, F]).

    interleaved: sin, cos, sin, cos, ...; half: all sines, then all cosines. The frequencies may be learned: the function is
    differentiable in them. Raises ValueError for another layout, or mismatched coordinates.
    """
    x = angles(positions, frequencies)
    return join(jnp.sin(x), jnp.cos(x), layout)


def join(first: jax.Array, second: jax.Array, layout: Layout) -> jax.Array:
    """Two [..., F] as the first and the second of every pair of dimensions: [..., 2F]."""
    check_layout(layout)
    if layout == "half":
        return jnp.concatenate([first, second], -1)
    return jnp.stack([first, second], -1).reshape(*first.shape[:-1], -1)


def check_layout(layout: str) -> None:
    if layout not in ("interleaved", "half"):
        raise ValueError(
            f"layout is {layout!r}: it must be interleaved (pairs side by side) or half (halves of a head)"
        )
