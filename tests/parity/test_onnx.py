"""ONNX: onnxruntime computes the vectors that we compute, of any number of texts and any length."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("jax2onnx", reason="the extra onnx brings it")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx brings it")

from retrieval import Embedder
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.vectors.arrays import unit
from retrieval.vectors.whitening import moments, whiten
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TEXTS, TOKENIZER
from tests.rope.encoder.random_encoder import BERT, ROFORMER


# jax2onnx leaves out those of its plugins whose import warns where warnings are errors.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "config, pooling",
    [
        (ROFORMER, "first-last"),
        (ROFORMER, "mean"),
        (replace(ROFORMER, pooler="linear"), "pooler"),
        (BERT, "pooler-tanh"),
        (BERT, "cls"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.positions,
)
def test_vectors(config, pooling, tmp_path):
    model = write_model(tmp_path / "model", config)
    found = Embedder(model, max_length=40).encode(TEXTS, pooling=pooling)
    whitening = whiten(moments([found.astype(np.float32)]), 7)
    whitening.save(tmp_path / "whitening.safetensors")
    out = export_encoder(
        ExportEncoderConfig(
            model=str(model),
            folder=str(tmp_path / "out"),
            pooling=pooling,
            whitening=str(tmp_path / "whitening.safetensors"),
            normalise=True,
            onnx=True,
            max_length=40,
        )
    )
    session = onnxruntime.InferenceSession(out / "vectors.onnx")
    wanted = unit(whitening(found))
    for texts in (slice(0, 1), slice(1, 4), slice(4, 13)):
        framed = [TOKENIZER.frame_source(TOKENIZER.encode(text), 64) for text in TEXTS[texts]]
        ids, mask = np.zeros((2, len(framed), max(map(len, framed))), np.int32)
        for i, row in enumerate(framed):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        (vectors,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
        np.testing.assert_allclose(vectors, wanted[texts], atol=1e-4)
