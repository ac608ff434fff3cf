"""Weights and the optimizer's moments as they lie between steps: cut along `data` too, so that each device updates its
part of them alone (ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054, section 5).

A step collects the weights once, in the type that products take, half the bytes of float32 where that is bfloat16, and
spreads their gradient; on a mesh without `data`, or without a mesh, both move nothing. Norm scales and biases stay
whole: they are too small to be worth cutting.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec, get_abstract_mesh

from training.partition import weights

AXIS = "data"


def spread(tree: Any) -> Any:
    """The arrays of a model, or their gradients, as they lie at rest."""
    cut = lambda x, is_weight: _reshard(x, _spread(x)) if is_weight else x  # noqa: E731
    return jax.tree.map(cut, tree, weights(tree)) if _parts() > 1 else tree


def as_accumulated(gradients: Any) -> Any:
    """Gradients as they are added up: in float32, each device's part of them. Of what is so already, the same."""
    return spread(jax.tree.map(lambda g: g.astype(jnp.float32), gradients))


def collect(model: Any, dtype: jnp.dtype | None = None) -> Any:
    """The model as a loss takes it: no array is cut along `data`. dtype: that of the weights, by default their own."""

    def whole(x: jax.Array, is_weight: bool) -> jax.Array:
        x = x.astype(dtype) if is_weight and dtype is not None else x
        return _reshard(x, PartitionSpec(*map(_without, jax.typeof(x).sharding.spec))) if _parts() > 1 else x

    return jax.tree.map(whole, model, weights(model))


def _parts() -> int:
    mesh = get_abstract_mesh()
    return mesh.shape[AXIS] if AxisType.Explicit in mesh.axis_types else 1


def _spread(x: jax.Array) -> PartitionSpec:
    """Along the first dimension that can be cut so, the last one only where no other can: the shards of others are
    copied whole rows at a time, and fill whole registers."""
    sharding = jax.typeof(x).sharding
    spec = [_axes(part) for part in sharding.spec]
    for n in (*range(x.ndim - 1), x.ndim - 1) if AXIS not in sum(spec, ()) else ():
        if x.shape[n] % (_parts() * math.prod(sharding.mesh.shape[axis] for axis in spec[n])) == 0:
            spec[n] = (*spec[n], AXIS)
            break
    return PartitionSpec(*map(_entry, spec))


def _without(part: Any) -> Any:
    return _entry(tuple(axis for axis in _axes(part) if axis != AXIS))


def _axes(part: Any) -> tuple[str, ...]:
    """Of a dimension, by its entry in a specification."""
    return () if part is None else (part,) if isinstance(part, str) else tuple(part)


def _entry(axes: tuple[str, ...]) -> Any:
    return axes if len(axes) > 1 else next(iter(axes), None)


def _reshard(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    return x if jax.typeof(x).sharding.spec == spec else jax.reshard(x, spec)
