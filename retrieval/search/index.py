"""The nearest vectors by inner product: all compared, on the mesh, or found by one of FAISS's indexes.

Letters: n vectors, D dimensions, Q queries, C vectors of a chunk.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from retrieval.vectors.arrays import check_finite, read_npy
from training.files.atomic import atomic_write
from training.files.errors import DataError, damaged
from training.mesh import MeshConfig, make_mesh
from training.partition import axes_of, parts_of

Kind = Literal["exact", "flat", "ivf", "hnsw", "pq"]
QUERIES = 256  # compared at a time
CHUNK = 1 << 14  # vectors whose products a device has in memory at a time
BLOCK = 32
FAISS = "pip install faiss-cpu"
REBUILD = "build the index again"


Best = tuple[jax.Array, jax.Array]  # scores and places [Q, k]


class Found(NamedTuple):
    """The best first; where there are fewer vectors than were asked for, -inf and -1."""

    scores: np.ndarray  # float32 [Q, k]
    places: np.ndarray  # int64 [Q, k], in the order in which vectors were added


class Index(Protocol):
    """Vectors that are added and searched; the kind says how."""

    kind: Kind
    dimensions: int

    def __len__(self) -> int: ...

    def learn(self, sample: np.ndarray, count: int) -> None:
        """What ivf and pq cut space by, from a sample [n, D] of the `count` vectors to come;
        by default the first that are added."""
        ...

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors [n, D], whose places follow those there. Raises DataError for another D, and for NaN."""
        ...

    def search(self, queries: np.ndarray, k: int) -> Found:
        """Of queries [Q, D] the k vectors of the largest product. Raises DataError as `add`, and for k below 1."""
        ...

    def save(self, path: Path) -> None:
        """Writes a file, whole or not at all."""
        ...


def _check(index: Index, vectors: np.ndarray, what: str, k: int = 1) -> np.ndarray:
    if vectors.ndim != 2 or vectors.shape[1] != index.dimensions:
        raise DataError(
            f"{what} of shape {vectors.shape} for an index of {index.dimensions} dimensions: encode both with one "
            "model, pooling and whitening"
        )
    if k < 1:
        raise DataError(f"k is {k}: give 1 or more")
    check_finite(vectors, 0, what)
    return np.ascontiguousarray(vectors, np.float32)


class ExactIndex(Index):
    """All vectors, cut over the devices of the mesh (by default all devices): each finds the best of its own.

    recall: below 1, the device's approximate maxima (jax.lax.approx_max_k, in hardware on a TPU) with this share
    expected to be found.
    """

    kind = "exact"

    def __init__(self, dimensions: int, mesh: jax.sharding.Mesh | None = None, recall: float = 1.0):
        self.dimensions, self._mesh, self._recall = dimensions, mesh or make_mesh(MeshConfig()), recall
        self._parts = parts_of("batch", self._mesh)
        self._pieces: list[np.ndarray] = []
        self._placed: jax.Array | None = None  # [parts, chunks, C, D]

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def learn(self, sample: np.ndarray, count: int) -> None:
        """Nothing: all vectors are compared."""

    def add(self, vectors: np.ndarray) -> None:
        self._pieces.append(_check(self, vectors, "vectors"))
        self._placed = None

    def search(self, queries: np.ndarray, k: int) -> Found:
        queries = _check(self, queries, "queries", k)
        count = len(self)
        most = min(1 << max(k - 1, 15).bit_length(), count)  # few programs for all k
        scores = np.full((len(queries), k), -np.inf, np.float32)
        places = np.full((len(queries), k), -1, np.int64)
        if not count or not len(queries):
            return Found(scores, places)
        if self._placed is None:
            self._placed = self._place()
        rows = min(QUERIES, 1 << (len(queries) - 1).bit_length())
        run = _searcher(self._mesh, most, self._recall)
        waiting = []
        for first in range(0, len(queries), rows):
            batch = np.zeros((rows, self.dimensions), np.float32)
            batch[: len(queries) - first] = queries[first : first + rows]
            waiting.append((first, run(self._placed, batch, np.int32(count))))
        for first, (best, found) in waiting:
            here = slice(first, min(first + rows, len(queries)))
            there = min(k, most)
            scores[here, :there], places[here, :there] = (
                np.asarray(x)[: len(queries) - first, :there] for x in (best, found)
            )
        return Found(scores, places)

    def _place(self) -> jax.Array:
        """Vector p is number p // parts of part p % parts, so that parts are equal."""
        of_part = -(-len(self) // self._parts)
        chunk = min(CHUNK, -(-of_part // BLOCK) * BLOCK)
        chunks = -(-of_part // chunk)
        whole = np.zeros((chunks * chunk, self._parts, self.dimensions), np.float32)
        flat, end = whole.reshape(-1, self.dimensions), 0
        for piece in self._pieces:
            flat[end : (end := end + len(piece))] = piece
        by_part = whole.swapaxes(0, 1).reshape(self._parts, chunks, chunk, self.dimensions)
        return jax.device_put(by_part, NamedSharding(self._mesh, PartitionSpec(axes_of("batch", self._mesh))))

    def save(self, path: Path) -> None:
        about = {"descr": "<f4", "fortran_order": False, "shape": (len(self), self.dimensions)}
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, about)
            for piece in self._pieces:
                file.write(np.ascontiguousarray(piece, "<f4").data)


@partial(jax.jit, static_argnames=("mesh", "k", "recall"))
def _search(
    vectors: jax.Array, queries: jax.Array, count: jax.Array, mesh: jax.sharding.Mesh, k: int, recall: float
) -> tuple[jax.Array, jax.Array]:
    """Scores and places [Q, k]."""
    parts, axes = vectors.shape[0], axes_of("batch", mesh)

    def on_one(mine: jax.Array, queries: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        part = jax.lax.axis_index(axes)
        _, chunks, chunk, _ = mine.shape

        def compare(best: Best, numbered: tuple[jax.Array, jax.Array]) -> tuple[Best, None]:
            number, vectors = numbered
            scores = jnp.einsum("QD,CD->QC", queries, vectors, precision="highest")
            numbers = number * chunk + jnp.arange(chunk)
            scores = jnp.where((numbers * parts + part < count)[None], scores, -jnp.inf)
            found, where = _top(scores, min(k, chunk), recall)
            places = (number * chunk + where) * parts + part
            return _merge(best, (found, places), k), None

        begin = (
            jax.lax.pcast(jnp.full((len(queries), k), -jnp.inf), axes, to="varying"),
            jax.lax.pcast(jnp.full((len(queries), k), -1, jnp.int32), axes, to="varying"),
        )
        best, _ = jax.lax.scan(compare, begin, (jnp.arange(chunks), mine[0]))
        scores, places = (jax.lax.all_gather(x, axes, axis=1, tiled=True) for x in best)
        top, where = jax.lax.top_k(scores, k)
        return top[None], jnp.take_along_axis(places, where, 1)[None]

    cut, alike = PartitionSpec(axes), PartitionSpec()
    top, places = jax.shard_map(on_one, mesh=mesh, in_specs=(cut, alike, alike), out_specs=(cut, cut))(
        vectors, queries, count
    )
    return top, places


def _searcher(mesh: jax.sharding.Mesh, k: int, recall: float) -> Callable:
    def run(vectors: jax.Array, queries: np.ndarray, count: np.int32) -> tuple[jax.Array, jax.Array]:
        with jax.set_mesh(mesh):
            top, places = _search(vectors, queries, count, mesh, k, recall)
        return top.addressable_data(0)[0], places.addressable_data(0)[0]  # every part has the same

    return run


def _top(scores: jax.Array, k: int, recall: float) -> tuple[jax.Array, jax.Array]:
    """The k largest of each row [Q, C], and where.

    They are among the k blocks whose maxima are the largest: one pass for the maxima, and a thirty-second is sorted.
    """
    if recall < 1:
        return jax.lax.approx_max_k(scores, k, recall_target=recall)
    rows, chunk = scores.shape
    if chunk % BLOCK or chunk // BLOCK <= 2 * k:
        return jax.lax.top_k(scores, k)
    blocks = scores.reshape(rows, chunk // BLOCK, BLOCK)
    _, chosen = jax.lax.top_k(blocks.max(2), k)
    few = jnp.take_along_axis(blocks, chosen[:, :, None], 1).reshape(rows, k * BLOCK)
    top, where = jax.lax.top_k(few, k)
    return top, jnp.take_along_axis(chosen, where // BLOCK, 1) * BLOCK + where % BLOCK


def _merge(one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array], k: int) -> tuple[jax.Array, jax.Array]:
    scores, places = (jnp.concatenate(pair, 1) for pair in zip(one, other, strict=True))
    top, where = jax.lax.top_k(scores, k)
    return top, jnp.take_along_axis(places, where, 1)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise DataError(f"this kind of index needs FAISS: {FAISS}, or use the kind exact") from None
    return faiss


class FaissIndex(Index):
    """flat: all compared; ivf: the vectors of the nearest of sqrt(n) cells; hnsw: a graph of near ones; pq: ivf over
    vectors of D/4 bytes.

    breadth: cells that are looked into (ivf, pq), or the width of the search (hnsw).
    """

    def __init__(self, kind: Kind, dimensions: int, breadth: int = 16, found: Any = None):
        self.kind, self.dimensions, self._breadth, self._index = kind, dimensions, breadth, found
        self._library = _faiss()

    def __len__(self) -> int:
        return self._index.ntotal if self._index is not None else 0

    def learn(self, sample: np.ndarray, count: int) -> None:
        sample = _check(self, sample, "vectors")
        recipe, metric = self._recipe(count), self._library.METRIC_INNER_PRODUCT
        self._index = self._library.index_factory(self.dimensions, recipe, metric)
        if not self._index.is_trained:
            self._index.train(sample)

    def add(self, vectors: np.ndarray) -> None:
        vectors = _check(self, vectors, "vectors")
        if self._index is None:
            self.learn(vectors, len(vectors))
        self._index.add(vectors)

    def _recipe(self, count: int) -> str:
        cells = max(round(count**0.5), 1)
        if self.kind == "pq":
            if count < 256:
                raise DataError(f"{count} vectors: pq learns 256 codes, so the first time give 256 or more")
            codes = -(-self.dimensions // 4)
            # Padding's zeros change no product. "np": FAISS orders the codes for a filter that is not used here,
            # by minutes of annealing that change no result.
            return f"Pad{4 * codes},IVF{cells},PQ{codes}x8np"
        return {"flat": "Flat", "ivf": f"IVF{cells},Flat", "hnsw": "HNSW32,Flat"}[self.kind]

    def search(self, queries: np.ndarray, k: int) -> Found:
        queries = _check(self, queries, "queries", k)
        if self._index is None or not len(queries):
            return Found(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        which = {"ivf": "nprobe", "pq": "nprobe", "hnsw": "efSearch"}.get(self.kind)
        if which:
            self._library.ParameterSpace().set_index_parameter(self._index, which, min(self._breadth, 1 << 30))
        scores, places = self._index.search(queries, k)
        return Found(np.where(places < 0, -np.inf, scores).astype(np.float32), places)

    def save(self, path: Path) -> None:
        if self._index is None:
            raise DataError(f"{path}: an index without vectors; add some first")
        with atomic_write(path) as temporary:
            try:
                self._library.write_index(self._index, str(temporary))
            except RuntimeError as error:
                raise OSError(
                    f"{path}: it cannot be written ({str(error).splitlines()[0]}); make room, and try again"
                ) from None


def make_index(
    kind: Kind, dimensions: int, *, breadth: int = 16, recall: float = 1.0, mesh: jax.sharding.Mesh | None = None
) -> Index:
    """An empty one; breadth is of ivf, pq and hnsw, recall and mesh of exact."""
    return ExactIndex(dimensions, mesh, recall) if kind == "exact" else FaissIndex(kind, dimensions, breadth)


def load_index(
    path: Path, kind: Kind, *, breadth: int = 16, recall: float = 1.0, mesh: jax.sharding.Mesh | None = None
) -> Index:
    """What `save` wrote. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; {REBUILD}")
    try:
        if kind != "exact":
            stored = _faiss().read_index(str(path))
            found = FaissIndex(kind, stored.d, breadth, stored)
            found.search(np.zeros((1, stored.d), np.float32), 1)  # fails where it is of another kind
            return found
    except (OSError, RuntimeError) as error:
        raise damaged(path, error, "not an index that scripts.search wrote", REBUILD) from None
    vectors = read_npy(path, None, REBUILD)
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise DataError(f"{path}: not vectors [n, D] of float32; {REBUILD}")
    index = ExactIndex(vectors.shape[1], mesh, recall)
    if len(vectors):
        index.add(np.array(vectors))
    return index
