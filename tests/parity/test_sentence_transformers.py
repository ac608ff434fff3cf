"""Folders of sentence-transformers in and out: the same vectors there and here."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import torch as safetensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling

from retrieval import Embedder
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.vectors.arrays import unit
from retrieval.vectors.pooling import POOLINGS
from retrieval.vectors.whitening import moments, whiten
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TEXTS, VOCABULARY
from tests.rope.encoder.random_encoder import BERT, ROFORMER
from training.files.errors import DataError

SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
SIZES |= {"intermediate_size": 20, "max_position_embeddings": 40}
PROMPT = "我们去"


def saved(
    folder: Path, *modules, prompts=None, hidden_states: bool = False, **length
) -> "sentence_transformers.SentenceTransformer":
    """A BERT of random weights with these modules after it, as sentence-transformers saves it."""
    torch.manual_seed(5)
    base = folder.parent / "base"
    model = transformers.BertModel(transformers.BertConfig(**SIZES, output_hidden_states=hidden_states)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(base)
    (base / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    transformers.BertTokenizer(str(base / "vocab.txt")).save_pretrained(base)
    made = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(base), **length), *modules], prompts=prompts, device="cpu"
    )
    made.save(str(folder))
    return made


def two_layers(*weights: float) -> WeightedLayerPooling:
    return WeightedLayerPooling(24, 3, 0, torch.nn.Parameter(torch.tensor(weights, dtype=torch.float32)))


@pytest.mark.parametrize(
    "modules",
    {
        "bge": lambda: [Pooling(24, "cls"), Normalize()],
        "text2vec": lambda: [Pooling(24, "mean")],
        "tanh": lambda: [Pooling(24, "cls"), Dense(24, 24), Normalize()],
        "two": lambda: [
            Pooling(24, "mean"),
            Dense(24, 16, bias=False),
            Dense(16, 8, activation_function=torch.nn.ReLU()),
        ],
        "first-last": lambda: [two_layers(0, 2, 0, 2), Pooling(24, "mean"), Normalize()],
        "last-two": lambda: [two_layers(0, 0, 1, 1), Pooling(24, "mean")],
    }.items(),
    ids=lambda x: x[0],
)
def test_their_folders_here(modules, tmp_path):
    name, make = modules
    theirs = saved(tmp_path / name, *make(), hidden_states=name in ("first-last", "last-two"), max_seq_length=20)
    found = Embedder(tmp_path / name).encode(TEXTS)
    np.testing.assert_allclose(found, theirs.encode(TEXTS), atol=1e-4)


def test_their_prompts_here(tmp_path):
    prompts = {"query": PROMPT, "passage": "，"}
    theirs = saved(tmp_path / "m", Pooling(24, "mean"), prompts=prompts, max_seq_length=12)
    ours = Embedder(tmp_path / "m")
    for name in ("", "query", "passage"):
        wanted = theirs.encode(TEXTS, prompt_name=name or None)
        np.testing.assert_allclose(ours.encode(TEXTS, prompt=name), wanted, atol=1e-4)
    with pytest.raises(DataError, match="no prompt 'web'; there is document, passage, query"):
        ours.encode(TEXTS, prompt="web")
    theirs.default_prompt_name = "query"
    theirs.save(str(tmp_path / "m"))
    np.testing.assert_allclose(Embedder(tmp_path / "m").encode(TEXTS), theirs.encode(TEXTS), atol=1e-4)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (lambda: [Pooling(24, "max")], r'the pooling is \["max"\]; only cls or mean'),
        (lambda: [Pooling(24, ("cls", "mean"))], r'the pooling is \["cls", "mean"\]'),
        (lambda: [Pooling(24, "weightedmean")], "weightedmean"),
        (lambda: [Pooling(24, "mean"), Dense(24, 8, activation_function=torch.nn.GELU())], "GELU.*; only torch.nn"),
        (lambda: [Pooling(24, "mean"), Dense(24, 24, use_residual=True)], "use_residual is true; only false"),
        (lambda: [two_layers(1, 1, 1, 1), Pooling(24, "mean")], r"the weights of layers are \[1.0, 1.0"),
    ],
)
def test_what_is_not_computed_here_is_refused_by_name(modules, message, tmp_path):
    saved(tmp_path / "m", *modules(), hidden_states=True)
    with pytest.raises(DataError, match=message) as error:
        Embedder(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_layers_that_sentence_transformers_passes_over_are_refused(tmp_path):
    """Without hidden states its module returns what it was given, the last layer, and says nothing."""
    theirs = saved(tmp_path / "m", two_layers(0, 1, 0, 1), Pooling(24, "mean"))
    np.testing.assert_array_equal(theirs.encode(TEXTS), saved(tmp_path / "n", Pooling(24, "mean")).encode(TEXTS))
    with pytest.raises(DataError, match="output_hidden_states is not true, so sentence-transformers passes over"):
        Embedder(tmp_path / "m")


def cosines(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors) @ unit(vectors).T


@pytest.mark.parametrize("config", [ROFORMER, replace(BERT, layers=3)], ids=["roformer", "bert"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_ours_there_and_back(config, pooling, tmp_path):
    """With whitening, of every pooling: our vectors there, and again here."""
    model, out = str(write_model(tmp_path / "m", config)), tmp_path / "out"
    plain = Embedder(model, max_length=20).encode(TEXTS, pooling)
    whitening = whiten(moments([plain]), 6)
    whitening.save(tmp_path / "w.safetensors")
    given = {"whitening": str(tmp_path / "w.safetensors"), "normalise": True, "max_length": 20}
    export_encoder(ExportEncoderConfig(model=model, folder=str(out), pooling=pooling, **given))
    wanted = unit(whitening(plain))
    theirs = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    for found in (theirs.encode(TEXTS), Embedder(out).encode(TEXTS)):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        np.testing.assert_allclose(cosines(found), cosines(wanted), atol=1e-5)
    export_encoder(ExportEncoderConfig(model=str(out), folder=str(tmp_path / "again")))
    np.testing.assert_array_equal(Embedder(tmp_path / "again").encode(TEXTS), Embedder(out).encode(TEXTS))
    assert (out / "modules.json").read_bytes() == (tmp_path / "again" / "modules.json").read_bytes()
    if pooling in ("first-last", "last-two"):
        assert not np.allclose(plain, Embedder(model, max_length=20).encode(TEXTS, "mean"), atol=1e-2)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_roformer_sim(activation, tmp_path):
    """Its folder: a RoFormer with a pooler that transformers passes over, and that config.json names."""
    torch.manual_seed(3)
    model = transformers.RoFormerModel(transformers.RoFormerConfig(**SIZES | {"max_position_embeddings": 1536})).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    dense = torch.nn.Linear(24, 24)
    model.save_pretrained(tmp_path)
    weights = safetensors.load_file(tmp_path / "model.safetensors")
    weights |= {f"pooler.dense.{name}": x for name, x in dense.state_dict().items()}
    safetensors.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    about = json.loads((tmp_path / "config.json").read_text()) | {"pooler_activation": activation}
    (tmp_path / "config.json").write_text(json.dumps(about))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    with torch.no_grad():
        first = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).last_hidden_state[:, 0]
        wanted = dense(first).tanh() if activation == "tanh" else dense(first)
    np.testing.assert_allclose(Embedder(tmp_path).encode(TEXTS), wanted, atol=1e-4)
