"""TensorFlow checkpoints of T5 v1.1's shape: T5-PEGASUS as bert4keras saves it, and Google's own mT5 and T5 v1.1.

The names are Google's (Mesh TensorFlow); bert4keras writes the same. A kernel is [in, out] as ours, the table of
relative biases [heads, buckets]. A norm is called rms_norm or layer_norm, the last one of a stack final_layer_norm too.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax

from pegasus_zh.t5.mt5 import MT5, MT5Config, init
from rope.config_files import BELONGS, SIZES, config_in, number
from training.files.atomic import read_json
from training.files.errors import DataError
from training.files.tensorflow_files import open_checkpoint
from training.files.weights import Stored, read_tensors

_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD = {"gate": "wi_0/kernel", "linear": "wi_1/kernel", "output": "wo/kernel"}
_SETTINGS = {  # the last that is there counts
    "attention_head_size": "head_size",
    "attention_key_size": "head_size",
    "relative_attention_num_buckets": "buckets",
}
_NORMS = ("rms_norm", "layer_norm", "final_layer_norm")


def tensorflow_tensors(model: MT5, stored: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every array of the model, as a view in the checkpoint's orientation, under its name among those of `stored`."""

    def norm(place: str) -> str:
        found = [f"{place}/{name}/scale" for name in _NORMS]
        return next((name for name in found if name in stored), found[0])

    yield "shared/embedding", model.embedding
    for stack_name, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        yield f"{stack_name}/block_000/layer_000/SelfAttention/relative_attention_bias", stack.relative_bias.T
        last = 1 if stack.blocks.cross_attention is None else 2
        for i in range(len(stack.blocks.self_norm)):
            layer = f"{stack_name}/block_{i:03d}/layer_{{:03d}}".format
            for path, array in jax.tree.leaves_with_path(stack.blocks):
                match jax.tree_util.keystr(path, simple=True, separator=".").split("."):
                    case ["self_norm"]:
                        name = norm(layer(0))
                    case ["cross_norm"]:
                        name = norm(layer(1))
                    case ["feed_forward_norm"]:
                        name = norm(layer(last))
                    case ["self_attention", kernel]:
                        name = f"{layer(0)}/SelfAttention/{_ATTENTION[kernel]}"
                    case ["cross_attention", kernel]:
                        name = f"{layer(1)}/EncDecAttention/{_ATTENTION[kernel]}"
                    case ["feed_forward", kernel]:
                        name = f"{layer(last)}/DenseReluDense/{_FEED_FORWARD[kernel]}"
                yield name, array[i]
        yield norm(stack_name), stack.final_norm
    yield "decoder/logits/kernel", model.head


def read_checkpoint(folder: Path, step: int | None = None) -> tuple[MT5, MT5Config, str]:
    """(the model, its config, what was read) of the one checkpoint in a folder, or of that of `step`.
    Raises DataError."""
    stored, index = open_checkpoint(folder, step)
    config = read_config(folder, stored, index)
    names = partial(tensorflow_tensors, stored=stored)
    model = read_tensors(partial(init, config), names, stored, index, "an mT5")
    return model, config, f"TensorFlow checkpoint {index.name}"


def read_config(folder: Path, stored: Mapping[str, Stored], index: Path) -> MT5Config:
    """The model of bert4keras's config.json (or *_config.json), or by the tensors' shapes where there is none, as with
    Google's checkpoints. Raises DataError."""
    file = config_in(folder)
    return _config_by_json(file) if file else _config_by_shapes(stored, index)


def _config_by_json(file: Path) -> MT5Config:
    about = read_json(file)
    values = {ours: number(about, name, file, int) for name, ours in SIZES.items()}
    for name, ours in _SETTINGS.items():
        if name in about:
            values[ours] = number(about, name, file, int)
    values.setdefault("head_size", values["width"] // values["heads"])
    try:
        return MT5Config(**values, dropout=_dropout(about, file))
    except ValueError as error:
        raise DataError(f"{file}: {error}; {BELONGS}") from None


def _dropout(about: dict[str, Any], file: Path) -> float:
    """Of fine-tuning; as bert4keras, none where the config names none."""
    rate = about.get("dropout_rate", about.get("hidden_dropout_prob"))
    if rate is None:
        return 0.0
    if type(rate) not in (int, float) or not 0 <= rate < 1:
        raise DataError(f"{file}: the rate of dropout is {rate!r}; give one from 0, below 1")
    return float(rate)


def _config_by_shapes(stored: Mapping[str, Stored], index: Path) -> MT5Config:
    block = "{}/block_{:03d}/layer_000/SelfAttention/q".format
    try:
        vocabulary, width = stored["shared/embedding"].shape
        heads, buckets = stored["encoder/block_000/layer_000/SelfAttention/relative_attention_bias"].shape
        inner = stored[block("encoder", 0)].shape[1]
        feed_forward = stored["encoder/block_000/layer_001/DenseReluDense/wi_0/kernel"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{index}: not a checkpoint of mT5 or T5 v1.1 ({error}); give another") from None
    layers, decoder_layers = (
        next(i for i in range(len(stored) + 1) if block(stack, i) not in stored) for stack in ("encoder", "decoder")
    )
    return MT5Config(
        vocabulary=vocabulary,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        head_size=inner // heads,
        layers=layers,
        decoder_layers=None if decoder_layers in (0, layers) else decoder_layers,
        buckets=buckets,
    )
