"""What a folder says of its vectors is done, by whatever command, or refused by name."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pegasus_zh.text_encoder import load_text_encoder
from retrieval import Embedder
from retrieval.embed import EmbedConfig, embed_file
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.search.commands import open_searcher
from retrieval.search.store import BuildConfig, build
from retrieval.vectors.arrays import unit
from retrieval.vectors.encoding import Encoding
from retrieval.vectors.source import load_alone
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TEXTS, by_hand
from tests.rope.encoder.random_encoder import BERT, ROFORMER
from training.files.errors import DataError

CLS, POOLER, MEAN, TANH = 0, 1, 2, 5
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.standard_normal((8, 24)).astype(np.float32)  # as torch has it: [out, in]
OLD = "sentence_transformers.models."
DENSE = {"in_features": 24, "out_features": 8, "bias": False, "activation_function": "torch.nn.modules.activation.Tanh"}
PROMPTS = {"query": "今天", "passage": "，"}


def edit(file: Path, **values) -> None:
    about = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(about | values))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A BERT with [CLS], a Dense and vectors of length 1, as releases of sentence-transformers before 5 saved it."""
    folder = write_model(tmp_path / "m", BERT)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": OLD + kind} for n, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for path in ("1_Pooling", "2_Dense"):
        (folder / path).mkdir()
    edit(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    edit(folder / "2_Dense" / "config.json", **DENSE)
    save_file({"linear.weight": KERNEL}, folder / "2_Dense" / "model.safetensors")
    edit(folder / "sentence_bert_config.json", max_seq_length=12, do_lower_case=True)
    edit(folder / "config_sentence_transformers.json", prompts=PROMPTS, default_prompt_name=None)
    return folder


def wanted(folder: Path, texts, pooling: int = CLS, length: int = 12) -> np.ndarray:
    pooled = np.stack([by_hand(load_text_encoder(folder), text, length)[pooling] for text in texts])
    return unit(np.tanh(pooled @ KERNEL.T))


def test_pooling_dense_length_and_prompts_are_those_of_the_folder(folder, tmp_path, said):
    embedder = Embedder(folder)
    assert said == [f"{folder}: pooling cls, Dense to 8, length 1, 12 ids, by modules.json"]
    assert embedder.width == 8
    np.testing.assert_allclose(embedder.encode(TEXTS), wanted(folder, TEXTS), atol=2e-5)
    asked = [PROMPTS["query"] + text for text in TEXTS]
    np.testing.assert_allclose(embedder.encode(TEXTS, prompt="query"), wanted(folder, asked), atol=2e-5)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS) + "\n")
    given = {"model": str(folder), "input": str(tmp_path / "t.txt"), "out": str(tmp_path / "v.npy")}
    assert embed_file(EmbedConfig(**given, prompt="query")) == (len(TEXTS), 8)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), wanted(folder, asked), atol=2e-5)
    embed_file(EmbedConfig(**given, encoding=Encoding(max_length=20)))
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), wanted(folder, TEXTS, length=20), atol=2e-5)


def test_no_more_ids_than_the_model_has_positions(folder, said):
    edit(folder / "sentence_bert_config.json", max_seq_length=512)
    np.testing.assert_allclose(Embedder(folder).encode(TEXTS), wanted(folder, TEXTS, length=40), atol=2e-5)
    assert said == [f"{folder}: pooling cls, Dense to 8, length 1, 40 ids, by modules.json"]


def test_as_many_ids_as_positions_where_nothing_says_how_many(folder, said):
    """As sentence-transformers, and not the 64 of other folders."""
    edit(folder / "sentence_bert_config.json", max_seq_length=None)
    edit(folder / "tokenizer_config.json", model_max_length=10**30)
    np.testing.assert_allclose(Embedder(folder).encode(TEXTS), wanted(folder, TEXTS, length=40), atol=2e-5)
    assert said == [f"{folder}: pooling cls, Dense to 8, length 1, 40 ids, by modules.json"]


def test_another_pooling_leaves_out_what_follows_and_says_so(folder, said):
    found = Embedder(folder).encode(TEXTS, "mean")
    np.testing.assert_allclose(found[0], by_hand(load_text_encoder(folder), TEXTS[0], 12)[MEAN], atol=2e-5)
    assert said[1:] == [f"{folder}: pooling mean, so what modules.json has after pooling cls is left out"]


def test_an_index_puts_each_prompt_where_it_belongs(folder, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(TEXTS) + "\n")
    build(BuildConfig(model=str(folder), texts=str(tmp_path / "t.txt"), folder=str(tmp_path / "i")))
    found = open_searcher(tmp_path / "i").search([TEXTS[4]], 20)[0]
    question = wanted(folder, [PROMPTS["query"] + TEXTS[4]])[0]
    scores = wanted(folder, [PROMPTS["passage"] + text for text in TEXTS]) @ question
    assert [hit.place for hit in found] == scores.argsort()[::-1].tolist()
    np.testing.assert_allclose([hit.score for hit in found], np.sort(scores)[::-1], atol=2e-5)
    edit(folder / "config_sentence_transformers.json", prompts={"query": "你"})
    with pytest.raises(DataError, match="are not those that .* was built with"):
        open_searcher(tmp_path / "i")


def test_what_tuning_leaves_out_is_told(folder, said):
    assert load_alone(folder).config == load_text_encoder(folder).config
    assert said[-1] == f"{folder}: its Dense and prompts are left out"


def kinds_of(*kinds: str):
    listed = [{"type": kind, "path": f"{n}_{kind}" if n else ""} for n, kind in enumerate(kinds)]
    return lambda folder: (folder / "modules.json").write_text(json.dumps(listed))


def setting(file: str, **values):
    return lambda folder: edit(folder / file, **values)


REFUSED = {
    "own code": (kinds_of("custom_st.Transformer"), "'custom_st.Transformer' is code of the folder's own"),
    "other modules": (kinds_of(OLD + "Transformer", OLD + "Pooling", OLD + "LSTM"), "Transformer, Pooling, LSTM; only"),
    "no pooling": (kinds_of(OLD + "Transformer"), "Transformer; only a Transformer"),
    "no list": (lambda folder: (folder / "modules.json").write_text("{"), "not a list of modules"),
    "outside": (
        lambda folder: (folder / "modules.json").write_text(json.dumps([{"type": OLD + "Pooling", "path": "../m"}])),
        "path '../m' leads out of the folder",
    ),
    "max": (
        setting("1_Pooling/config.json", pooling_mode_max_tokens=True),
        r'is \["cls", "max"\]; only cls or',
    ),
    "prompt": (
        setting("1_Pooling/config.json", include_prompt=False),
        "prompt is false, and there are prompts",
    ),
    "width": (setting("1_Pooling/config.json", word_embedding_dimension=32), "vectors of 32 dimensions, and the model"),
    "gelu": (setting("2_Dense/config.json", activation_function="torch.nn.GELU"), 'is "torch.nn.GELU"; only torch'),
    "sizes": (
        setting("2_Dense/config.json", in_features=16),
        "from 16 to 8 dimensions, and the vectors before",
    ),
    "fewer dimensions": (setting("config_sentence_transformers.json", truncate_dim=4), "truncate_dim is 4; only null"),
    "default": (setting("config_sentence_transformers.json", default_prompt_name=[]), r"default_prompt_name is \[\]"),
    "other config": (
        setting("sentence_bert_config.json", config_args={"num_hidden_layers": 1}),
        'config_args is {"num_hidden_layers": 1}; only null',
    ),
    "other output": (
        setting(
            "sentence_bert_config.json",
            modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}},
        ),
        "modality_config is .*pooler_output.*; only .*last_hidden_state.* can be read",
    ),
    "case": (
        setting("tokenizer_config.json", do_lower_case=False),
        "do_lower_case is true in sentence_bert_config.json and false in tokenizer_config.json",
    ),
    "other input": (setting("3_Normalize/config.json", module_input_name="token_embeddings"), "only .sentence_emb"),
    "bias": (setting("2_Dense/config.json", bias=True), "no tensor 'linear.bias'"),
    "task": (setting("sentence_bert_config.json", transformer_task="fill-mask"), 'task is "fill-mask"; only "feature'),
    "length": (setting("sentence_bert_config.json", max_seq_length=1), "max_seq_length is 1; give"),
    "sparse": (setting("config_sentence_transformers.json", model_type="SparseEncoder"), 'is "SparseEncoder"; only'),
    "no prompt": (
        setting("config_sentence_transformers.json", default_prompt_name="web"),
        'is "web", and there',
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_by_name(what, folder):
    change, message = REFUSED[what]
    (folder / "3_Normalize").mkdir()
    change(folder)
    with pytest.raises(DataError, match=message) as error:
        Embedder(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(("activation", "pooling"), [("linear", POOLER), ("tanh", TANH)])
@pytest.mark.parametrize("config", [ROFORMER, BERT], ids=["roformer", "bert"])
def test_a_pooler_that_config_json_names_makes_the_vectors(config, activation, pooling, tmp_path):
    """As RoFormer-Sim's pooler_activation does."""
    folder = write_model(tmp_path / "m", config)
    edit(folder / "config.json", pooler_activation=activation)
    found = Embedder(folder, max_length=20).encode(TEXTS)
    given = load_text_encoder(folder)
    np.testing.assert_allclose(found, np.stack([by_hand(given, text, 20)[pooling] for text in TEXTS]), atol=2e-5)


def test_a_pooler_that_nothing_names_is_told_of(tmp_path, said):
    folder = write_model(tmp_path / "m", BERT)
    embedder = Embedder(folder, max_length=20)
    found = [embedder.encode(TEXTS) for _ in range(2)][1]
    assert len(said) == 1 and "the mean of the tokens, as is usual for a BERT; of a SimBERT or RoFormer-Sim" in said[0]
    np.testing.assert_array_equal(found, Embedder(folder, max_length=20).encode(TEXTS, "mean"))
    assert len(said) == 1
    Embedder(write_model(tmp_path / "n", replace(BERT, pooler="none")), max_length=20).encode(TEXTS)
    assert len(said) == 1


def test_a_pooler_that_is_named_and_lacking_is_refused(tmp_path):
    folder = write_model(tmp_path / "m", replace(ROFORMER, pooler="none"))
    edit(folder / "config.json", pooler_activation="linear")
    with pytest.raises(DataError, match="the model has no pooler, which pooling 'pooler' is of"):
        Embedder(folder).encode(TEXTS)


def test_export_keeps_all_that_a_folder_says(folder, tmp_path):
    export_encoder(ExportEncoderConfig(model=str(folder), folder=str(tmp_path / "out")))
    there, here = Embedder(folder), Embedder(tmp_path / "out")
    for prompt in ("", *PROMPTS):
        np.testing.assert_array_equal(here.encode(TEXTS, prompt=prompt), there.encode(TEXTS, prompt=prompt))


@pytest.mark.parametrize("given", [{"whitening": "w.safetensors"}, {"normalise": True}, {"max_length": 9}], ids=str)
def test_export_refuses_what_is_of_vectors_where_no_pooling_is_known(given, tmp_path):
    folder = write_model(tmp_path / "m", replace(BERT, pooler="none"))
    with pytest.raises(DataError, match="does not say how they are made; give --pooling too"):
        export_encoder(ExportEncoderConfig(model=str(folder), folder=str(tmp_path / "out"), **given))
    assert not (tmp_path / "out").exists()


def test_onnx_without_the_converter_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(DataError, match=r"--onnx needs jax2onnx: pip install 'pegasus-zh\[onnx\]'"):
        export_encoder(ExportEncoderConfig(model="nowhere", folder=str(tmp_path / "out"), onnx=True))
