"""config.json of transformers, and bert_config.json of Google and bert4keras: what model it is, or what of it is not
computed here."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from rope.config_files import ACTIVATIONS, BELONGS, SIZES, config_in, number
from rope.encoder.roformer import PoolerKind, RoFormerConfig
from training.files.atomic import read_json
from training.files.errors import DataError

Kind = Literal["roformer", "bert"]
OWN_KEY = "pegasus_zh"
POSITIONS = 1536  # positions that a RoFormer of transformers has at least: its table of sinusoids ends its longest row
CLASSES = {"roformer": "RoFormer", "bert": "Bert"}
SETTINGS = {
    "type_vocab_size": "types",
    "max_position_embeddings": "max_positions",
    "layer_norm_eps": "epsilon",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
_FIXED = {  # what this package computes in no other way; norm_type and use_bias are RoFormerV2's
    "rotary_value": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "norm_type": "layer_norm",
    "use_bias": True,
}
GELU = {"erf": "gelu", "tanh": "gelu_new"}


def read_config(about: dict[str, Any], file: Path) -> tuple[RoFormerConfig, PoolerKind]:
    """(the model of a config.json, what its pooler ends in, if it has one). Raises DataError."""
    kind, activation = about.get("model_type"), about.get("hidden_act", "gelu")
    if str(kind) not in CLASSES:
        raise DataError(f"{file}: model_type is {json.dumps(kind)}; only {' and '.join(CLASSES)} are read")
    # RoFormer-Sim's port says that it is a decoder: with UniLM's mask, under which a first text sees itself alone.
    unilm = kind == "roformer" and about.get("pooler_activation") is not None
    for name, only in _FIXED.items():
        if name == "is_decoder" and unilm:
            continue
        if about.get(name) not in (None, only):
            raise DataError(f"{file}: {name} is {json.dumps(about[name])}; only {json.dumps(only)} can be read")
    if str(activation) not in ACTIVATIONS:
        raise DataError(f"{file}: hidden_act is {json.dumps(activation)}; only {', '.join(ACTIVATIONS)} can be read")
    values = {ours: number(about, name, file, int) for name, ours in SIZES.items()}
    for name, ours in SETTINGS.items():
        if name in about:
            values[ours] = number(about, name, file, type(getattr(RoFormerConfig, ours)))
    if kind == "roformer":
        values.setdefault("max_positions", POSITIONS)
        if about.get("embedding_size") not in (None, values["width"]):
            values["embedding"] = number(about, "embedding_size", file, int)
    try:
        config = RoFormerConfig(
            **values, positions="rotary" if kind == "roformer" else "learned", gelu=ACTIVATIONS[activation]
        )
    except ValueError as error:
        raise DataError(f"{file}: {error}; {BELONGS}") from None
    own = about.get(OWN_KEY, {"pooler": about.get("pooler_activation") or "tanh"})
    if not isinstance(own, dict) or own.get("pooler") not in ("none", "tanh", "linear"):
        raise DataError(f"{file}: the pooler is {json.dumps(own)}; it may be none, tanh or linear")
    return config, own["pooler"]


def find_config(folder: Path) -> Path:
    """The config of an encoder's folder. Raises DataError where there is none."""
    if (file := config_in(folder)) is None:
        raise DataError(
            f"{folder}: neither config.json nor bert_config.json; add the one that belongs to the weights, with "
            f"{', '.join(SIZES)}"
        )
    return file


def kind_of(about: dict[str, Any], names: Collection[str], file: Path) -> Kind:
    """The model_type that a config lacks, by the model's class or transformers' names of its tensors. Raises DataError
    where it is open: NEZHA has no table of positions either."""
    classes = about.get("architectures") or [""]
    if about.get("use_relative_position"):
        raise DataError(f"{file}: use_relative_position is set, which is NEZHA's; only BERT and RoFormer are read")
    if any(name.endswith("embeddings.position_embeddings.weight") for name in names):
        return "bert"
    if str(classes[0]).startswith("RoFormer") or any(
        name.startswith("roformer.") or name == "encoder.embed_positions.weight" for name in names
    ):
        return "roformer"
    raise DataError(
        f"{file}: no model_type, and the tensors are neither a BERT's, which has a table of positions, nor by name a "
        'RoFormer\'s: add "model_type": "roformer" if it is one'
    )


def read_pooling(folder: Path) -> str | None:
    """The pooling of a folder's vectors by its config: that of the pooler (RoFormer-Sim), if it says so."""
    told = read_json(find_config(folder)).get("pooler_activation")
    return {"linear": "pooler", "tanh": "pooler-tanh"}.get(str(told))


def check_biases(names: Collection[str], where: Path) -> None:
    """Raises DataError for a RoFormer-V2 (Su et al. 2022), whose config need not say that it is one."""
    query = [name for name in names if "attention" in name and "query" in name]
    if query and not any("bias" in name for name in query):
        raise DataError(
            f"{where}: no biases, as RoFormer-V2 has it, whose RMSNorm is not computed here; give a RoFormer or a BERT"
        )
