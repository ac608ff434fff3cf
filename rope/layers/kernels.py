"""Attention by the kernels of others, and when each is legal.

Letters: B batch, T query length, S key length, N heads, K heads of keys and values, H head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, get_abstract_mesh

from rope.layers.masks import Segments
from rope.positions.buckets import RelativeBias
from training.partition import device_kind, spec

Implementation = Literal["auto", "xla", "splash", "cudnn"]  # auto, xla and the names of KERNELS
Bias = jax.Array | RelativeBias
Mask = jax.Array | Segments
Shaped = jax.Array | jax.ShapeDtypeStruct  # its shape and type are read
LANES = 128  # of a TPU's vector registers: lengths must be multiples of it


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `attention` is asked for, as far as a kernel may be unable to do it."""

    query: Shaped
    key: Shaped
    bias: Bias | None
    mask: Mask | None
    dropped: bool  # weights are dropped out
    long: bool  # the rotation is a LongRotation


@dataclass(frozen=True, kw_only=True)
class Kernel:
    problem: Callable[[Asked], str | None]  # why it cannot, in words that follow "attention by NAME"
    run: Callable[..., jax.Array]  # query, key, value, bias, mask and scale -> [B, T, N, H]
    takes_values: bool  # bias and mask come as RelativeBias and Segments, or else dense
    by_hand: bool  # cut over a mesh by shard_map, which the compiler's own (Auto) axes do not allow
    auto_on: str | None  # the kind of device on which auto is this kernel where it is legal


def choose(wanted: Implementation, asked: Asked) -> Kernel | None:
    """The kernel, or None for plain XLA. Raises ValueError where `wanted` is not legal for what is asked."""
    if wanted == "auto":
        legal = (k for k in KERNELS.values() if k.auto_on and device_kind().startswith(k.auto_on))
        return next((k for k in legal if not _problem(k, asked)), None)
    if wanted == "xla":
        return None
    if wanted not in KERNELS:
        raise ValueError(f"implementation is {wanted!r}: it must be auto, xla, {', '.join(KERNELS)}")
    if problem := _problem(KERNELS[wanted], asked):
        raise ValueError(f"attention by {wanted} {problem}; use xla")
    return KERNELS[wanted]


def _problem(kernel: Kernel, asked: Asked) -> str | None:
    mesh = get_abstract_mesh()
    auto = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto]
    if kernel.by_hand and any(mesh.shape[name] > 1 for name in auto):
        return f"cannot be cut over a mesh of Auto axes ({', '.join(auto)}), as decoding has them"
    return kernel.problem(asked)


def _splash_problem(asked: Asked) -> str | None:
    if asked.bias is not None or asked.dropped or asked.long:
        return "has no bias, no dropout of its weights and no ReRoPE"
    if asked.mask is not None and not isinstance(asked.mask, Segments):
        return "needs its mask as rope.layers.masks.Segments"
    queries, keys = asked.query.shape[1], asked.key.shape[1]
    if queries % LANES or keys % LANES:
        return f"needs lengths that are multiples of {LANES}, not {queries} and {keys}"
    return None


def _cudnn_problem(asked: Asked) -> str | None:
    if asked.dropped or asked.long:
        return "has no dropout of its weights and no ReRoPE"
    if asked.query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in bfloat16 or float16, not {asked.query.dtype}"
    size = asked.query.shape[-1]
    if size % 8 or size > 128:
        return f"needs a head size that is a multiple of 8 up to 128, not {size}"
    return None


def _cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
    scale: float,
) -> jax.Array:
    """cuDNN's flash attention, through jax.nn, of a dense bias and mask; differentiable in the bias too."""
    return jax.nn.dot_product_attention(query, key, value, bias, mask, scale=scale, implementation="cudnn")


def _splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    _: Bias | None,
    mask: Mask | None,
    scale: float,
) -> jax.Array:
    """JAX's Pallas kernel for TPUs, on each device's rows and heads; scores are never in memory. `choose` lets no bias
    and no dense mask come here."""
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


KERNELS = {
    "splash": Kernel(problem=_splash_problem, run=_splash, takes_values=True, by_hand=True, auto_on="TPU"),
    "cudnn": Kernel(problem=_cudnn_problem, run=_cudnn, takes_values=False, by_hand=False, auto_on=None),
}
