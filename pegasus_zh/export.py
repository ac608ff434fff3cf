"""A checkpoint of a run -> a folder that transformers loads: MT5ForConditionalGeneration and its tokenizer.

The model is mT5 exactly, so nothing but names and the side of a transposition changes. The tokenizer's files:

* pegasus: vocab.txt, which `load_tokenizer` reads, and tokenizer.json for RoFormerTokenizer, the one class of
  transformers that cuts by jieba (HMM off) and looks words up before BERT's wordpiece. It needs `pip install rjieba`.
  Its ids are ours but for control, private and unassigned characters (it drops them before the text is cut into words,
  we after, or not at all), Latin words of more than 100 characters ([UNK] there, pieces here), c++ and c# where the
  vocabulary lacks them (likewise), and special tokens written out in the text ([SEP] is one token there, plain text
  here). It decodes with spaces between all tokens.
  (vocab.txt alone is not enough for transformers 5.23: its class then takes no word of several characters for a token.)
* sentencepiece: spiece.model and the same model as tokenizer.json. T5Tokenizer would make <unk> of the characters that
  our ids spell as bytes, so the class is PreTrainedTokenizerFast. Its ids are ours but where two cuts of a text are
  equally probable, and for special tokens written out in the text.

Start, end and padding ids and the greatest length are saved too, so that `generate` writes what `decoding.greedy` does.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from pegasus_zh.errors import DataError
from pegasus_zh.mt5 import MT5, MT5Config, init
from pegasus_zh.tokenizers import (
    CLS,
    MASK,
    PAD,
    SENTENCEPIECE_FILE,
    SEP,
    UNK,
    PegasusTokenizer,
    Tokenizer,
    load_tokenizer,
)
from training.checkpoint import Checkpoints, DamagedCheckpoint

MAX_LENGTH = 128  # of what `generate` writes unless told otherwise: T5-PEGASUS's target length, start token included
SAFETENSORS_NAMES = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a checkpoint as a folder for transformers (MT5ForConditionalGeneration)."""

    run: str
    """The work folder of a run, or the checkpoints folder in it."""
    folder: str
    """The new folder."""
    step: int | None = None
    """Which checkpoint; the newest undamaged one by default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""
    overwrite: bool = False
    """Replace an earlier export in the same place."""


def export(config: ExportConfig, say: Callable[[str], None] = print) -> Path:
    """Writes the folder, says how to load it, and returns it. Raises what `read_model` and `write_folder` raise."""
    out = Path(config.folder)
    _check_free(out, config.overwrite)
    step, about, model = read_model(Path(config.run), config.step, say)
    tokenizer = _run_tokenizer(Path(config.run), about["tokenizer"])
    write_folder(out, model, MT5Config(**about["model"]), tokenizer, dtype=config.dtype, overwrite=config.overwrite)
    size = sum(x.size for x in jax.tree.leaves(model)) / 1e6
    say(f"{out}: step {step} of {config.run}, {size:.1f}M parameters in {config.dtype}; load it with")
    say("from transformers import AutoTokenizer, MT5ForConditionalGeneration")
    say(f"tokenizer = AutoTokenizer.from_pretrained({str(out)!r})")
    say(f"model = MT5ForConditionalGeneration.from_pretrained({str(out)!r})")
    return out


def write_folder(
    out: Path, model: MT5, config: MT5Config, tokenizer: Tokenizer, *, dtype: str = "float32", overwrite: bool = False
) -> None:
    """Writes model and tokenizer for transformers into the new folder `out`, whole or not at all.

    Raises `DataError` where `out` exists and is not empty, unless `overwrite` is given and it is an earlier export.
    """
    out = out.absolute()
    _check_free(out, overwrite)
    temporary, replaced = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    temporary.mkdir(parents=True)
    try:
        write_safetensors(temporary / "model.safetensors", huggingface_tensors(model), dtype)
        _write_json(temporary / "config.json", _model_json(config, tokenizer, dtype))
        _write_json(temporary / "generation_config.json", _generation_json(tokenizer))
        write_tokenizer(tokenizer, temporary)
        if out.exists():
            os.replace(out, replaced)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def read_model(run: Path, step: int | None, say: Callable[[str], None] = print) -> tuple[int, dict[str, Any], MT5]:
    """(step, the checkpoint's config, the model as NumPy arrays) of a run's newest undamaged checkpoint, or of `step`.

    `run` is the work folder or its checkpoints folder. Neither the run's mesh nor its optimizer is needed. Raises
    `DataError` if there is no such checkpoint, it is not of an mT5, or (where `step` is given) it is damaged.
    """
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    with Checkpoints(folder, keep=None) as checkpoints:
        if step is not None and step not in checkpoints.steps:
            raise DataError(f"{folder}: no checkpoint of step {step}; it has the steps {checkpoints.steps}")
        for number in reversed(checkpoints.steps) if step is None else [step]:
            try:
                about = checkpoints.config(number)
                abstract = jax.eval_shape(partial(init, _model_config(about, folder / str(number))), jax.random.key(0))
                return number, about, checkpoints.restore_model(number, abstract)
            except DamagedCheckpoint as error:
                if step is not None:
                    raise DataError(f"{error}; leave out --step for the newest undamaged one") from None
                say(f"{error}; trying the one before it")
    raise DataError(f"{folder}: no undamaged checkpoint here; give the work folder of a finished or running training")


def huggingface_tensors(model: MT5) -> Iterator[tuple[str, Any]]:
    """Every array of the model, layer by layer, under its name in transformers' MT5ForConditionalGeneration.

    torch stores the kernel of a product [out, in]. Works on anything of the model's structure: gradients, shapes.
    """
    yield "shared.weight", model.embedding
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
    yield "lm_head.weight", model.head.T


_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD = {"gate": "wi_0", "linear": "wi_1", "output": "wo"}


def write_safetensors(path: Path, tensors: Iterator[tuple[str, np.ndarray]], dtype: str) -> None:
    """Writes the arrays one after the other, so that only one is ever copied (the library's writer wants them all).

    The format: the header's length as 8 bytes, a JSON header, the data (https://github.com/huggingface/safetensors).
    """
    arrays = dict(tensors)  # views
    numpy_type = jax.numpy.dtype(dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.size * numpy_type.itemsize
        header[name] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, numpy_type).view(np.uint8).data)


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer's own file, and tokenizer.json and tokenizer_config.json for transformers."""
    tokenizer.save(folder)
    # Without model_input_names transformers adds token_type_ids, which MT5's generate refuses.
    about: dict[str, Any] = {"model_input_names": ["input_ids", "attention_mask"]}
    if isinstance(tokenizer, PegasusTokenizer):
        vocabulary = {token: i for i, token in enumerate(tokenizer.vocabulary)}
        fast = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))  # the class adds the rest by itself
        about |= {"tokenizer_class": "RoFormerTokenizer", "do_lower_case": True}
        about |= {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
    else:
        fast = _fast_sentencepiece(folder / SENTENCEPIECE_FILE)
        about |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        about |= {name: fast.id_to_token(i) for i, name in enumerate(("pad_token", "eos_token", "unk_token"))}
    fast.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", about)


def _fast_sentencepiece(path: Path) -> tokenizers.Tokenizer:
    """A unigram sentencepiece model for the tokenizers library, with its normalisation and its bytes."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    if proto.trainer_spec.model_type != sentencepiece_model_pb2.TrainerSpec.UNIGRAM:
        raise DataError("the tokenizer is a sentencepiece model, but not a unigram one as mT5's; it cannot be exported")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    fast = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=proto.trainer_spec.byte_fallback))
    rules, steps = proto.normalizer_spec, []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    fast.normalizer = normalizers.Sequence(steps)
    prefix = "always" if rules.add_dummy_prefix else "never"
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prefix)])
    end = pieces[1][0]
    fast.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    return fast


def _model_json(config: MT5Config, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["MT5ForConditionalGeneration"],
        "model_type": "mt5",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "d_kv": config.head_size,
        "d_ff": config.feed_forward,
        "num_layers": config.layers,
        "num_decoder_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.max_distance,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.epsilon,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        **_special_ids(tokenizer),
    }


def _generation_json(tokenizer: Tokenizer) -> dict[str, Any]:
    return {**_special_ids(tokenizer), "max_length": MAX_LENGTH, "suppress_tokens": [tokenizer.pad_id]}


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    start, eos, pad = tokenizer.start_id, tokenizer.eos_id, tokenizer.pad_id
    return {"decoder_start_token_id": start, "eos_token_id": eos, "pad_token_id": pad}


def _model_config(about: dict[str, Any], checkpoint: Path) -> MT5Config:
    try:
        return MT5Config(**about["model"])
    except (KeyError, TypeError):
        raise DataError(f"{checkpoint}: not a checkpoint of an mT5; give the work folder of scripts.pretrain") from None


def _run_tokenizer(run: Path, fingerprint: str) -> Tokenizer:
    folder = (run if (run / "checkpoints").is_dir() else run.absolute().parent) / "data" / "tokenizer"
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != fingerprint:
        raise DataError(f"{folder}: not the tokenizer that the checkpoint was trained with; put that one there")
    return tokenizer


def _check_free(out: Path, overwrite: bool) -> None:
    """The target must be new, or empty, or an earlier export that may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "model.safetensors").is_file() or not (out / "config.json").is_file():
        raise DataError(f"{out}: exists and is not an export; name another folder")
    if not overwrite:
        raise DataError(f"{out}: exists already; add --overwrite, or name another folder")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
