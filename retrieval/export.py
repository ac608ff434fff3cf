"""An encoder written for others: a folder for transformers, and where its vectors are known also for
sentence-transformers; or a checkpoint of TensorFlow for bert4keras."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.onnx import FILE, write_vectors
from retrieval.vectors.encoding import check_length
from retrieval.vectors.modules import write_modules
from retrieval.vectors.pooling import OF_POOLER, Pooling, check_poolings, other_layer
from retrieval.vectors.source import SentenceEncoder, dense_of, load_sentence_encoder
from retrieval.vectors.steps import Dense, Normalize
from retrieval.vectors.whitening import Whitening, load_whitening
from rope.encoder.bert4keras import write_checkpoint
from rope.encoder.huggingface import write_encoder
from rope.encoder.roformer import PoolerKind, RoFormer, RoFormerConfig
from training.files.atomic import check_new
from training.files.buckets import loadable_name, path_of
from training.files.errors import DataError
from training.onnx import check_converter
from training.partition import Dtype
from training.ranges import check_ranges
from training.telling import tell

_OF_VECTORS = ("whitening", "normalise", "onnx", "max_length")


@dataclass(frozen=True, kw_only=True)
class ExportEncoderConfig:
    """Write an encoder as a folder for transformers (RoFormerForMaskedLM or BertForMaskedLM), and for
    sentence-transformers where a pooling is known or given; or as a checkpoint of TensorFlow."""

    model: str
    """The work folder of a run of scripts.pretrain_encoder or scripts.simcse, or a Hugging Face folder."""
    folder: str
    """The new folder."""
    form: Literal["huggingface", "tensorflow"] = "huggingface"
    """tensorflow: bert_model.ckpt, bert_config.json and vocab.txt, as Google and bert4keras have them."""
    pooling: Pooling | Literal["auto"] = "auto"
    """Of the vectors, for sentence-transformers; auto: what the model was tuned with, if that is known."""
    whitening: str = ""
    """What scripts.whiten made of vectors of the same model and pooling: written as a Dense."""
    normalise: bool = False
    """Vectors of length 1."""
    onnx: bool = False
    """Write vectors.onnx too: from ids to vectors, with all of the above inside, in float32; needs jax2onnx."""
    max_length: int | None = None
    """Ids of a text for sentence-transformers; by default what the model's folder says, else 64."""
    step: int | None = None
    """Which checkpoint of several; by default the newest undamaged one."""
    dtype: Dtype = "float32"
    """Of the weights."""

    def __post_init__(self):
        check_ranges(self, max_length=3)
        if self.form == "tensorflow":
            given = [name for name in (*_OF_VECTORS, "dtype") if getattr(self, name) != getattr(type(self), name)]
            if given:
                raise ValueError(f"{given[0]} goes with --form huggingface: a checkpoint holds an encoder in float32")


def export_encoder(config: ExportEncoderConfig) -> Path:
    """Writes the folder, says how to load it, and returns it. Raises DataError as loading and writing do."""
    out = path_of(config.folder, "--folder")
    check_new(out)
    if config.onnx:
        check_converter()
    source = load_sentence_encoder(config.model, step=config.step)
    pooling = source.pooling if config.pooling == "auto" else source.choose(config.pooling)
    if config.form == "tensorflow":
        kind = _write_tensorflow(out, source, pooling)
    elif pooling is None:
        _check_unasked(config)
        kind = write(out, source.text, config.dtype)
    else:
        kind = _write_sentences(out, source, pooling, config)
    tell(f"{out}: {sum(x.size for x in jax.tree.leaves(source.text.model)) / 1e6:.1f}M parameters in {config.dtype}")
    folder = loadable_name(out)
    if config.form == "tensorflow":
        tell(f"build_transformer_model({folder + '/bert_config.json'!r}, {folder + '/bert_model.ckpt'!r}, {kind!r})")
    elif pooling is None:
        tell(f"from transformers import AutoTokenizer, {kind}")
        tell(f"tokenizer = AutoTokenizer.from_pretrained({folder!r})  # needs: pip install transformers torch rjieba")
        tell(f"model = {kind}.from_pretrained({folder!r})")
    else:
        tell(
            f"from sentence_transformers import SentenceTransformer  # pooling {pooling}; pip install rjieba beside it"
        )
        tell(f"vectors = SentenceTransformer({folder!r}).encode(texts)")
    return out


def _check_unasked(config: ExportEncoderConfig) -> None:
    for name in _OF_VECTORS:
        if getattr(config, name):
            raise DataError(
                f"--{name.replace('_', '-')}: of vectors, and {config.model} does not say how they are made; give "
                "--pooling too"
            )


def write(out: Path, text: TextEncoder, dtype: Dtype) -> str:
    """Writes the encoder and its tokenizer for transformers. Raises DataError."""
    return write_encoder(out, text.model, text.config, dtype=dtype, write_more=partial(write_tokenizer, text.tokenizer))


def _write_tensorflow(out: Path, source: SentenceEncoder, pooling: Pooling | None) -> str:
    """Raises DataError for what a checkpoint does not hold."""
    if pooling is not None and source.steps_of(pooling):
        raise DataError(f"{source.where}: what follows its pooling is not written to a checkpoint; give a --pooling")
    model, about, settings = _with_pooler(source.text, pooling)
    return write_checkpoint(out, model, about, settings, source.text.tokenizer.save)


def _with_pooler(text: TextEncoder, pooling: Pooling | None) -> tuple[RoFormer, RoFormerConfig, dict[str, Any]]:
    """(the model, its config and what config.json says more) where vectors of this pooling are to be those of the
    folder: a pooler ends in what the pooling does."""
    if pooling not in OF_POOLER:
        return text.model, text.config, {}
    ends: PoolerKind = "tanh" if pooling == "pooler-tanh" else "linear"
    return text.model, replace(text.config, pooler=ends), {"pooler_activation": ends}


def _write_sentences(out: Path, source: SentenceEncoder, pooling: Pooling, config: ExportEncoderConfig) -> str:
    text, steps = source.text, list(source.steps_of(pooling))
    check_poolings([pooling], text.config, config.model)
    check_length(text.config, length := config.max_length or source.length)
    model, about, settings = _with_pooler(text, pooling)
    if pooling in OF_POOLER:  # as a Dense too: transformers' RoFormer has none, and its BERT no other than with tanh
        steps.insert(0, dense_of(model, pooling))
    if config.whitening:
        steps.append(_as_dense(load_whitening(config.whitening), source.width(pooling)))
    if config.normalise:
        steps.append(Normalize())
    two = other_layer(pooling, about.layers) >= 0

    def write_more(folder: Path) -> None:
        write_tokenizer(text.tokenizer, folder)
        write_modules(folder, about, pooling, steps, length, source.prompts, source.default_prompt)
        if config.onnx:  # of a pooler the Dense is among the steps
            alone, plain = replace(model, pooler=None), replace(about, pooler="none")
            write_vectors(folder / FILE, alone, plain, "cls" if pooling in OF_POOLER else pooling, steps)

    # Without its hidden states a model's pooling of two layers is passed over in silence there.
    settings |= {"output_hidden_states": True} if two else {}
    return write_encoder(out, model, about, dtype=config.dtype, settings=settings, write_more=write_more)


def _as_dense(whitening: Whitening, width: int) -> Dense:
    """(x - mean) kernel as x kernel + bias; the bias is summed in float64."""
    whitening(np.zeros(width, np.float32))  # raises for another width
    return Dense(whitening.kernel, (-whitening.mean.astype(np.float64) @ whitening.kernel).astype(np.float32))
