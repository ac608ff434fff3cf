"""How sentence-transformers says that vectors are made (Reimers and Gurevych 2019, arXiv 1908.10084; the files of
https://www.sbert.net): modules.json, a folder for each module beside it, read and written.

What is computed here is a Transformer, a Pooling of [CLS] or of all tokens' mean, of the last layer or, by a
WeightedLayerPooling, of two; after that any number of Dense and Normalize. All else is refused by name: no code of a
folder is run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.vectors.pooling import Pooling, other_layer
from retrieval.vectors.steps import Activation, Dense, Normalize, Step
from rope.encoder.roformer import RoFormerConfig
from training.files.atomic import read_json, write_json
from training.files.errors import AGAIN, DataError, damaged
from training.files.weights import check_fit, fill, open_weights, write_safetensors

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "Identity",
    "torch.nn.modules.activation.Tanh": "Tanh",
    "torch.nn.modules.activation.ReLU": "ReLU",
}
_MODES = {  # of releases before 5.5: a switch each
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ONLY: dict[str, dict[str, Any]] = {  # settings of the modules that are computed in no other way
    "Transformer": {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    | {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}}
    | dict.fromkeys(("processing_kwargs", "processor_kwargs", "model_args", "tokenizer_args", "query_expansion"), None)
    | dict.fromkeys(("config_args", "config_kwargs", "tokenizer_name_or_path"), None),
    "Dense": {"module_input_name": "sentence_embedding", "use_residual": False},
    "Normalize": {"module_input_name": "sentence_embedding"},
}
_SENTENCE = {"module_output_name": ("sentence_embedding", None)}


@dataclass(frozen=True)
class Modules:
    """What a folder's files say."""

    transformer: Path
    layers: Path | None  # of a WeightedLayerPooling
    pooling: Path
    after: tuple[tuple[str, Path], ...]  # Dense and Normalize
    length: int | None  # None: as many ids as the model has positions
    lowers: bool  # are texts put in lower case, whatever the tokenizer does?
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""

    def read_steps(self, config: RoFormerConfig) -> tuple[Pooling, tuple[Step, ...]]:
        """(the pooling, what comes after it) for vectors of this model. Raises DataError."""
        pooling, width = _pooling(self.pooling / "config.json", config.width, any(self.prompts.values())), config.width
        if self.layers:
            pooling = _layers(self.layers, self.transformer, config, pooling)
        steps: list[Step] = []
        for kind, folder in self.after:
            file = folder / "config.json"
            about = read_json(file) if kind == "Dense" or file.is_file() else {}
            _check_only(about, kind, file)
            if kind == "Normalize":
                steps.append(Normalize())
            else:
                steps.append(dense := _read_dense(about, file, width))
                width = dense.width(width)
        return pooling, tuple(steps)


def read_modules(folder: Path) -> Modules:
    """The modules of a sentence-transformers folder. Raises DataError for those that are not computed here."""
    listed = _kinds(folder / MODULES)
    kinds = [kind for kind, _ in listed]
    head = ["Transformer", "WeightedLayerPooling", "Pooling"]
    head = head if "WeightedLayerPooling" in kinds else ["Transformer", "Pooling"]
    if kinds[: len(head)] != head or {*kinds[len(head) :]} - {"Dense", "Normalize"}:
        raise DataError(
            f"{folder / MODULES}: {', '.join(kinds)}; only a Transformer, [WeightedLayerPooling,] Pooling, and after "
            "them Dense and Normalize, in this order, can be read"
        )
    transformer = listed[0][1]
    file = next(iter(sorted(transformer.glob("sentence_*_config.json"))), transformer / TRANSFORMER)
    about = read_json(file) if file.is_file() else {}
    _check_only(about, "Transformer", file)
    length = about.get("max_seq_length")
    if length is None and (settings := transformer / "tokenizer_config.json").is_file():
        length = read_json(settings).get("model_max_length")
        length = length if type(length) is int and length <= 1 << 16 else None  # 10^30 where it is not known
    if length is not None and (type(length) is not int or length < 3):
        raise DataError(f"{file}: max_seq_length is {json.dumps(length)}; give a whole number of 3 or more")
    return Modules(
        transformer,
        listed[1][1] if len(head) == 3 else None,
        listed[len(head) - 1][1],
        tuple(listed[len(head) :]),
        length,
        about.get("do_lower_case") is True,
        *_prompts(folder / PROMPTS),
    )


def _kinds(file: Path) -> list[tuple[str, Path]]:
    """(class, folder) of each module but those of training alone."""
    try:
        listed = json.loads(file.read_bytes())
        found = [(module["type"], module["path"]) for module in listed]
        kinds = [(kind.rpartition(".")[2], file.parent / path) for kind, path in found]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise damaged(file, error, "not a list of modules with type and path") from None
    for kind, path in found:
        if not kind.startswith("sentence_transformers."):
            raise DataError(f"{file}: {kind!r} is code of the folder's own, which is not run; give another model")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise DataError(f"{file}: path {path!r} leads out of the folder; {AGAIN}")
    return [(kind, path) for kind, path in kinds if kind != "Dropout"]


def _check_only(about: dict[str, Any], kind: str, file: Path) -> None:
    allowed = {name: (only, None) for name, only in _ONLY[kind].items()} | (_SENTENCE if kind != "Transformer" else {})
    for name, values in allowed.items():
        if (value := about.get(name)) not in (*values, {}):
            wanted = " or absent".join(json.dumps(value) for value in values[:1])
            raise DataError(f"{file}: {name} is {json.dumps(value)}; only {wanted} can be read")


def _prompts(file: Path) -> tuple[dict[str, str], str]:
    about = read_json(file) if file.is_file() else {}
    prompts, default = about.get("prompts") or {}, about.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(x, str) for x in prompts.values()):
        raise DataError(f"{file}: prompts are {json.dumps(prompts)[:80]}; they must be texts by name")
    if about.get("truncate_dim") is not None:
        raise DataError(
            f"{file}: truncate_dim is {json.dumps(about['truncate_dim'])}; only null can be read: write that, and take "
            "the first dimensions of what is made here"
        )
    if about.get("model_type") not in (None, "SentenceTransformer"):
        raise DataError(
            f"{file}: model_type is {json.dumps(about['model_type'])}; only SentenceTransformer can be read"
        )
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise DataError(f"{file}: default_prompt_name is {json.dumps(default)}, and there is none of that name")
    return prompts, default or ""


def _pooling(file: Path, width: int, prompted: bool) -> Pooling:
    about = read_json(file)
    switched = [mode for name, mode in _MODES.items() if about.get(name)]
    modes = about.get("pooling_mode", switched or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if modes not in (["cls"], ["mean"]):
        raise DataError(f"{file}: the pooling is {json.dumps(modes)}; only cls or mean, one of them, can be read")
    if prompted and about.get("include_prompt", True) is not True:
        raise DataError(f"{file}: include_prompt is false, and there are prompts; only true can be read")
    size = about.get("embedding_dimension", about.get("word_embedding_dimension", width))
    if size != width:
        raise DataError(f"{file}: vectors of {json.dumps(size)} dimensions, and the model's are of {width}; {AGAIN}")
    return "cls" if modes == ["cls"] else "mean"


def _layers(folder: Path, transformer: Path, config: RoFormerConfig, pooling: Pooling) -> Pooling:
    """The pooling of two layers whose mean a WeightedLayerPooling takes. Raises DataError for other weights."""
    file, layers = folder / "config.json", config.layers
    start = read_json(file).get("layer_start")
    if type(start) is not int or not 0 <= start <= layers:
        raise DataError(f"{file}: layer_start is {json.dumps(start)}; the model has {layers} layers")
    if read_json(transformer / "config.json").get("output_hidden_states") is not True:
        raise DataError(
            f"{transformer / 'config.json'}: output_hidden_states is not true, so sentence-transformers passes over "
            f"{folder.name} and takes the last layer; set it to true, or take that out of {MODULES}"
        )
    weights = np.zeros(layers + 1)
    stored, where = open_weights(folder)
    slots = {"layer_weights": weights[start:].astype(np.float32)}
    check_fit(slots, stored, where, f"a WeightedLayerPooling from layer {start}")
    fill(slots, stored)
    weights[start:] = slots["layer_weights"]
    for name in ("first-last", "last-two"):
        if pooling == "mean" and np.allclose(weights / weights.sum(), layer_weights(name, layers)):
            return "first-last" if name == "first-last" else "last-two"
    raise DataError(
        f"{where}: the weights of layers are {weights.round(3).tolist()}, and the pooling {pooling}; only the mean of "
        "the last layer with the first or the last but one can be read"
    )


def layer_weights(pooling: str, layers: int) -> np.ndarray:
    """[L + 1] for the embeddings and each layer, of a pooling of two layers."""
    weights = np.zeros(layers + 1, np.float32)
    for layer in (other_layer(pooling, layers), layers - 1):
        weights[layer + 1] += 0.5
    return weights


def _read_dense(about: dict[str, Any], file: Path, width: int) -> Dense:
    named = about.get("activation_function", "torch.nn.modules.activation.Tanh")
    if str(named) not in _ACTIVATIONS:
        raise DataError(
            f"{file}: activation_function is {json.dumps(named)}; only {', '.join(_ACTIVATIONS)} can be read"
        )
    given, kept = about.get("in_features"), about.get("out_features")
    if given != width or type(kept) is not int or not 0 < kept <= 1 << 16:
        raise DataError(f"{file}: from {given} to {kept} dimensions, and the vectors before it have {width}; {AGAIN}")
    stored, where = open_weights(file.parent)
    dense = Dense(np.zeros((width, kept), np.float32), np.zeros(kept, np.float32), _ACTIVATIONS[named])
    slots = {"linear.weight": dense.kernel.T} | ({"linear.bias": dense.bias} if about.get("bias", True) else {})
    check_fit(slots, stored, where, "a Dense")
    fill(slots, stored)
    return dense


def write_modules(
    folder: Path,
    config: RoFormerConfig,
    pooling: Pooling,
    steps: Sequence[Step],
    length: int,
    prompts: Mapping[str, str],
    default_prompt: str,
) -> None:
    """Writes into the folder of an encoder for transformers what makes it one for sentence-transformers.

    pooling and steps: those of `Modules.read_steps`; of a pooler, whose Dense is among the steps, [CLS].
    """
    modules = [("Transformer", "")]
    settings: list[tuple[str, dict[str, Any], dict[str, np.ndarray]]] = []
    if other_layer(pooling, config.layers) >= 0:
        about = {"layer_start": 0, "num_hidden_layers": config.layers}
        settings.append(("WeightedLayerPooling", about, {"layer_weights": layer_weights(pooling, config.layers)}))
    mode = "pooling_mode_mean_tokens" if pooling in ("mean", "first-last", "last-two") else "pooling_mode_cls_token"
    settings.append(("Pooling", {name: name == mode for name in _MODES}, {}))
    for step in steps:
        if isinstance(step, Dense):
            sizes = {"in_features": step.kernel.shape[0], "out_features": step.kernel.shape[1], "bias": True}
            named = next(name for name, activation in _ACTIVATIONS.items() if activation == step.activation)
            weights = {"linear.weight": step.kernel.T, "linear.bias": step.bias}
            settings.append(("Dense", sizes | {"activation_function": named}, weights))
        else:
            settings.append(("Normalize", {}, {}))
    for number, (kind, about, weights) in enumerate(settings, 1):
        modules.append((kind, f"{number}_{kind}"))
        (place := folder / modules[-1][1]).mkdir()
        if kind in ("Pooling", "WeightedLayerPooling"):
            about = {"word_embedding_dimension": config.width} | about
        write_json(place / "config.json", about)
        if weights:
            write_safetensors(place / "model.safetensors", weights.items(), "float32")
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(modules)
    ]
    write_json(folder / MODULES, listed)
    write_json(folder / TRANSFORMER, {"max_seq_length": length, "do_lower_case": False})
    write_json(folder / PROMPTS, {"prompts": dict(prompts), "default_prompt_name": default_prompt or None})
