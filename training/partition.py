"""Logical names of array dimensions, and the one table that says which mesh axes each is cut along.

Every function works without a mesh too (specifications are then None and nothing is moved), so a model runs as plain
JAX on one device. Explicit mode keeps the sharding in an array's type: `jax.typeof(x)` shows it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec, get_abstract_mesh, get_mesh

Dtype = Literal["float32", "bfloat16"]  # of a computation
AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
# Another way to cut the models is another table. Axes are named in two more places: in mesh.py, whose data_share is of
# the batch's, and in at_rest.py, which cuts weights along `data` too while no step needs them. A mesh without an axis
# cuts nothing along it.
RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("replica", "data", "fsdp"),  # each device has rows of its own, all parameters or a part
    "embed": "fsdp",  # a parameter's model dimension; activations keep it whole: no norm crosses devices
    "heads": "tensor",  # attention is computed head by head: only the product after it is summed over devices
    "mlp": "tensor",  # the same of a feed-forward layer: its second product is summed
    "vocab": "tensor",  # the largest matrices; logits are made and summed up in parts
}


def spec(*names: str | None) -> PartitionSpec | None:
    """The PartitionSpec of an array whose dimensions bear these logical names; None without a mesh of Explicit axes."""
    if AxisType.Explicit not in get_abstract_mesh().axis_types:
        return None
    check_distinct(names)
    return PartitionSpec(*(axes_of(n) if n else None for n in names))


def check_distinct(names: Sequence[str | None]) -> None:
    """Raises ValueError where two dimensions of one array would be cut along the same mesh axis."""
    cut: dict[str, str] = {}
    for name in filter(None, names):
        for axis in axes_of(name):
            if axis in cut:
                raise ValueError(f"dimensions {cut[axis]} and {name} of one array are both cut along {axis}")
            cut[axis] = name


def device_kind() -> str:
    """What the computation is traced for, in XLA's words: "cpu", "TPU v5 lite", "NVIDIA H100 80GB HBM3", …"""
    mesh = get_abstract_mesh()
    return jax.devices()[0].device_kind if mesh.empty else mesh.abstract_device.device_kind


def on_one_cpu() -> bool:
    """Is the computation traced for a single CPU (rather than an accelerator, or a mesh of CPUs as in tests)?"""
    mesh = get_abstract_mesh()
    return device_kind() == "cpu" and (mesh.empty or mesh.size == 1)


def normal(key: jax.Array, shape: tuple[int, ...], names: tuple[str | None, ...], std: float) -> jax.Array:
    """A float32 parameter drawn from N(0, std²), born in its shards; the values do not depend on the mesh."""
    return std * jax.random.normal(key, shape, jnp.float32, out_sharding=spec(*names))


def ones(shape: tuple[int, ...]) -> jax.Array:
    """A float32 parameter of ones, on every device (norm scales are too small to be worth cutting)."""
    return jnp.ones(shape, jnp.float32, out_sharding=spec(*(None for _ in shape)))


def zeros(shape: tuple[int, ...], names: tuple[str | None, ...]) -> jax.Array:
    """A float32 parameter of zeros, such as a bias."""
    return jnp.zeros(shape, jnp.float32, out_sharding=spec(*names))


def weights(tree: Any) -> Any:
    """True for the arrays of a model that are weights, by their names: all but those with `norm` or `bias` in them,
    scales and offsets that are small beside what products take."""

    def is_weight(path: tuple, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/").lower()
        return "norm" not in name and "bias" not in name

    return jax.tree.map_with_path(is_weight, tree)


def size_of(init: Callable[[jax.Array], Any]) -> int:
    """How many parameters `init` makes of a key, by shapes alone."""
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))))


def gather(weight: jax.Array, *names: str | None, dtype: jnp.dtype | None = None) -> jax.Array:
    """The weight as a product needs it: cast, then whole along `embed` (the all-gather of FSDP), cut along the rest.

    Its transpose is the reduce-scatter of the gradient.
    """
    weight = weight if dtype is None else weight.astype(dtype)
    to = spec(*(None if n == "embed" else n for n in names))
    return weight if to is None else jax.reshard(weight, to)


def replicate(x: jax.Array) -> jax.Array:
    """The array whole on every device."""
    to = spec(*(None for _ in x.shape))
    return x if to is None else jax.reshard(x, to)


def abstract(make: Callable[[], Any]) -> Any:
    """The shapes and shardings of what `make()` returns, under the mesh that is set; nothing is computed."""
    mesh = get_mesh()

    def leaf(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = x.sharding.spec if isinstance(x.sharding, NamedSharding) else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(leaf, jax.eval_shape(make))


def place(arrays: Any, like: Any) -> Any:
    """Arrays of the host, whole on every process, in the shards that `like` (see `abstract`) says;
    without a mesh, on the device."""
    if get_mesh().empty:
        return jax.tree.map(lambda x, to: jnp.asarray(x, to.dtype), arrays, like)

    def leaf(x: np.ndarray, to: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(to.shape, to.sharding, lambda index: np.asarray(x[index], to.dtype))

    return jax.tree.map(leaf, arrays, like)


def parts_of(name: str, mesh: AnyMesh | None = None) -> int:
    """Into how many parts a mesh, by default the one that is set, cuts a dimension of this logical name."""
    mesh = get_abstract_mesh() if mesh is None else mesh
    return math.prod(mesh.shape[axis] for axis in axes_of(name, mesh))


def axes_of(name: str, mesh: AnyMesh | None = None) -> tuple[str, ...]:
    """The axes of a mesh, by default the one that is set, along which it cuts a dimension of this logical name."""
    axes, there = RULES[name], (get_abstract_mesh() if mesh is None else mesh).shape
    return tuple(axis for axis in ((axes,) if isinstance(axes, str) else axes) if axis in there)


def to_host(tree: Any) -> Any:
    """The arrays of a mesh, whole, as NumPy arrays; every process calls it and gets all."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def check_divisible(mesh: jax.sharding.Mesh, sizes: dict[str, tuple[str, int]]) -> None:
    """Raises ValueError for a dimension that the mesh cannot cut evenly.

    sizes: what a person calls the dimension -> (its logical name, its size); a batch dimension is `batch`.
    """
    for label, (name, size) in sizes.items():
        if size % (parts := parts_of(name, mesh)):
            raise ValueError(
                f"impossible mesh {tuple(mesh.shape.values())}: {label} = {size} is not a multiple of "
                f"{' x '.join(axes_of(name, mesh))} = {parts}; change the mesh or {label}"
            )
