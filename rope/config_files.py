"""What the configs of other people's models have in common, whichever model it is."""

import json
from pathlib import Path
from typing import Any, Literal

from training.files.errors import DataError

SIZES = {  # in the words of BERT's, which bert4keras has for all models
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "intermediate_size": "feed_forward",
    "num_attention_heads": "heads",
    "num_hidden_layers": "layers",
}
ACTIVATIONS: dict[str, Literal["erf", "tanh"]] = {  # by transformers' names
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu_accurate": "tanh",
}
_NAMES = ("config.json", "bert_config.json")  # the first that is there counts
_OTHERS = [f"{of}_config.json" for of in ("tokenizer", "generation", "adapter", "preprocessor", "sentence_bert")]
BELONGS = "give the config.json that belongs to the weights"


def config_in(folder: Path) -> Path | None:
    """The model's config in a folder: config.json, else bert_config.json, else the one that ends so, if there is one.
    Raises DataError for several."""
    if named := [folder / name for name in _NAMES if (folder / name).is_file()]:
        return named[0]
    found = [file for file in sorted(folder.glob("*config.json")) if file.name not in _OTHERS]
    if len(found) > 1:
        raise DataError(f"{folder}: {found[0].name} and {found[1].name}; leave the one that belongs to the weights")
    return found[0] if found else None


def number(about: dict[str, Any], name: str, file: Path, kind: type) -> Any:
    """A size (int), which is at least 1, or another number from 0 (float). Raises DataError for what is none."""
    value: Any = about.get(name)
    # What is larger is no model's, and would overflow or fill the memory further down.
    most = 10_000 if name.endswith("_layers") else 1 << 24
    allowed = (int,) if kind is int else (int, float)
    if type(value) not in allowed or not (1 if kind is int else 0) <= value < most:
        raise DataError(f"{file}: {name} is {json.dumps(value)}; {BELONGS}")
    return kind(value)
