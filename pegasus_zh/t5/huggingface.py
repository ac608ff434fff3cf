"""mT5 as transformers stores it: the tensors' names, config.json, and a whole folder written.

The model is mT5 exactly, so nothing but names and the side of a transposition changes. Of bert4keras's departures
(`MT5Config.gelu`, `scaled_output`, `cross_bias`) the exact GELU has a name in transformers, the scale of the output
goes into the head, and a bias in the cross-attention has no counterpart. Our own key `pegasus_zh` in config.json says
what holds for the weights as they are written.

Start, end and padding ids and the greatest length are saved too, so that `generate` writes what `decoding.write` does.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from pegasus_zh.t5.mt5 import MT5, MT5Config, init
from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.tokenizers import Tokenizer
from rope.config_files import ACTIVATIONS, BELONGS, number
from training.files.atomic import atomic_write, read_json, write_json
from training.files.buckets import absolute
from training.files.errors import DataError
from training.files.weights import open_weights, read, read_tensors, write_safetensors

MAX_LENGTH = 128  # of what `generate` writes unless told otherwise: T5-PEGASUS's target length, start token included
OWN_KEY = "pegasus_zh"
OWN_TYPE = "t5-pegasus"  # an mT5 with a cross_bias, which no class of transformers computes
SWITCHES = {
    "gelu": ("tanh", "erf"),
    "scaled_output": (False, True),
    "cross_bias": (False, True),
}  # and what they may be
_EMBEDDING, _HEAD = "shared.weight", "lm_head.weight"
# Copies of shared.weight that files of torch hold, and an array that T5 once had and never used.
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
# What transformers calls the two functions; "gelu" after "gated-" is the one by tanh there,
# "gelu_python" the exact one.
_GATES = {"tanh": "gated-gelu", "erf": "gated-gelu_python"}
_SIZES = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "d_kv": "head_size",
    "d_ff": "feed_forward",
    "num_layers": "layers",
    "num_heads": "heads",
}
_DECODER = "num_decoder_layers"  # as many as num_layers where it is not there
_SETTINGS = {
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "dropout_rate": "dropout",
    "layer_norm_epsilon": "epsilon",
}
# What may be said of the search, and what is as good as nothing said.
_SEARCH = {
    "num_beams": 1,
    "do_sample": False,
    "length_penalty": 1,
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "early_stopping": False,
    "num_return_sequences": 1,
    "max_length": 20,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "diversity_penalty": 0,
    "num_beam_groups": 1,
    **dict.fromkeys(
        (
            "max_new_tokens",
            "bad_words_ids",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "begin_suppress_tokens",
            "sequence_bias",
            "exponential_decay_length_penalty",
            "force_words_ids",
            "stop_strings",
        )
    ),
}
_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD = {"gate": "wi_0", "linear": "wi_1", "output": "wo"}


def huggingface_tensors(model: MT5) -> Iterator[tuple[str, Any]]:
    """Every array of the model, layer by layer, under its name in transformers' MT5ForConditionalGeneration.

    torch stores the kernel of a product [out, in]. Works on anything of the model's structure: gradients, shapes. Of
    NumPy arrays these are views, to read from or to write to.
    """
    yield _EMBEDDING, model.embedding
    for stack_name, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        yield f"{stack_name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack.relative_bias
        last = 1 if stack.blocks.cross_attention is None else 2
        names = {
            "self_norm": "layer.0.layer_norm",
            "self_attention": "layer.0.SelfAttention",
            "cross_norm": "layer.1.layer_norm",
            "cross_attention": "layer.1.EncDecAttention",
            "feed_forward_norm": f"layer.{last}.layer_norm",
            "feed_forward": f"layer.{last}.DenseReluDense",
        }
        for i in range(len(stack.blocks.self_norm)):
            for path, array in jax.tree.leaves_with_path(stack.blocks):
                sublayer, *kernel = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
                kernels = _FEED_FORWARD if sublayer == "feed_forward" else _ATTENTION
                name = ".".join([names[sublayer], *(kernels[k] for k in kernel), "weight"])
                yield f"{stack_name}.block.{i}.{name}", array[i].T
        yield f"{stack_name}.final_layer_norm.weight", stack.final_norm
    yield _HEAD, model.head.T


def read_folder(folder: Path) -> tuple[MT5, MT5Config, bool, str]:
    """(the model, its config, whether our own key says its switches, what was read) of a folder. Raises DataError."""
    file = folder / "config.json"
    about = read_json(file)
    stored, weights = open_weights(folder)
    if about.get("model_type") is None:
        about = {**about, "model_type": _kind_of(about, stored, file)}
    config, is_own = read_config(about, file)
    ignored, what = (*_COPIES, *_UNUSED), about["model_type"]
    # Every mT5 that transformers 5 makes anew has one array for both.
    if _HEAD not in stored and about.get("tie_word_embeddings", what == "t5") is True:
        stored |= {_HEAD: stored[_EMBEDDING]} if _EMBEDDING in stored else {}
        what += ", its head the embedding,"
    if _EMBEDDING in stored and not any(name.startswith("decoder.") for name in stored):
        named = "".join(f" ({x})" for x in (about.get("architectures") or [])[:1])
        raise DataError(f"{weights}: an encoder alone{named}: no decoder to write with; give the whole model")
    model = read_tensors(partial(init, config), huggingface_tensors, stored, weights, "an mT5", ignored)
    for name in _COPIES:
        if name in stored and not np.array_equal(read(name, stored[name]).astype(np.float32), model.embedding):
            raise DataError(f"{stored[name].file}: {name!r} is not shared.weight again; mT5 has one embedding for both")
    return model, config, is_own, f"{what} in {stored[_EMBEDDING].dtype} of {weights.name}"


def _kind_of(about: dict[str, Any], stored: Collection[str], file: Path) -> str:
    """The model_type that a config.json lacks, by the model's class or its tensors. Raises DataError where it is open:
    what differs is whether a tied head has a scale before it."""
    classes = about.get("architectures") or [""]
    if str(classes[0]).startswith(("MT5", "T5")):
        return "mt5" if str(classes[0]).startswith("MT5") else "t5"
    if _EMBEDDING not in stored:
        raise DataError(f"{file}: no model_type, and no tensor {_EMBEDDING!r}, which every T5 has: not of this kind")
    if not any(name.endswith("wi_0.weight") for name in stored):
        return "t5"  # before v1.1, which is refused
    if _HEAD not in stored:
        raise DataError(
            f"{file}: no model_type, and no {_HEAD!r} in the weights, so that it may be an mT5 or a T5, which "
            'compute otherwise: add "model_type": "mt5" or "t5"'
        )
    return "mt5"


def read_suppressed(folder: Path, vocabulary: int) -> tuple[int, ...]:
    """The ids that are never written, by generation_config.json. Raises DataError for what are none of a vocabulary of
    so many."""
    file = _generation_file(folder)
    found = read_json(file).get("suppress_tokens") or []
    if not isinstance(found, list) or not all(type(i) is int and 0 <= i < vocabulary for i in found):
        raise DataError(f"{file}: suppress_tokens is {json.dumps(found):.80}: give a list of ids below {vocabulary:,}")
    return tuple(found)


def searched_with(folder: Path) -> str:
    """What a folder says of the search, such as "generation_config.json has num_beams 4, length_penalty 0.6"."""
    about = read_json(file := _generation_file(folder))
    usual = _SEARCH | ({"max_length": MAX_LENGTH} if OWN_KEY in read_json(folder / "config.json") else {})
    asked = {key: about[key] for key, value in usual.items() if about.get(key) not in (None, value)}
    told = ", ".join(f"{key} {json.dumps(value):.80}" for key, value in asked.items())
    return told and f"{file.name} has {told}"


def _generation_file(folder: Path) -> Path:
    """What transformers heeds of how texts are written: config.json has it in folders of earlier releases."""
    file = folder / "generation_config.json"
    return file if file.exists() else folder / "config.json"


def read_config(about: dict[str, Any], file: Path) -> tuple[MT5Config, bool]:
    """(the model of a config.json of mT5 or T5 v1.1, whether our own key says its switches). Raises DataError."""
    kind, gate = about.get("model_type"), about.get("feed_forward_proj")
    if kind not in ("mt5", "t5", OWN_TYPE):
        raise DataError(f"{file}: model_type is {kind!r}; only mt5 and t5 (v1.1) are read")
    gate = gate or ("gated-gelu" if kind == "mt5" else "relu")  # transformers' defaults
    named = about.get("dense_act_fn")
    activation = named or {"gated-gelu": "gelu_new"}.get(str(gate), str(gate).rpartition("-")[2])
    if named and str(named) not in ACTIVATIONS:
        raise DataError(f"{file}: dense_act_fn is {json.dumps(named)}; only {', '.join(ACTIVATIONS)} can be read")
    if not str(gate).startswith("gated-") or str(activation) not in ACTIVATIONS:
        raise DataError(
            f"{file}: feed_forward_proj is {gate!r}, a T5 before v1.1 or another function; needs gated-gelu"
        )
    sizes = _SIZES if about.get(_DECODER) in (None, about.get("num_layers")) else _SIZES | {_DECODER: "decoder_layers"}
    values = {ours: number(about, name, file, int) for name, ours in sizes.items()}
    defaults = {field.name: field.default for field in dataclasses.fields(MT5Config)}
    for name, ours in _SETTINGS.items():
        if name in about:
            values[ours] = number(about, name, file, type(defaults[ours]))
    # T5 multiplies its output by D^-0.5 unless config.json says otherwise, as v1.1's do; mT5 never does.
    scaled = kind == "t5" and about.get("scale_decoder_outputs", about.get("tie_word_embeddings") is not False)
    try:
        config = MT5Config(**values, gelu=ACTIVATIONS[activation], scaled_output=bool(scaled))
    except ValueError as error:
        raise DataError(f"{file}: {error}; {BELONGS}") from None
    own = about.get(OWN_KEY)
    if own is None:
        return config, False
    if not isinstance(own, dict) or any(value not in SWITCHES.get(name, ()) for name, value in own.items()):
        allowed = "; ".join(f"{name}: {' or '.join(map(json.dumps, values))}" for name, values in SWITCHES.items())
        raise DataError(f"{file}: {OWN_KEY} is {json.dumps(own)}; it may hold {allowed}")
    return replace(config, **own), True


CrossBias = Literal["refuse", "keep", "leave out"]


def written_config(config: MT5Config, out: Path, cross_bias: CrossBias) -> MT5Config:
    """What holds for the weights as `write_folder` writes them.
    Raises DataError where transformers has no place for it."""
    if config.cross_bias and cross_bias == "refuse":
        raise DataError(
            f"{out}: not written: the model has the decoder's relative bias in its cross-attention (cross_bias), as "
            "bert4keras trains it, and transformers has no place for that; add --without-cross-bias to leave it out, "
            "which makes another, worse model"
        )
    return replace(config, scaled_output=False, cross_bias=config.cross_bias and cross_bias == "keep")


def write_folder(
    out: Path,
    model: MT5,
    config: MT5Config,
    tokenizer: Tokenizer,
    *,
    dtype: str = "float32",
    cross_bias: CrossBias = "refuse",
    suppressed: Sequence[int] = (),
    overwrite: bool = False,
) -> None:
    """Writes model and tokenizer for transformers into the new folder `out`, whole or not at all.

    suppressed: ids that are never to be written, beside padding.

    A model with a cross_bias is refused, or written without it, or kept as it is for this project's own code alone: its
    model_type is then one that transformers does not know. Raises `DataError` for what is refused, and where `out`
    exists and is not empty, unless `overwrite` is given and it is an earlier export.
    """
    out = absolute(out)
    check_free(out, overwrite)
    written = written_config(config, out, cross_bias)
    if config.scaled_output:
        model = replace(model, head=model.head * np.float32(config.width**-0.5))
    with atomic_write(out) as temporary:
        temporary.mkdir()
        write_safetensors(temporary / "model.safetensors", huggingface_tensors(model), dtype)
        write_json(temporary / "config.json", _model_json(written, tokenizer, dtype))
        write_json(temporary / "generation_config.json", _generation_json(tokenizer, suppressed))
        write_tokenizer(tokenizer, temporary)


def check_free(out: Path, overwrite: bool) -> None:
    """The target must be new, or empty, or an earlier export that may be replaced. Raises DataError."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    config = out / "config.json"
    if not config.is_file() or OWN_KEY not in config.read_bytes().decode(errors="replace"):
        raise DataError(f"{out}: exists and is not an export of this project; name another folder")
    if not overwrite:
        raise DataError(f"{out}: exists already; add --overwrite, or name another folder")


def _model_json(config: MT5Config, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["MT5ForConditionalGeneration"],
        "model_type": OWN_TYPE if config.cross_bias else "mt5",
        **{name: getattr(config, ours) for name, ours in (_SIZES | _SETTINGS).items()},
        _DECODER: config.decoder_depth,
        "feed_forward_proj": _GATES[config.gelu],
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        **_special_ids(tokenizer),
        OWN_KEY: {name: getattr(config, name) for name in SWITCHES},
    }


def _generation_json(tokenizer: Tokenizer, suppressed: Sequence[int]) -> dict[str, Any]:
    never = [tokenizer.pad_id, *suppressed]
    return {**_special_ids(tokenizer), "max_length": MAX_LENGTH, "suppress_tokens": never}


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    start, eos, pad = tokenizer.start_id, tokenizer.eos_id, tokenizer.pad_id
    return {"decoder_start_token_id": start, "eos_token_id": eos, "pad_token_id": pad}
