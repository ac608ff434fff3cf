import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.decomposition import PCA

from retrieval.vectors import whitening
from retrieval.vectors.whitening import Moments, WhitenConfig, load_whitening, moments, whiten, whiten_file
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh


@pytest.fixture
def on_host(monkeypatch) -> None:
    """As where there is one CPU, which the tests' machine is not."""
    monkeypatch.setattr(whitening, "on_one_cpu", lambda: True)


def sample(count: int = 500, width: int = 12, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, width)) @ random.standard_normal((width, width)) + 5).astype(np.float32)


def closed_form(x: np.ndarray) -> Moments:
    x = x.astype(np.float64)
    return Moments(len(x), x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)))


def close(found: Moments, wanted: Moments, tolerance: float = 2e-6) -> None:
    assert found.count == wanted.count
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=tolerance, atol=tolerance * np.abs(wanted.mean).max())
    upper = np.triu(wanted.scatter)
    np.testing.assert_allclose(np.triu(found.scatter), upper, atol=tolerance * np.abs(upper).max())


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 499), max_size=5), seed=st.integers(0, 99))
def test_any_pieces_merge_to_the_moments_of_all(cuts: list[int], seed: int) -> None:
    x = sample(seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whitening, "on_one_cpu", lambda: True)
        close(moments(p for p in np.split(x, sorted(cuts)) if len(p)), closed_form(x))


@pytest.mark.parametrize("count", [3, 8, 500, 5000])
def test_a_mesh_has_the_moments_of_all(count: int) -> None:
    x = sample(count)
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2))):
        close(moments([x]), closed_form(x))
    close(moments([x[:2], x[2:]]), closed_form(x))  # and without a mesh that is set


def test_a_large_common_part_loses_no_digits(on_host: None) -> None:
    x = sample() + np.float32(1000)
    close(moments([x]), closed_form(x), 1e-5)


@pytest.mark.parametrize("dimensions", [None, 5])
def test_whitening_is_the_closed_form_and_scikit_learns_up_to_sign(on_host: None, dimensions: int | None) -> None:
    x = sample()
    found = whiten(moments([x]), dimensions)(x)
    reference = PCA(dimensions, whiten=True).fit_transform(x.astype(np.float64))
    signs = np.sign((found * reference).sum(0))
    np.testing.assert_allclose(found * signs, reference, atol=2e-3)
    np.testing.assert_allclose(np.cov(found.T), np.eye(found.shape[1]), atol=1e-3)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)


def test_beta_and_gamma_are_the_generalisation(on_host: None) -> None:
    x = sample()
    free, half = (whiten(moments([x]), 4, beta=b, gamma=g)(x) for b, g in ((0, 0), (1, 0.5)))
    variances, directions = np.linalg.eigh(np.cov(x.T))
    projected = x @ directions[:, ::-1][:, :4]
    np.testing.assert_allclose(np.abs(free), np.abs(projected), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(half.var(0, ddof=1), np.sqrt(variances[::-1][:4]), rtol=1e-3)


def test_one_vector_is_whitened_as_among_many(on_host: None, tmp_path) -> None:
    x = sample()
    made = whiten(moments([x]), 6)
    made.save(tmp_path / "whitening.safetensors")
    again = load_whitening(tmp_path / "whitening.safetensors")
    np.testing.assert_allclose(again(x[3]), made(x)[3], rtol=1e-5, atol=1e-6)


def test_no_more_directions_are_kept_than_the_vectors_span(on_host: None) -> None:
    x = (
        np.random.default_rng(0).standard_normal((300, 768)).astype(np.float32)
    )  # what rounding leaves of no variance is above NULL
    found = whiten(moments([x]))(x)
    assert found.shape == (300, 299)
    np.testing.assert_allclose(np.cov(found.T), np.eye(299), atol=2e-2)


def test_directions_without_variance_are_dropped_and_told_of(on_host: None, said: list[str]) -> None:
    x = sample(200, 12)
    x[:, 3] = x[:, 1]
    found = whiten(moments([x]))(x)
    assert found.shape == (200, 11) and "11 of 12 directions" in said[0]
    np.testing.assert_allclose(np.cov(found.T), np.eye(11), atol=1e-2)
    few = whiten(moments([x[:5]]))(x[:5])
    assert few.shape == (5, 4) and "5 vectors of 12 dimensions" in said[1]


def test_what_cannot_be_whitened_is_one_line(on_host: None, tmp_path) -> None:
    x = sample()
    with pytest.raises(DataError, match="13 dimensions of vectors of 12"):
        whiten(moments([x]), 13)
    with pytest.raises(DataError, match="needs two"):
        whiten(moments([x[:1]]))
    with pytest.raises(DataError, match="the same"):
        whiten(moments([np.repeat(x[:1], 9, 0)]))
    with pytest.raises(DataError, match="no vector"):
        moments([])
    with pytest.raises(DataError, match="as those before"):
        moments([x, x[:, :3]])
    x[321, 3] = np.nan
    with pytest.raises(DataError, match="row 322 has NaN"):
        moments([x[:300], x[300:]])
    with pytest.raises(DataError, match="too large"):
        moments([np.eye(3, dtype=np.float32) * 3e38])
    with pytest.raises(DataError, match="12 dimensions|of 12"):
        whiten(moments([x[:300]]))(x[:, :5])
    save_file({f"layer{n}": np.zeros(n + 1, np.float32) for n in range(100)}, tmp_path / "x.safetensors")
    with pytest.raises(
        DataError, match="x.safetensors: not a whitening .it has .* and 98 more.; write one with"
    ) as told:
        load_whitening(tmp_path / "x.safetensors")
    assert len(str(told.value)) < 400
    (tmp_path / "x.safetensors").write_bytes(b"not one")
    with pytest.raises(DataError, match="safetensors"):
        load_whitening(tmp_path / "x.safetensors")


def test_of_several_files_the_one_with_a_nan_is_named(tmp_path) -> None:
    x = sample()
    paths = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    for path in paths:
        np.save(path, x)
        x[4, 2] = np.nan
    config = WhitenConfig(vectors=tuple(paths), out=str(tmp_path / "w.safetensors"))
    with pytest.raises(DataError, match=r"b\.npy: row 5 has NaN"):
        whiten_file(config)
    np.save(paths[1], sample(seed=1))
    whiten_file(config)
    both = whiten(moments([sample(), sample(seed=1)]))
    np.testing.assert_allclose(load_whitening(config.out).kernel, both.kernel, rtol=1e-5)
