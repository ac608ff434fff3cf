"""ONNX: onnxruntime computes the vectors that we compute, of any number of texts and any length."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("jax2onnx", reason="the extra onnx brings it")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx brings it")

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.load import Loaded
from pegasus_zh.t5.onnx import write_onnx_serving
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from retrieval import Embedder
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.vectors.arrays import unit
from retrieval.vectors.whitening import moments, whiten
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from tests.pegasus_zh.t5.random_model import TINY, random_model
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_t5_writes_greedily_what_it_writes_here(tmp_path):
    config = replace(TINY, vocabulary=112, layers=3, decoder_layers=2, gelu="erf", scaled_output=True, cross_bias=True)
    model, tokenizer, length = jax.device_get(random_model(config, seed=2)), PegasusTokenizer(SPECIALS), 6
    out = tmp_path / "served"
    write_onnx_serving(out, Loaded(model, config, tokenizer, "a test"), 17, length)
    source = np.random.default_rng(0).integers(1, 106, (3, 17), dtype=np.int32)
    source[1, 9:] = 0
    encoder, step = (onnxruntime.InferenceSession(out / f"{name}.onnx") for name in ("encoder", "decode_step"))
    names = [x.name for x in encoder.get_outputs()]
    memory = dict(zip(names, encoder.run(names, {"source": source}), strict=True))
    decoder, theirs = MT5Decoder(config), {}
    mine = decoder.begin(model := jax.tree.map(jnp.asarray, model), source, (source != 0).astype(np.int32))
    for name, wanted in zip(names, (*mine.keys, *mine.values, mine.seen), strict=True):
        np.testing.assert_allclose(memory[name], wanted, atol=1e-4)
    cache = decoder.cache(mine, 1, length)
    for i, (keys, values) in enumerate(cache):
        theirs |= {f"keys_{i}": np.asarray(keys), f"values_{i}": np.asarray(values)}
    token, ours = np.full(3, tokenizer.start_id, np.int32), jax.jit(decoder.step)
    outputs = [x.name for x in step.get_outputs()]
    for t in range(length):
        found = dict(
            zip(outputs, step.run(outputs, memory | theirs | {"token": token, "t": np.array(t, np.int32)}), strict=True)
        )
        hidden, cache = ours(model, mine, cache, token[:, None], np.zeros((3, 1, length), np.int32), np.int32(t))
        np.testing.assert_allclose(found["logits"], decoder.logits(model, hidden)[:, 0], atol=1e-4)
        theirs = {name.removeprefix("new_"): x for name, x in found.items() if name != "logits"}
        token = found["logits"].argmax(-1).astype(np.int32)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (program,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "decode_step" in block and "onnxruntime" in block
    ]
    program, count = re.subn(
        r"(?m)^source\[.*",
        f"source[:] = {source.tolist()}",
        program.replace("runs/served", str(out)).replace("(2,", "(3,"),
    )
    assert count == 1
    exec(program, names := {})
    written, _ = write(
        model,
        source,
        np.zeros(3, np.uint32),
        decoder=decoder,
        search=Search(),
        marks=Marks(start=tokenizer.start_id, end=-1),
        length=length,
    )
    np.testing.assert_array_equal(np.array(names["written"]).T, written)
