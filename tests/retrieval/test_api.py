"""Texts to an array: the same vectors as the command's, and refusals in one line."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval import Embedder, Whitening, fit_whitening, load_whitening
from retrieval.embed import embed_file
from retrieval.vectors.encoding import Encoding, encoder
from retrieval.vectors.pooling import POOLINGS
from tests.retrieval.small_model import write_model
from tests.retrieval.test_embed import config
from tests.retrieval.vectors.test_encoding import TEXTS, source
from tests.rope.encoder.random_encoder import BERT
from training.files.errors import DataError
from training.mesh import MeshConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def embedder(model):
    return Embedder(model, max_length=20, mesh=MeshConfig())


def test_vectors_are_those_of_the_command(model, embedder, tmp_path):
    assert embed_file(config(model, tmp_path)) == (len(TEXTS), embedder.width)
    vectors = embedder.encode(TEXTS)
    np.testing.assert_allclose(vectors, np.load(tmp_path / "v.npy"), atol=2e-5)
    for pooling in POOLINGS:
        found = embedder.encode(iter(TEXTS), pooling, normalise=True)
        assert found.dtype == np.float32 and found.shape == vectors.shape
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(Embedder(model, mesh=MeshConfig(data=8)).encode(TEXTS[:1]), vectors[:1], atol=2e-5)


def test_whitened(embedder, tmp_path):
    vectors = embedder.encode(TEXTS)
    whitening = fit_whitening(vectors, 3)
    white = whitening(vectors)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=1e-3)
    whitening.save(tmp_path / "w.safetensors")
    for given in (whitening, load_whitening(tmp_path / "w.safetensors"), str(tmp_path / "w.safetensors")):
        np.testing.assert_allclose(embedder.encode(TEXTS, whitening=given), white, atol=2e-5)
    cosines = embedder.encode(TEXTS, whitening=whitening, normalise=True)
    np.testing.assert_allclose(cosines, white / np.linalg.norm(white, axis=1, keepdims=True), atol=2e-5)
    shares = fit_whitening(np.float64(vectors), 2, beta=0.0, gamma=0.0)
    assert isinstance(shares, Whitening) and not shares.mean.any()


def test_what_is_refused(embedder, tmp_path):
    with pytest.raises(ValueError, match=r"'今天天气' is one text: give a list of texts, \[text\]"):
        embedder.encode("今天天气")
    with pytest.raises(ValueError, match="no texts"):
        embedder.encode([])
    with pytest.raises(DataError, match=f"pooling is 'max': it must be one of {', '.join(POOLINGS)}"):
        embedder.encode(TEXTS, "max")
    with pytest.raises(DataError, match="the model has no pooler"):
        without = write_model(tmp_path / "m", replace(BERT, pooler="none"))
        Embedder(without, max_length=20).encode(TEXTS, "pooler")
    with pytest.raises(ValueError, match=r"vectors of shape \(24,\): \[n, D\] is needed; one vector is x\[None\]"):
        fit_whitening(embedder.encode(TEXTS)[0])
    with pytest.raises(ValueError, match="vectors: row 1 has NaN"):
        fit_whitening([[1.0, 2.0], [np.nan, 0.0]])
    with pytest.raises(DataError, match="use the model and the pooling"):
        embedder.encode(TEXTS, whitening=fit_whitening(np.random.default_rng(0).standard_normal((9, 4))))
    rows = np.random.default_rng(0).standard_normal((9, 4))
    for name, value in [("dimensions", 2.5), ("dimensions", "3"), ("dimensions", True), ("beta", "1"), ("gamma", -1.0)]:
        with pytest.raises(ValueError, match=f"{name} is {value!r}: it must be"):
            fit_whitening(rows, **{name: value})
    with pytest.raises(ValueError, match="vectors of <U3: give real numbers"):
        fit_whitening(rows)("abc")
    with pytest.raises(DataError, match="is a folder: give the name of a file"):
        fit_whitening(rows).save(tmp_path)
    with pytest.raises(ValueError, match="max_length is 10.5: it must be a whole number"):
        Embedder(tmp_path / "m", max_length=10.5)
    with pytest.raises(ValueError, match="dtype is 'float16': it must be float32, bfloat16"):
        Embedder(tmp_path / "m", dtype="float16")
    for given in ({}, True):
        with pytest.raises(ValueError, match="whitening is .*: give what fit_whitening made"):
            embedder.encode(TEXTS, whitening=given)
    for given in (None, 3, ""):
        with pytest.raises(DataError, match="the whitening is .*: give a path"):
            load_whitening(given)
        with pytest.raises(DataError, match="the model is .*: give a path"):
            Embedder(given)
    with pytest.raises(DataError, match="no such"):
        embedder.encode(TEXTS, whitening=tmp_path / "nothing.safetensors")


def test_generators_below_refuse_too():
    with pytest.raises(DataError, match="pooling is 'max'"):
        encoder(source(), ["max"], Encoding())
    with pytest.raises(ValueError, match="is one text"):
        next(encoder(source(), ["mean"], Encoding())("今天"))
