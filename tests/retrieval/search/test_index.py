"""Exact search is a product and a sort, on any mesh, and FAISS's flat index; what is saved is what is loaded."""

import faiss
import jax
import numpy as np
import pytest

from retrieval.search import index as module
from retrieval.search.index import ExactIndex, FaissIndex, load_index, make_index
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh


def vectors(count: int, width: int = 12, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.mark.parametrize("mesh", ["one", "eight"])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (7, 3), (300, 10), (5000, 2)])
def test_exact_search_is_a_product_and_a_sort(monkeypatch, mesh: str, count: int, k: int) -> None:
    monkeypatch.setattr(module, "CHUNK", 1024)  # several chunks, and blocks
    x, queries = vectors(count), vectors(9, seed=1)
    index = ExactIndex(12, one_device() if mesh == "one" else make_mesh(MeshConfig(data=4, fsdp=2)))
    index.add(x[: count // 2])
    index.add(x[count // 2 :])
    found, products = index.search(queries, k), queries @ x.T
    np.testing.assert_array_equal(found.places, np.argsort(-products, 1, kind="stable")[:, :k])
    np.testing.assert_allclose(found.scores, np.take_along_axis(products, found.places, 1), atol=1e-6)


def test_exact_search_equals_faiss_flat_index() -> None:
    x, queries = vectors(20_000, 24), vectors(300, 24, 1)
    reference = faiss.IndexFlatIP(24)
    reference.add(x)
    scores, places = reference.search(queries, 10)
    index = ExactIndex(24, one_device())
    index.add(x)
    found = index.search(queries, 10)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_array_equal(found.places, places)


def test_approximate_maxima_find_most() -> None:
    x, queries = vectors(3000), vectors(50, seed=1)
    wanted, found = ExactIndex(12, one_device()), ExactIndex(12, one_device(), recall=0.9)
    for index in (wanted, found):
        index.add(x)
    same = [len({*a} & {*b}) for a, b in zip(*(i.search(queries, 10).places for i in (wanted, found)), strict=True)]
    assert np.mean(same) >= 9


@pytest.mark.parametrize("kind", ["exact", "flat", "ivf", "hnsw", "pq"])
def test_every_kind_adds_saves_loads_and_finds_itself(tmp_path, kind: str) -> None:
    x = vectors(600, 16)
    index = make_index(kind, 16, mesh=one_device())
    assert len(index) == 0 and index.search(x[:2], 3).places.tolist() == [[-1] * 3] * 2
    index.add(x[:500])
    index.add(x[500:])
    found = index.search(x[490:510], 5)
    assert len(index) == 600 and np.mean(found.places[:, 0] == np.arange(490, 510)) >= (0.7 if kind == "pq" else 1)
    index.save(tmp_path / "index")
    again = load_index(tmp_path / "index", kind, mesh=one_device())
    np.testing.assert_array_equal(again.search(x[490:510], 5).places, found.places)
    assert (len(again), again.dimensions, again.kind) == (600, 16, kind)


def test_a_product_quantiser_takes_any_number_of_dimensions() -> None:
    for width in (17, 18, 19):
        x = vectors(600, width)
        index = FaissIndex("pq", width, breadth=1000)
        index.add(x)
        assert index.dimensions == width and np.mean(index.search(x[:50], 1).places[:, 0] == np.arange(50)) > 0.7


def test_more_than_there_are_are_marked(tmp_path) -> None:
    for kind in ("exact", "flat"):
        index = make_index(kind, 12, mesh=one_device())
        index.add(vectors(2))
        found = index.search(vectors(1), 4)
        assert found.places[0, 2:].tolist() == [-1, -1] and np.isneginf(found.scores[0, 2:]).all()
        assert index.search(vectors(0), 4).places.shape == (0, 4)


@pytest.mark.parametrize("kind", ["exact", "flat"])
def test_what_cannot_be_searched_is_one_line(tmp_path, kind: str) -> None:
    index = make_index(kind, 12, mesh=one_device())
    index.add(vectors(3))
    with pytest.raises(DataError, match="for an index of 12 dimensions"):
        index.search(vectors(1, 13), 1)
    with pytest.raises(DataError, match="for an index of 12"):
        index.add(vectors(1, 11))
    with pytest.raises(DataError, match="k is 0"):
        index.search(vectors(1), 0)
    bad = vectors(3)
    bad[1, 2] = np.nan
    with pytest.raises(DataError, match="vectors: row 2 has NaN"):
        index.add(bad)
    (tmp_path / "x").write_bytes(b"no index")
    with pytest.raises(DataError, match="x: not a"):
        load_index(tmp_path / "x", kind)
    with pytest.raises(DataError, match="build the index again"):
        load_index(tmp_path / "y", kind)


def test_a_product_quantiser_needs_256() -> None:
    with pytest.raises(DataError, match="256 or more"):
        FaissIndex("pq", 12).add(vectors(100))
    with pytest.raises(DataError, match="without vectors"):
        FaissIndex("flat", 12).save(None)
