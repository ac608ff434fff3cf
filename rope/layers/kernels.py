"""Attention by the kernels of others, and when each is legal.

Letters: B batch, T query length, S key length, N heads, K heads of keys and values, H head size.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from rope.layers.masks import Segments
from rope.positions.buckets import RelativeBias
from training.partition import device_kind, spec

Implementation = Literal["auto", "xla", "splash", "cudnn"]
Bias = jax.Array | RelativeBias
Mask = jax.Array | Segments
Shaped = jax.Array | jax.ShapeDtypeStruct  # its shape and type are read
LANES = 128  # of a TPU's vector registers: lengths must be multiples of it


def choose(
    wanted: Implementation,
    query: Shaped,
    key: Shaped,
    *,
    bias: Bias | None,
    mask: Mask | None,
    dropped: bool,
    long: bool,
) -> str:
    """xla, splash or cudnn. Raises ValueError where `wanted` is not legal for these arguments of `attention`."""
    problems: dict[str, Callable[..., str | None]] = {
        "xla": lambda *_: None,
        "splash": _splash_problem,
        "cudnn": _cudnn_problem,
    }
    if wanted == "auto":
        on_tpu = device_kind().startswith("TPU")
        return "splash" if on_tpu and not _splash_problem(query, key, bias, mask, dropped, long) else "xla"
    if wanted not in problems:
        raise ValueError(f"implementation is {wanted!r}: it must be auto, {', '.join(problems)}")
    if problem := problems[wanted](query, key, bias, mask, dropped, long):
        raise ValueError(f"attention by {wanted} {problem}; use xla")
    return wanted


def _splash_problem(
    query: Shaped, key: Shaped, bias: Bias | None, mask: Mask | None, dropped: bool, long: bool
) -> str | None:
    if bias is not None or dropped or long:
        return "has no bias, no dropout of its weights and no ReRoPE"
    if mask is not None and not isinstance(mask, Segments):
        return "needs its mask as rope.layers.masks.Segments"
    if query.shape[1] % LANES or key.shape[1] % LANES:
        return f"needs lengths that are multiples of {LANES}, not {query.shape[1]} and {key.shape[1]}"
    return None


def _cudnn_problem(
    query: Shaped, key: Shaped, bias: Bias | None, mask: Mask | None, dropped: bool, long: bool
) -> str | None:
    if dropped or long:
        return "has no dropout of its weights and no ReRoPE"
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in bfloat16 or float16, not {query.dtype}"
    if query.shape[-1] % 8 or query.shape[-1] > 128:
        return f"needs a head size that is a multiple of 8 up to 128, not {query.shape[-1]}"
    return None


def cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
    scale: float,
) -> jax.Array:
    """cuDNN's flash attention, through jax.nn, of a dense bias and mask; differentiable in the bias too."""
    return jax.nn.dot_product_attention(query, key, value, bias, mask, scale=scale, implementation="cudnn")


def splash(query: jax.Array, key: jax.Array, value: jax.Array, mask: Mask | None, scale: float) -> jax.Array:
    """JAX's Pallas kernel for TPUs, on each device's rows and heads; scores are never in memory. `choose` lets no dense
    mask come here."""
    from jax.experimental.pallas.ops.tpu import splash_attention as sa

    causal = isinstance(mask, Segments) and mask.causal
    shape = (query.shape[1], key.shape[1])
    interpreted = not device_kind().startswith("TPU")  # by XLA: as exact, and slow

    def on_device(query, key, value, *segments):
        heads = query.shape[2]
        seen = (sa.CausalMask if causal else sa.FullMask)(shape)
        kernel = sa.make_splash_mha_single_device(sa.MultiHeadMask([seen] * heads), interpret=interpreted)
        rows = (x.swapaxes(1, 2) for x in (query, key, value))
        ids = sa.SegmentIds(*segments) if segments else None
        return jax.vmap(kernel)(*rows, ids).swapaxes(1, 2)

    segments = (mask.query, mask.key) if isinstance(mask, Segments) else ()
    operands = (query * scale, key, value, *segments)
    cut = spec("batch", None, "heads", None)
    if cut is None:
        return on_device(*operands)
    specs = (cut,) * 3 + (spec("batch", None),) * len(segments)
    return jax.shard_map(on_device, in_specs=specs, out_specs=cut, check_vma=False)(*operands)
