"""BERT, RoFormer, SimBERT and RoFormer-Sim as Google and bert4keras save them: TensorFlow's checkpoints, which are
written too, and Keras's weights.

The names in checkpoints are Google's for all of them: those of transformers' BERT, but that a kernel is [in, out] and
called so. A RoFormer is one without a table of positions. GELU is by erf, as bert4keras and transformers compute it of
Google's BERT too. Keras's files name layers alone, whose weights lie in the order of bert4keras's layers.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rope.config_files import SIZES
from rope.encoder.config_json import (
    GELU,
    OWN_KEY,
    SETTINGS,
    Kind,
    check_biases,
    find_config,
    kind_of,
    read_config,
)
from rope.encoder.huggingface import Names, as_published, encoder_tensors
from rope.encoder.roformer import RoFormer, RoFormerConfig, init
from rope.layers.transformer import STD
from training.files.atomic import atomic_write, check_new, read_json, write_json
from training.files.errors import DataError
from training.files.tensor_bundle import write_bundle
from training.files.tensorflow_files import open_keras
from training.files.weights import Stored, read_tensors
from training.telling import tell

_NAMES = Names(prefix="bert.", norm=("gamma", "beta"), head_bias="cls.predictions.output_bias")
_PROJECTION = "bert.encoder.embedding_hidden_mapping_in"  # ALBERT's name for it
_ENDS = ("kernel", "bias")
_NORM = ("LayerNorm/beta", "LayerNorm/gamma")
_LAYERS = {  # bert4keras's names, and of each weight, in its order, that in a checkpoint
    "Embedding-Token": ["bert/embeddings/word_embeddings"],
    "Embedding-Segment": ["bert/embeddings/token_type_embeddings"],
    "Embedding-Position": ["bert/embeddings/position_embeddings"],
    "Embedding-Norm": [f"bert/embeddings/{end}" for end in _NORM],
    "Embedding-Mapping": [f"{_PROJECTION}/{end}".replace(".", "/") for end in _ENDS],
    "Pooler-Dense": [f"bert/pooler/dense/{end}" for end in _ENDS],
    "NSP-Proba": [f"cls/seq_relationship/output_{end}" for end in ("weights", "bias")],
    "MLM-Dense": [f"cls/predictions/transform/dense/{end}" for end in _ENDS],
    "MLM-Norm": [f"cls/predictions/transform/{end}" for end in _NORM],
    "MLM-Bias": ["cls/predictions/output_bias"],
}
_ATTENTION = ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense")
_BLOCK = {  # the same within Transformer-i- and bert/encoder/layer_i/
    "MultiHeadSelfAttention": [f"{place}/{end}" for place in _ATTENTION for end in _ENDS],
    "MultiHeadSelfAttention-Norm": [f"attention/output/{end}" for end in _NORM],
    "FeedForward": [f"{place}/dense/{end}" for place in ("intermediate", "output") for end in _ENDS],
    "FeedForward-Norm": [f"output/{end}" for end in _NORM],
}
_IGNORED = ("cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias")


def tensorflow_tensors(model: RoFormer) -> Iterator[tuple[str, Any]]:
    """Every array of the model, as a view in the checkpoint's orientation, under its name there."""
    for name, array in encoder_tensors(model, _NAMES):
        name = name.replace("bert.embeddings_project", _PROJECTION).replace("encoder.layer.", "encoder.layer_")
        if name.endswith("_embeddings.weight"):
            name = name.removesuffix(".weight")
        elif name.endswith(".weight"):
            name, array = f"{name.removesuffix('.weight')}.kernel", array.T
        yield name.replace(".", "/"), array


def read_checkpoint(folder: Path, stored: Mapping[str, Stored], where: Path) -> tuple[RoFormer, RoFormerConfig]:
    """The model of a checkpoint's variables and of the bert_config.json (or config.json) in its folder, as float32
    NumPy arrays; with head and pooler where they are there. Raises DataError for whatever does not fit."""
    check_biases(stored, where)
    file = find_config(folder)
    about = read_json(file)
    positions = "bert.embeddings.position_embeddings.weight"
    has_table = "bert/embeddings/position_embeddings" in stored
    about["model_type"] = kind_of(about, [positions if has_table else "roformer."], file)
    if not has_table:
        tell(f"{where}: a RoFormer, since it has no table of positions")
    config, told = read_config(about, file)
    config = replace(
        config,
        head=any(name.startswith("cls/predictions/") for name in stored),
        pooler=told if any(name.startswith("bert/pooler/") for name in stored) else "none",
    )
    model = read_tensors(partial(init, config), tensorflow_tensors, stored, where, f"a {about['model_type']}", _IGNORED)
    return model, config


def write_checkpoint(
    out: Path, model: RoFormer, config: RoFormerConfig, settings: Mapping[str, Any], write_more: Callable[[Path], None]
) -> Kind:
    """Writes bert_model.ckpt and bert_config.json into the new folder `out`, whole or not at all, and returns what
    bert4keras's build_transformer_model takes for `model`.

    `settings` are further ones of the config; `write_more` adds files to the folder. Raises DataError for a model that
    bert4keras does not compute or that is not of this config, and where `out` exists and is not empty.
    """
    check_new(out)
    model, config, kind = as_published(model, config, out, "bert4keras")
    for name, only in (("gelu", "erf"), ("epsilon", RoFormerConfig.epsilon)):
        if (found := getattr(config, name)) != only:
            raise DataError(f"{out}: not written, since bert4keras has no such {kind}: {name} is {found}, there {only}")
    about = {theirs: getattr(config, ours) for theirs, ours in (SIZES | SETTINGS).items()}
    about |= {"hidden_act": GELU[config.gelu], "initializer_range": STD, OWN_KEY: {"pooler": config.pooler}, **settings}
    if config.embedding_width != config.width:
        about["embedding_size"] = config.embedding_width
    with atomic_write(out) as temporary:
        temporary.mkdir()
        write_bundle(temporary / "bert_model.ckpt", dict(tensorflow_tensors(model)))
        write_json(temporary / "bert_config.json", about)
        write_more(temporary)
    return kind


def read_keras(folder: Path, files: list[Path], step: int | None = None) -> tuple[RoFormer, RoFormerConfig]:
    """The same of the one file of Keras's weights in the folder, such as best_model.weights. Layers that are not the
    encoder's, as of a classifier on top, are passed over and told of. Raises DataError for several files, a step, and
    whatever does not fit."""
    if len(files) > 1:
        raise DataError(f"{folder}: {files[0].name} and {files[1].name}; leave the one that is meant")
    if step is not None:
        raise DataError(f"{folder}: a file of Keras's weights holds one model; leave out the step")
    layers, others = open_keras(files[0]), []
    stored: dict[str, Stored] = {}
    for layer, weights in layers.items():
        if (names := _names_of(layer)) is None:
            others.append(layer)
        elif len(names) != len(weights):
            raise DataError(
                f"{files[0]}: {layer} has {len(weights)} weights, and of BERT and RoFormer {len(names)}: a RoFormer-V2 "
                "(no biases), or another model that is not computed here; give one of those two"
            )
        else:
            stored |= dict(zip(names, weights, strict=True))
    if others:
        tell(f"{files[0]}: layers beside the encoder are passed over: {', '.join(others)}")
    return read_checkpoint(folder, stored, files[0])


def _names_of(layer: str) -> list[str] | None:
    """Of the weights of a layer of bert4keras, in a checkpoint."""
    if found := re.fullmatch(r"Transformer-(\d+)-(.+)", layer):
        return [f"bert/encoder/layer_{found[1]}/{name}" for name in _BLOCK.get(found[2], [])] or None
    return _LAYERS.get(layer)
