"""Whitening of sentence vectors: mean 0, covariance the identity,
the first directions the strongest (Su et al. 2021, arXiv 2103.15316).

One pass over the vectors in pieces, merged as Chan, Golub and LeVeque (1979) do, so that memory does not grow with
their number and a large common part loses no digits. The generalisation by (beta, gamma):
https://kexue.fm/archives/9079.

Letters: n vectors, D their dimensions, K those that are kept.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from scipy.linalg import eigh
from scipy.linalg.blas import dsyr
from threadpoolctl import threadpool_limits

from retrieval.vectors.arrays import check_finite, open_vectors
from training.arrays import reals
from training.files.atomic import atomic_write
from training.files.buckets import disk_path, path_of
from training.files.errors import DataError
from training.files.weights import fingerprint, open_safetensors, read, write_safetensors
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.partition import axes_of, on_one_cpu, parts_of
from training.ranges import check_lists, check_number, check_ranges
from training.telling import tell

PIECE = 8192  # rows whose products are summed in float32 before they go into the float64 sums
BLOCK = 2048  # of which so many are centred and multiplied at a time
SAMPLE = 64  # rows whose mean is near enough to that of a piece
NULL = 1e-7  # a variance below this share of the largest is what float32 leaves of none


@dataclass(frozen=True)
class Moments:
    """What is kept of the vectors seen so far: their number, mean [D], and of the sum of (x - mean)(x - mean)^T [D, D]
    the upper triangle; what is below it has no meaning."""

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        """Of the vectors of both."""
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = np.add(self.scatter, other.scatter, order="F")
        scatter = dsyr(self.count * other.count / count, apart, a=scatter, overwrite_a=True)
        return Moments(count, self.mean + apart * (other.count / count), scatter)


def moments(pieces: Iterable[np.ndarray], where: str = "vectors") -> Moments:
    """Of all rows of the pieces [m, D], each read once, a few times PIECE rows at a time.

    Under a mesh of several devices each takes its part of the rows; on one CPU each core takes rows of its own. Raises
    DataError, which names `where` and the row, for a number that is not finite, and for no vector at all.
    """
    on_host = on_one_cpu()
    product = _on_host if on_host else partial(_on_mesh, mesh=_mesh())
    # A core's product with one thread: what is done to the rows before it would leave the other cores idle.
    cores = min(len(os.sched_getaffinity(0)), 8) if on_host else 1
    total: Moments | None = None
    with threadpool_limits(1, "blas") if on_host else nullcontext(), ThreadPoolExecutor(cores) as pool:
        waiting: deque[Future[Moments]] = deque()
        for first, rows in _cut(pieces):
            waiting.append(pool.submit(_checked, product, rows, first, where))
            if len(waiting) > cores:
                total = _sum(total, waiting.popleft().result())
        while waiting:
            total = _sum(total, waiting.popleft().result())
    if total is None:
        raise DataError("no vector to fit a whitening on; give one or more")
    return total


def _sum(total: Moments | None, found: Moments) -> Moments:
    return found if total is None else total + found


def _cut(pieces: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, at most PIECE rows) of each."""
    first, width = 0, None
    for piece in pieces:
        width = width or piece.shape[-1]
        if piece.ndim != 2 or piece.shape[1] != width:
            raise DataError(f"vectors of shape {piece.shape}: they must be rows of {width} numbers, as those before")
        for start in range(0, len(piece), PIECE):
            yield first + start, np.asarray(piece[start : start + PIECE], np.float32)
        first += len(piece)


def _checked(product: Callable[[np.ndarray], Moments], rows: np.ndarray, first: int, where: str) -> Moments:
    found = product(rows)
    if not np.isfinite(found.scatter.trace()):
        check_finite(rows, first, where)
        raise DataError(f"{where}: from row {first + 1} on too large for float32; scale them down")
    return found


def _mesh() -> jax.sharding.Mesh:
    mesh = jax.sharding.get_mesh()
    return make_mesh(MeshConfig()) if mesh.empty else mesh


def _on_host(rows: np.ndarray) -> Moments:
    # About a mean of a few rows, near enough to lose no digits:
    # each block is in the cache while it is centred and multiplied.
    count, shift = len(rows), rows[:: -(-len(rows) // SAMPLE)].mean(0)
    scatter, total = np.zeros((rows.shape[1], rows.shape[1]), np.float32), np.zeros(rows.shape[1])
    room = np.empty((min(BLOCK, count), rows.shape[1]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at, once
        for first in range(0, count, BLOCK):
            block = rows[first : first + BLOCK]
            centred = np.subtract(block, shift, out=room[: len(block)])
            total += np.ones(len(block), np.float32) @ centred
            # NumPy computes one triangle of this, and lets other threads run, which scipy's ssyrk does not.
            scatter += centred.T @ centred
    rest = total / count
    return Moments(count, shift + rest, dsyr(-count, rest, a=scatter.astype(np.float64), overwrite_a=True))


@jax.jit
def _centred_products(rows: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of rows [m, D] cut over the mesh, those of weight 1: mean [D] and scatter [D, D], on every device."""
    mean = jnp.einsum("M,MD->D", weights, rows, precision="highest", out_sharding=PartitionSpec()) / weights.sum()
    centred = (rows - mean[None]) * weights[:, None]
    return mean, jnp.einsum("MD,ME->DE", centred, centred, precision="highest", out_sharding=PartitionSpec())


def _on_mesh(rows: np.ndarray, mesh: jax.sharding.Mesh) -> Moments:
    room = -(-PIECE // parts_of("batch", mesh)) * parts_of("batch", mesh)
    padded = np.zeros((room, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    weights = (np.arange(room) < len(rows)).astype(np.float32)
    sharding = NamedSharding(mesh, PartitionSpec(axes_of("batch", mesh)))
    with jax.set_mesh(mesh):
        mean, scatter = _centred_products(*(jax.device_put(x, sharding) for x in (padded, weights)))
    return Moments(len(rows), np.asarray(mean, np.float64), np.asarray(scatter, np.float64))


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) kernel, of rows [..., D] or of one vector [D]."""

    mean: np.ndarray  # float32 [D]
    kernel: np.ndarray  # float32 [D, K]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [..., K]. Raises DataError for vectors of another width, ValueError for what is no real number."""
        vectors = np.asarray(reals(vectors, "vectors"))
        if vectors.shape[-1:] != self.mean.shape:
            raise DataError(
                f"vectors of {vectors.shape[-1:]} dimensions, and the whitening is of {len(self.mean)}: use the model "
                "and the pooling that it was fitted with"
            )
        return (np.asarray(vectors, np.float32) - self.mean) @ self.kernel

    @property
    def fingerprint(self) -> str:
        return fingerprint((self.mean, self.kernel))

    def save(self, path: Path | str) -> None:
        """Writes a .safetensors file, whole or not at all. Raises DataError for a folder."""
        if (path := path_of(path, "the whitening's file")).is_dir():
            raise DataError(f"{path} is a folder: give the name of a file")
        with atomic_write(path) as temporary:
            write_safetensors(temporary, [("mean", self.mean), ("kernel", self.kernel)], "float32")


def load_whitening(path: Path | str) -> Whitening:
    """Reads what `save` wrote. Raises DataError."""
    stored = open_safetensors(path_of(path, "the whitening"))
    shapes = {name: x.shape for name, x in stored.items()}
    mean, kernel = shapes.get("mean", ()), shapes.get("kernel", ())
    if set(shapes) != {"mean", "kernel"} or len(kernel) != 2 or mean != kernel[:1] or not all(kernel):
        told = str(dict(list(shapes.items())[:2])) + (f" and {len(shapes) - 2} more" if len(shapes) > 2 else "")
        raise DataError(f"{path}: not a whitening (it has {told}); write one with scripts.whiten")
    found = Whitening(*(np.asarray(read(name, stored[name]), np.float32) for name in ("mean", "kernel")))
    if not (np.isfinite(found.mean).all() and np.isfinite(found.kernel).all()):
        raise DataError(f"{path}: it has NaN or infinity; write it again with scripts.whiten")
    return found


def whiten(
    moments: Moments,
    dimensions: int | None = None,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Whitening:
    """x -> (x - beta mean) U diag(s)^(-gamma / 2), of the covariance U diag(s) U^T, its directions by falling variance.

    (1, 1) is whitening, (0, 0) with few dimensions the projection alone. dimensions: how many are kept (K), all by
    default. Directions in which the vectors do not vary, which n <= D leaves, are dropped and told of. The
    sign of a direction is that which makes its largest component positive. Raises DataError for fewer than two vectors,
    for vectors that are all the same, and for more dimensions than there are; ValueError for settings that cannot be.
    """
    count, width = moments.count, len(moments.mean)
    if count < 2:
        raise DataError("a whitening of one vector: its covariance needs two or more")
    for name, given in {"beta": beta, "gamma": gamma}.items():
        check_number(name, given, 0, whole=False)
    if dimensions is not None:
        check_number("dimensions", dimensions, 1)
        if dimensions > width:
            raise DataError(f"{dimensions} dimensions of vectors of {width}: give from 1 to {width}")
    variances, directions = eigh(moments.scatter / (count - 1), lower=False)
    variances, directions = variances[::-1], directions[:, ::-1]
    kept = min(int(np.count_nonzero(variances > max(variances[0], 0) * NULL)), count - 1)
    if not kept or variances[0] <= 1e-12 * np.square(moments.mean).max():
        raise DataError(f"all {count:,} vectors are the same: nothing to whiten; look at what was encoded")
    if count <= width:
        tell(
            f"whitening: {count:,} vectors of {width} dimensions are few, it learns their noise; give ten times as many"
        )
    if kept < (dimensions or width):
        tell(f"whitening: the vectors vary in {kept} of {width} directions alone; {kept} dimensions are kept")
    kept = min(kept, dimensions or width)
    variances, directions = variances[:kept], directions[:, :kept]
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(kept)])
    with np.errstate(over="ignore"):
        kernel = (directions * variances ** (-gamma / 2)).astype(np.float32)
        mean = (beta * moments.mean).astype(np.float32)
    if not (np.isfinite(kernel).all() and np.isfinite(mean).all() and kernel.any()):
        raise DataError(f"beta {beta}, gamma {gamma}: beyond float32's range; give both nearer to 1")
    return Whitening(mean, kernel)


@dataclass(frozen=True, kw_only=True)
class WhitenConfig:
    """Fit a whitening on vectors, in one pass, and write it for scripts.embed and scripts.search."""

    vectors: tuple[str, ...]
    """.npy files of scripts.embed, read in pieces."""
    out: str
    """The whitening, .safetensors."""
    dimensions: int | None = None
    """How many of the strongest directions are kept; by default all that vary."""
    beta: float = 1.0
    """Share of the mean that is taken away; 0 with --gamma 0 is the projection alone."""
    gamma: float = 1.0
    """How far the directions' variances are made equal; 1: wholly."""

    def __post_init__(self):
        check_ranges(self, dimensions=1, beta=0, gamma=0)
        check_lists(self, vectors=None)


def whiten_file(config: WhitenConfig) -> None:
    """Fits and writes. Raises DataError."""
    if disk_path(config.out, "--out").suffix != ".safetensors":
        raise DataError(f"--out {config.out}: a whitening is a .safetensors file")
    arrays = [open_vectors(path) for path in config.vectors]
    for path, array in zip(config.vectors, arrays, strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise DataError(f"{path}: vectors of {array.shape[1]} dimensions, those before of {arrays[0].shape[1]}")
    total = sum(map(len, arrays))
    bar = progress_bar(0, total, unit="vector")

    def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
        for first in range(0, len(array), PIECE):
            yield array[first : first + PIECE]
            bar.update(min(PIECE, len(array) - first))

    found = reduce(add, (moments(pieces(array), path) for path, array in zip(config.vectors, arrays, strict=True)))
    bar.close()
    made = whiten(found, config.dimensions, beta=config.beta, gamma=config.gamma)
    made.save(config.out)
    tell(f"{config.out}: from {len(made.mean)} to {made.kernel.shape[1]} dimensions, of {total:,} vectors")
