"""Attention by kernels, and when each is legal.

Letters: B batch, T query length, S key length, N heads, K heads of keys and values, H head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, get_abstract_mesh

from rope.layers.dropout import WeightDropout
from rope.layers.masks import Segments
from rope.positions.angles import Layout
from rope.positions.buckets import RelativeBias
from rope.positions.rotary import Rotation, of_dimensions, rotate, swapping
from training.partition import device_kind, parts_of, spec

Implementation = Literal["auto", "xla", "flash", "cudnn"]  # auto, xla and the names of KERNELS
Bias = jax.Array | RelativeBias
Mask = jax.Array | Segments
Shaped = jax.Array | jax.ShapeDtypeStruct  # its shape and type are read
Turn = tuple[Rotation, Layout]  # what queries and keys are yet to be turned by


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `attention` is asked for, as far as a kernel may be unable to do it."""

    query: Shaped
    key: Shaped
    value: Shaped
    bias: Bias | None
    mask: Mask | None
    dropped: bool  # weights are dropped out
    long: bool  # the rotation is a LongRotation


@dataclass(frozen=True, kw_only=True)
class Kernel:
    problem: Callable[[Asked], str | None]  # why it cannot, in words that follow "attention by NAME"
    run: Callable[..., jax.Array]  # query, key, value, bias, mask, scale, dropout of weights, Turn -> [B, T, N, H]
    takes_values: bool  # bias and mask come as RelativeBias and Segments, or else dense
    turns: bool  # queries and keys by their positions itself; else they come turned
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


def _flash_problem(asked: Asked) -> str | None:
    if asked.long:
        return "has no ReRoPE"
    if asked.bias is not None and not isinstance(asked.bias, RelativeBias):
        return "needs its bias as rope.positions.buckets.RelativeBias"
    if asked.mask is not None and not isinstance(asked.mask, Segments):
        return "needs its mask as rope.layers.masks.Segments"
    if asked.query.dtype not in (jnp.bfloat16, jnp.float32):
        return f"computes in bfloat16 or float32, not {asked.query.dtype}"
    if len({asked.query.dtype, asked.key.dtype, asked.value.dtype}) > 1:
        return f"needs one type, not {asked.query.dtype}, {asked.key.dtype} and {asked.value.dtype}"
    if 0 in (*asked.query.shape, *asked.key.shape, *asked.value.shape):
        return "needs a row, a query and a key at least"
    rows, _, heads, _ = asked.query.shape
    if spec("batch") is not None and (rows % parts_of("batch") or heads % parts_of("heads")):
        return f"is cut by rows and heads, and {rows} rows of {heads} heads cannot be on this mesh"
    if not _has_room(asked.key, asked.value, turned=False):
        return f"has no room for {asked.key.shape[1]} keys of this size and type in a core's vector memory"
    return None


def _has_room(key: Shaped, value: Shaped, *, turned: bool) -> bool:
    from rope.layers.flash.blocks import needed, room  # Pallas takes a second to import

    size = max(key.shape[-1], value.shape[-1])
    return needed(key.shape[1], size, key.dtype.itemsize, turned=turned) <= room(device_kind())


def share(x: jax.Array, query: jax.Array) -> jax.Array:
    """[B, S, K, H] -> [B, S, N, H]: each head of keys or values for N/K heads of the queries [B, T, N, H],
    side by side."""
    b, s, groups, size = x.shape
    heads = query.shape[2]
    if heads == groups:
        return x
    copies = jnp.broadcast_to(x[:, :, :, None], (b, s, groups, heads // groups, size))
    return jax.lax.reshape(copies, (b, s, heads, size), out_sharding=jax.typeof(query).sharding)


def _cudnn_problem(asked: Asked) -> str | None:
    """All that it lacks, with the flags of trainings that mend it."""
    dtype, (_, queries, _, size), keys = asked.query.dtype, asked.query.shape, asked.key.shape[1]
    problems = {
        f"computes in bfloat16 or float16, not {dtype} (--dtype bfloat16)": dtype not in (jnp.bfloat16, jnp.float16),
        "has no dropout of its weights (--dropout 0)": asked.dropped,
        "has no ReRoPE": asked.long,
        f"needs a head size that is a multiple of 8 up to 128, not {size} (another --preset)": size % 8 or size > 128,
        f"needs even lengths, not {queries} queries and {keys} keys (--row-source and --row-target, or --length)": (
            queries % 2 or keys % 2
        ),
    }
    return ", ".join(words for words, is_so in problems.items() if is_so) or None


def _cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
    scale: float,
    _dropped: WeightDropout | None,
    _turn: Turn | None,
) -> jax.Array:
    """cuDNN's flash attention, through jax.nn, of a dense bias and mask; differentiable in the bias too."""
    whole = (query.shape[1], key.shape[1])  # it takes one value for all rows or heads, but not for all positions
    bias, mask = (x if x is None else jnp.broadcast_to(x, (*x.shape[:2], *whole)) for x in (bias, mask))
    if bias is not None:
        bias = bias.astype(query.dtype)  # as the kernel's other operands are
    return jax.nn.dot_product_attention(query, key, value, bias, mask, scale=scale, implementation="cudnn")


def _flash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: RelativeBias | None,
    mask: Segments | None,
    scale: float,
    dropped: WeightDropout | None,
    turn: Turn | None,
) -> jax.Array:
    from rope.layers.flash.bias import TILE
    from rope.layers.flash.blocks import Angles, rounded
    from rope.layers.flash.call import flash

    if turn is not None and not _has_room(key, value, turned=True):
        query, key, turn = rotate(query, *turn), rotate(key, *turn), None
    key, value = share(key, query), share(value, query)
    size = max(query.shape[-1], value.shape[-1])
    if size > TILE:
        size = rounded(size, TILE)  # registers have 128 lanes

    def padded(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, size - x.shape[-1]),))

    angles = None
    if turn is not None:
        rotation, layout = turn
        cos, sin = of_dimensions(rotation, query.shape[-1], layout)
        cos, sin = (padded(jnp.expand_dims(x, range(4 - x.ndim))).astype(jnp.float32) for x in (cos, sin))
        swap = jnp.pad(swapping(query.shape[-1], layout, query.dtype), (0, size - query.shape[-1]))
        angles = Angles(cos=cos, sin=sin, swap=swap)
    out = flash(padded(query), padded(key), padded(value), bias, mask, float(scale), dropped, angles)
    return out[..., : value.shape[-1]]


KERNELS = {
    "flash": Kernel(problem=_flash_problem, run=_flash, takes_values=True, turns=True, by_hand=True, auto_on="TPU"),
    "cudnn": Kernel(problem=_cudnn_problem, run=_cudnn, takes_values=False, turns=False, by_hand=False, auto_on=None),
}
