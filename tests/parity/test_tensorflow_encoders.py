"""BERT, SimBERT, RoFormer and RoFormer-Sim as TensorFlow's checkpoints and Keras's weights: transformers' numbers."""

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tensorflow = pytest.importorskip("tensorflow")

from rope.encoder.load import load_encoder
from tests.parity.test_roformer import CLASSES, compare, inputs, saved
from tests.rope.encoder.random_encoder import outputs, random_rows
from training.files.errors import DataError


def variables(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """transformers' random model by the published list of Google's names; a RoFormer gets a random pooler."""
    found = published(kind, {name: x.numpy() for name, x in saved(kind, folder).state_dict().items()})
    if kind == "roformer":
        random, shapes = np.random.default_rng(0), {"kernel": (24, 24), "bias": (24,)}
        found |= {f"bert/pooler/dense/{end}": random.normal(size=s).astype("f4") for end, s in shapes.items()}
    return found


def published(kind: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """transformers' tensors of a model with a head by Google's names."""
    found = {}
    for name, x in state.items():
        name = name.removeprefix(f"{kind}.")
        if "embed_positions" in name or "position_ids" in name or "decoder" in name:
            continue
        name = f"bert.{name}" if not name.startswith("cls.") else name
        name = name.replace("layer.", "layer_").replace("embeddings_project", "encoder.embedding_hidden_mapping_in")
        if name == "cls.seq_relationship.weight":
            name = "cls.seq_relationship.output_weights"
        elif name in ("cls.predictions.bias", "cls.seq_relationship.bias"):
            name = name.replace("bias", "output_bias")
        elif "LayerNorm" in name:
            name = name.replace("weight", "gamma").replace("bias", "beta")
        elif name.endswith("_embeddings.weight"):
            name = name.removesuffix(".weight")
        elif name.endswith(".weight"):
            name, x = name.replace(".weight", ".kernel"), x.T
        found[name.replace(".", "/")] = np.ascontiguousarray(x)
    return found


def write_tensorflow(folder: Path, found: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    v1 = tensorflow.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for name, x in found.items():
            v1.get_variable(name, initializer=x)
        v1.get_variable("bert/pooler/dense/bias/adam_m", initializer=np.ones(24, np.float32))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False, write_state=False)
    return folder


def write_keras(folder: Path, found: dict[str, np.ndarray], **more: np.ndarray) -> Path:
    """As Keras 2 writes what bert4keras names: layers, and in each weights in the order of the layer's own."""
    folder.mkdir()
    dense, norm = ("kernel", "bias"), ("LayerNorm/beta", "LayerNorm/gamma")
    layers = {
        "Embedding-Token": ["bert/embeddings/word_embeddings"],
        "Embedding-Segment": ["bert/embeddings/token_type_embeddings"],
        "Embedding-Position": ["bert/embeddings/position_embeddings"],
        "Embedding-Norm": [f"bert/embeddings/{x}" for x in norm],
        "Embedding-Mapping": [f"bert/encoder/embedding_hidden_mapping_in/{x}" for x in dense],
        "Pooler-Dense": [f"bert/pooler/dense/{x}" for x in dense],
        "MLM-Dense": [f"cls/predictions/transform/dense/{x}" for x in dense],
        "MLM-Norm": [f"cls/predictions/transform/{x}" for x in norm],
        "MLM-Bias": ["cls/predictions/output_bias"],
    }
    for i in range(2):
        here, name = f"bert/encoder/layer_{i}", f"Transformer-{i}"
        products = ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense")
        layers[f"{name}-MultiHeadSelfAttention"] = [f"{here}/{x}/{end}" for x in products for end in dense]
        layers[f"{name}-MultiHeadSelfAttention-Norm"] = [f"{here}/attention/output/{x}" for x in norm]
        layers[f"{name}-FeedForward"] = [f"{here}/{x}/dense/{end}" for x in ("intermediate", "output") for end in dense]
        layers[f"{name}-FeedForward-Norm"] = [f"{here}/output/{x}" for x in norm]
    weights = {layer: [found[x] for x in names] for layer, names in layers.items() if names[0] in found}
    weights |= {name: [x] for name, x in more.items()}
    with h5py.File(folder / "best_model.weights", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("Input-Token", *weights)]
        file.create_group("Input-Token").attrs["weight_names"] = []
        for layer, arrays in weights.items():
            names = [f"{layer}/dense_{n}/kernel:0" for n in range(len(arrays))]
            file.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name, x in zip(names, arrays, strict=True):
                file[layer][name] = x
    return folder


ABOUT = {
    "hidden_act": "gelu",
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "vocab_size": 50,
    "type_vocab_size": 3,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pooler_type": "first_token_transform",
}


def configure(folder: Path, kind: str, **more) -> Path:
    about = ABOUT | ({"embedding_size": 10} if kind == "roformer" else {}) | more
    (folder / "bert_config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("write", [write_tensorflow, write_keras])
@pytest.mark.parametrize("kind", ["bert", "roformer"])
def test_transformers_numbers(kind, write, tmp_path, said):
    found = variables(tmp_path / "theirs", kind)
    folder = configure(write(tmp_path / "ours", found), kind)
    encoder = load_encoder(folder)
    rows = random_rows(encoder.config)
    ours = outputs(encoder.model, rows, encoder.config)
    masked, plain = (
        x.from_pretrained(tmp_path / "theirs").eval() for x in CLASSES["rotary" if kind == "roformer" else "learned"]
    )
    compare(ours, masked, plain, rows)
    if kind == "roformer":  # RoFormer-Sim's pooler, which transformers has not
        with torch.no_grad():
            first = plain(**inputs(rows)).last_hidden_state[:, 0].numpy()
        wanted = first @ found["bert/pooler/dense/kernel"] + found["bert/pooler/dense/bias"]
        np.testing.assert_allclose(ours["pooled"], np.tanh(wanted), atol=1e-4)
    assert any("a RoFormer, since it has no table of positions" in line for line in said) == (kind == "roformer")


def test_layers_on_top_are_passed_over_and_told_of(tmp_path, said):
    found = variables(tmp_path / "theirs", "bert")
    folder = configure(write_keras(tmp_path / "ours", found, dense_49=np.ones((24, 2), np.float32)), "bert")
    assert load_encoder(folder).config.layers == 2
    assert said == [f"{folder / 'best_model.weights'}: layers beside the encoder are passed over: dense_49"]


def test_refused_by_name(tmp_path):
    found = variables(tmp_path / "theirs", "roformer")
    folder = write_tensorflow(tmp_path / "nezha", found)
    with pytest.raises(DataError, match="neither config.json nor bert_config.json; add the one that belongs"):
        load_encoder(folder)
    configure(folder, "roformer", use_relative_position=True)
    with pytest.raises(DataError, match="use_relative_position is set, which is NEZHA's"):
        load_encoder(folder)
    second = {name: x for name, x in found.items() if "bias" not in name and "LayerNorm" not in name}
    with pytest.raises(DataError, match="no biases, as RoFormer-V2 has it"):
        load_encoder(configure(write_tensorflow(tmp_path / "v2", second), "roformer"))
    folder = configure(write_keras(tmp_path / "keras", found), "roformer")
    with h5py.File(folder / "best_model.weights", "r+") as file:
        attributes = file["Transformer-0-MultiHeadSelfAttention"].attrs
        attributes["weight_names"] = attributes["weight_names"][::2]
    with pytest.raises(DataError, match="has 4 weights, and of BERT and RoFormer 8: a RoFormer-V2"):
        load_encoder(folder)
    with h5py.File(folder / "best_model.weights", "r+") as file:
        del file.attrs["layer_names"]
    with pytest.raises(DataError, match="no layer_names, as Keras 2 writes them"):
        load_encoder(folder)
    (folder / "best_model.weights").write_bytes(b"PK")
    with pytest.raises(DataError, match="not a whole HDF5 file of Keras's weights"):
        load_encoder(folder)
    (folder / "last.weights").touch()
    with pytest.raises(DataError, match="best_model.weights and last.weights; leave the one that is meant"):
        load_encoder(folder)
