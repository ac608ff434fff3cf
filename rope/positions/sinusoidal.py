"""Sinusoidal positions, added to the embeddings (Vaswani et al. 2017, arXiv 1706.03762; analysed in
https://kexue.fm/archives/8231)."""

import jax
import jax.numpy as jnp

from rope.positions.angles import Layout, angles, join


def sinusoidal(positions: jax.Array, frequencies: jax.Array, layout: Layout = "interleaved") -> jax.Array:
    """The sines and cosines [..., T, 2F] of the angles of positions [..., T] (or [..., T, A])
    at frequencies [F] ([A, F]).

    interleaved: sin, cos, sin, cos, ...; half: all sines, then all cosines. The frequencies may be learned: the
    function is differentiable in them. Raises ValueError for another layout, or mismatched coordinates.
    """
    x = angles(positions, frequencies)
    return join(jnp.sin(x), jnp.cos(x), layout)
