"""Flash attention as a function of arrays, differentiable, on every mesh.

Letters: B batch, T query length, S key length, N heads, H head size, G groups of heads.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rope.layers.dropout import WeightDropout
from rope.layers.flash import bias as biases
from rope.layers.flash import blocks, kernel
from rope.layers.flash.blocks import Angles, Gradients, Kept, Layout, Operands, Running, Sums, Turned, rounded
from rope.layers.masks import Segments
from rope.layers.primitives import ATTENTION
from rope.positions.buckets import RelativeBias
from training.partition import device_kind, spec


def flash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: RelativeBias | None,
    mask: Segments | None,
    scale: float,
    dropped: WeightDropout | None,
    angles: Angles | None,
) -> jax.Array:
    """Attention [B, T, N, H] of query [B, T, N, H], key and value [B, S, N, H], each device with its rows and heads.

    angles: by which queries and keys are turned; cos and sin are [B or 1, T, N or 1, H] here, swap [H, H].
    """
    queries, keys, causal = query.shape[1], key.shape[1], mask is not None and mask.causal
    by_place = bias is not None and bias.places is not None
    learned = bias is not None and not by_place
    extra: dict[str, jax.Array] = {}
    low = 0
    if learned or causal:
        extra["tiles"] = biases.tiles(bias if learned else None, causal, queries, keys)
    if bias is not None and bias.places is not None:
        extra["strip"], low = biases.strip(bias)
        extra["places"] = bias.places
    if mask is not None:
        extra |= {"query_segments": mask.query, "key_segments": mask.key}
    if dropped is not None:
        extra |= {"rows": dropped.rows, "columns": dropped.columns}
    rate = 0.0 if dropped is None else dropped.rate
    on_device = partial(_on_device, scale=scale, rate=rate, causal=causal, learned=learned, low=low)
    heads = spec("batch", None, "heads", None)
    if heads is None:
        return on_device(query, key, value, extra, angles)
    cuts = {
        "tiles": spec("heads" if learned else None, None, None, None),
        "strip": spec("heads", None, None),
        "columns": spec("batch", "heads", None),
    }
    turned = None
    if angles is not None:
        rows, _, number, _ = angles.cos.shape
        one = spec("batch" if rows > 1 else None, None, "heads" if number > 1 else None, None)
        turned = Angles(cos=one, sin=one, swap=spec(None, None))
        angles = jax.tree.map(jax.reshard, angles, turned)
    cut = {name: cuts.get(name, spec("batch", None)) for name in extra}
    as_given = jax.typeof(query).sharding.spec
    query, key, value, extra = jax.tree.map(jax.reshard, (query, key, value, extra), (heads, heads, heads, cut))
    by_hand = jax.shard_map(on_device, in_specs=(heads, heads, heads, cut, turned), out_specs=heads, check_vma=False)
    return jax.reshard(by_hand(query, key, value, extra, angles), as_given)


def _on_device(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    extra: dict[str, jax.Array],
    angles: Angles | None,
    *,
    scale: float,
    rate: float,
    causal: bool,
    learned: bool,
    low: int,
) -> jax.Array:
    """What `flash` says, on one device; everything is laid out and padded for the kernel."""
    rows, real_queries, number, size = query.shape
    block, queries, chunk, keys = blocks.lengths(real_queries, key.shape[1])
    heads, flat = blocks.groups(number, size)
    layout = Layout(
        scale=scale,
        rate=rate,
        heads=heads,
        size=size,
        flat=flat,
        queries=block,
        blocks=queries // block,
        keys=keys,
        real=key.shape[1],
        chunk=chunk,
        causal=causal,
        low=low,
        learned=learned,
        interpreted=not device_kind().startswith("TPU"),
    )
    out = checkpoint_name(_flash(layout, _laid_out(layout, query, key, value, extra, angles)), ATTENTION)
    if flat:
        return out[:, :real_queries].reshape(rows, real_queries, number, size)
    return out[:, :, :real_queries].swapaxes(1, 2)


def _laid_out(
    n: Layout, query: jax.Array, key: jax.Array, value: jax.Array, extra: dict[str, jax.Array], angles: Angles | None
) -> Operands:
    rows, _, number, size = query.shape
    queries = n.blocks * n.queries

    def laid(x: jax.Array, length: int) -> jax.Array:
        more = (0, length - x.shape[1])
        if n.flat:  # padded as it lies: with heads as a dimension it would be copied there and back
            return jnp.pad(x.reshape(*x.shape[:2], number * size), ((0, 0), more, (0, 0)))
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), more, (0, 0)))

    def row(name: str, length: int) -> jax.Array | None:
        x = extra.get(name)
        return None if x is None else jnp.pad(x, ((0, 0), (0, length - x.shape[1])))[:, None]

    def of_groups(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, max(queries, n.keys) - x.shape[1]), (0, 0), (0, 0)))
        if x.shape[2] == 1:
            return jnp.tile(x, (1, 1, 1, n.heads)).swapaxes(1, 2)
        return x.reshape(*x.shape[:2], number // n.heads, n.width).swapaxes(1, 2)

    if angles is not None:
        swap = jnp.kron(jnp.eye(n.heads, dtype=query.dtype), angles.swap)
        angles = Angles(cos=of_groups(angles.cos), sin=of_groups(angles.sin), swap=swap)
    columns = extra.get("columns")
    if columns is not None:
        columns = jnp.pad(columns, ((0, 0), (0, 0), (0, n.keys - n.real)))
        columns = columns.reshape(rows, number // n.heads, n.heads, n.keys)
    whole = rounded(queries, biases.TILE)
    return Operands(
        query=laid(query, queries),
        key=laid(key, n.keys),
        value=laid(value, n.keys),
        query_segments=row("query_segments", whole),
        key_segments=row("key_segments", n.keys),
        tiles=extra.get("tiles"),
        strip=extra.get("strip"),
        places=row("places", whole),
        rows=row("rows", whole),
        columns=columns,
        angles=angles,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(layout: Layout, x: Operands) -> jax.Array:
    """[B, T, N H] or [B, N, T, H], as the query is laid out."""
    return _forward(layout, x)[0]


def _forward(layout: Layout, x: Operands) -> tuple[jax.Array, jax.Array]:
    n, groups = layout, blocks.size_of_grid(x, layout)[0]
    length = n.blocks * rounded(n.queries, biases.TILE)
    statistics = jax.ShapeDtypeStruct((len(x.query), groups, 2 * n.heads, length), jnp.float32)
    column = pltpu.VMEM((n.heads, n.queries, biases.TILE), jnp.float32)
    mixed = pltpu.VMEM((n.heads, n.queries, n.width), jnp.float32)
    return _call(
        partial(kernel.forward, n),
        (x,),
        (blocks.operands(x, n),),
        (jax.ShapeDtypeStruct(x.query.shape, x.query.dtype), statistics),
        (blocks.by_query(n), blocks.kept_statistics(n)),
        (Running(top=column, total=column, mixed=mixed) if n.chunks > 1 else None, _room_to_turn(n, x)),
        layout,
        "flash_forward",
    )


def _flash_forward(layout: Layout, x: Operands) -> tuple[jax.Array, tuple[Operands, Kept]]:
    out, statistics = checkpoint_name(_forward(layout, x), ATTENTION)
    return out, (x, Kept(out, statistics))


def _flash_backward(layout: Layout, residuals: tuple[Operands, Kept], cotangent: jax.Array) -> tuple[Operands]:
    n, (x, saved) = blocks.halved(layout), residuals
    like = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype)  # noqa: E731
    strip = None
    if x.strip is not None:
        strip = jax.ShapeDtypeStruct((len(x.strip), x.strip.shape[1] + 2, 8, biases.TILE), jnp.float32)
    shapes = Gradients(
        query=like(x.query),
        key=like(x.key),
        value=like(x.value),
        tiles=like(x.tiles) if x.tiles is not None and n.learned else None,
        strip=strip,
    )
    by_head = lambda a: None if a is None else blocks.whole(a, n.heads)  # noqa: E731
    specs = Gradients(
        query=blocks.by_query(n),
        key=blocks.by_key(n),
        value=blocks.by_key(n),
        tiles=by_head(shapes.tiles),
        strip=by_head(shapes.strip),
    )
    of_query, of_keys = (pltpu.VMEM((length, n.width), jnp.float32) for length in (n.queries, n.keys))
    sums = Sums(
        query=of_query if n.chunks > 1 else None,
        key=of_keys if n.blocks > 1 else None,
        value=of_keys if n.blocks > 1 else None,
    )
    kept_specs = Kept(out=blocks.by_query(n), statistics=blocks.kept_statistics(n))
    found = _call(
        partial(kernel.backward, n),
        (x, cotangent, saved),
        (blocks.operands(x, n), blocks.by_query(n), kept_specs),
        shapes,
        specs,
        (sums, _room_to_turn(n, x)),
        n,
        "flash_backward",
    )
    of_strip = None if found.strip is None else biases.strip_gradient(found.strip)
    of_angles = None if x.angles is None else _of_angles(n, x.angles, (x.query, x.key), (found.query, found.key))
    given = Operands(query=found.query, key=found.key, value=found.value, tiles=found.tiles, strip=of_strip)
    return (replace(given, angles=of_angles),)


def _room_to_turn(n: Layout, x: Operands) -> Turned | None:
    if x.angles is None:
        return None
    return Turned(*(pltpu.VMEM((length, n.width), x.query.dtype) for length in (n.queries, n.keys)))


def _of_angles(n: Layout, by: Angles, turned: tuple, gradients: tuple) -> Angles:
    """The gradients of cos and sin, of queries and keys and theirs, where frequencies are learned; else nobody reads
    them, and the compiler leaves them out.

    What was turned and lengthened by m became something whose gradient is m^-2 times its own gradient turned.
    """

    def turn(rows: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        rows = rows.astype(jnp.float32)
        rows = rows.reshape(*rows.shape[:2], -1, n.width).swapaxes(1, 2) if n.flat else rows
        swap = by.swap.astype(jnp.float32)
        partners = jnp.einsum("BGTW,WV->BGTV", rows, swap, precision=jax.lax.Precision.HIGHEST)
        return rows * cos[:, :, : rows.shape[2]] + partners * sin[:, :, : rows.shape[2]]

    def both(rows: tuple, cos: jax.Array, sin: jax.Array) -> list[jax.Array]:
        return [turn(r, cos, sin) for r in rows]

    square = by.cos**2 + by.sin**2
    square = jnp.where(square > 0, square, 1)  # of padding
    given = [g / square[:, :, : g.shape[2]] for g in both(gradients, by.cos, by.sin)]
    cos, sin = jax.vjp(partial(both, turned), by.cos, by.sin)[1](given)
    return Angles(cos=cos, sin=sin, swap=None)


_flash.defvjp(_flash_forward, _flash_backward)


def _call(
    run: Callable, operands: tuple, specs: tuple, shapes: Any, out_specs: Any, scratch: Any, layout: Layout, name: str
) -> Any:
    """`run(*operands, *results, scratch)` over the grid; what is None is None there too."""
    leaves, tree = jax.tree.flatten((operands, shapes, scratch))

    def flat(*refs: jax.Ref) -> None:
        operands, results, scratch = jax.tree.unflatten(tree, refs)
        run(*operands, *(results if isinstance(results, tuple) else (results,)), scratch)

    given, made = jax.tree.leaves(operands), jax.tree.leaves(shapes)
    found = pl.pallas_call(
        flat,
        grid=blocks.size_of_grid(operands[0], layout),
        in_specs=jax.tree.leaves(specs),
        out_specs=jax.tree.leaves(out_specs),
        out_shape=made,
        scratch_shapes=leaves[len(given) + len(made) :],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=blocks.MOST
        ),
        interpret=layout.interpreted,
        name=name + "_causal" * layout.causal,  # a plan knows kernels by their names and shapes
    )(*given)
    return jax.tree.unflatten(jax.tree.structure(shapes), found)
