"""What the models of this project are built of: products over a mesh, norms, the recomputation of layers.

Letters: B batch, T positions, D model, F any inner dimension.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from training.partition import device_kind, gather, normal, on_one_cpu, ones, spec, zeros

Remat = Literal["none", "dots", "full", "auto"]
# What `dots` saves, by the names that jax.checkpoint knows it by; the flash kernel names its output itself.
PRODUCT, STREAM, STATISTIC, ATTENTION = "product", "stream", "statistic", "attention"


@struct.dataclass
class Linear:
    kernel: jax.Array  # [..., D, F]; kernels stay 2-D so that Adafactor factors them
    bias: jax.Array  # [..., F]


@struct.dataclass
class Norm:
    scale: jax.Array  # [..., D]
    bias: jax.Array  # [..., D]


def init_linear(key: jax.Array, shape: tuple[int, ...], names: tuple[str | None, ...], std: float) -> Linear:
    """A kernel [..., D, F] of N(0, std²), of these logical names for D and F, and a bias of zeros."""
    lead = (None,) * (len(shape) - 2)
    cut = None if names[1] == "embed" else names[1]
    return Linear(normal(key, shape, (*lead, *names), std), zeros((*shape[:-2], shape[-1]), (*lead, cut)))


def init_norm(shape: tuple[int, ...]) -> Norm:
    return Norm(ones(shape), zeros(shape, (None,) * len(shape)))


def matmul(x: jax.Array, kernel: jax.Array, names: tuple[str | None, str | None]) -> jax.Array:
    """[B, T, D] and a kernel [D, F] of these logical names -> [B, T, F], summed over the devices that D is cut over.

    As a product of matrices: with three dimensions XLA transposes the larger operand for the kernel's gradient, which
    on a CPU takes as long as the product.
    """
    flat = x.reshape(-1, x.shape[-1])
    cut = None if names[1] == "embed" else names[1]
    out = jnp.matmul(flat, gather(kernel, *names, dtype=x.dtype), out_sharding=spec("batch", cut))
    out = jax.lax.reshape(out, (*x.shape[:2], out.shape[1]), out_sharding=spec("batch", None, cut))
    return checkpoint_name(out, PRODUCT)


def linear(x: jax.Array, p: Linear, names: tuple[str | None, str | None]) -> jax.Array:
    """x kernel + bias: [B, T, D] -> [B, T, F]."""
    return matmul(x, p.kernel, names) + p.bias.astype(x.dtype)[None, None]


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, T, N H] -> [B, T, N, H], cut along N (of one head JAX would take H)."""
    shape = (*x.shape[:2], heads, x.shape[2] // heads)
    return jax.lax.reshape(x, shape, out_sharding=spec("batch", None, "heads", None))


@jax.named_scope("norm")
def layer_norm(x: jax.Array, p: Norm, epsilon: float) -> jax.Array:
    """(x - mean) / std * scale + bias over the last dimension: [..., D] -> [..., D], in float32, returned in x's
    type."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, -1, keepdims=True)
    scale, bias = (jnp.expand_dims(a, range(x.ndim - 1)) for a in (p.scale, p.bias))
    normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + epsilon)
    return (normed * scale + bias).astype(x.dtype)


@jax.named_scope("norm")
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """x / rms(x) * scale over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467): [..., D] -> [..., D], of
    a scale [D], in float32, returned in x's type."""
    x32, scale = x.astype(jnp.float32), jnp.expand_dims(scale, range(x.ndim - 1))
    inverse = checkpoint_name(jax.lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + epsilon), STATISTIC)
    return (x32 * inverse * scale).astype(x.dtype)


def recomputed(body: Callable, remat: Remat) -> Callable:
    """The body of a scan over layers, of which the backward pass recomputes nothing, all but products of weights,
    attention by a kernel and what `stream` names (dots), or all (full); auto is dots on a TPU, else none."""
    if remat == "auto":  # a TPU writes what none saves to HBM and reads it again, which takes longer: docs/plan.md
        remat = "dots" if device_kind().startswith("TPU") else "none"
    if remat == "none":
        return body
    save = jax.checkpoint_policies.save_only_these_names(PRODUCT, STREAM, STATISTIC, ATTENTION)
    # Two loops are never merged, so nothing need prevent it: barriers would keep slices of weights, and of what is
    # saved, out of the products that read them. On one CPU the layers are no loop.
    return jax.checkpoint(body, policy=save if remat == "dots" else None, prevent_cse=on_one_cpu())


def stream(x: jax.Array) -> jax.Array:
    """The same. Within a layer, what residual sums come to: as large as the product in it, and nearer to the end."""
    return checkpoint_name(x, STREAM)
