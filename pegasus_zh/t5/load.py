"""A model from wherever it lies: a run of ours, a Hugging Face folder, a TensorFlow checkpoint.

bert4keras, which T5-PEGASUS was trained with, computes three things otherwise than Google and transformers do: the
exact GELU, the decoder's output times D^-0.5 before the head, and the decoder's relative bias in its cross-attention
too. Weights do not say which of the two they were trained for, so what lies beside them does, unless config.json's own
key `pegasus_zh`, or the caller's `semantics`, says it. Of a folder for transformers with a vocab.txt the vocabulary
does: T5-PEGASUS's has jieba's words; UER's Chinese T5 v1.1 (Zhao et al., 2019, arXiv 1909.05658), whose arithmetic is
mT5's, has T5's sentinels by the names extra0 to extra99. One with neither is refused until it is said.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax

from pegasus_zh.t5 import bert4keras, huggingface
from pegasus_zh.t5.mt5 import MT5, MT5Config, init
from pegasus_zh.text.model_tokenizer import load_model_tokenizer
from pegasus_zh.text.spacing import is_chinese
from pegasus_zh.text.tokenizers import PEGASUS_FILE, SENTENCEPIECE_FILE, PegasusTokenizer, Tokenizer
from training.checkpoints import read_model
from training.files.buckets import on_disk, path_of
from training.files.errors import DataError
from training.files.folders import kind_of_folder
from training.files.tensorflow_files import keras_files
from training.files.weights import fingerprint

Semantics = Literal["auto", "mt5", "bert4keras"]
SEMANTICS: dict[str, dict[str, Any]] = {
    "mt5": {"gelu": "tanh", "scaled_output": False, "cross_bias": False},
    "bert4keras": {"gelu": "erf", "scaled_output": True, "cross_bias": True},
}
UER_SENTINEL = "extra0"
# Rows that no token has: T5's 100 <extra_id>s that lie beside its sentencepiece model,
# and padding to a multiple of 128.
_SPARE_ROWS = 256


@dataclass(frozen=True)
class Start:
    """What a model begins with: NumPy arrays, its config and tokenizer, and one line on where they are from."""

    model: MT5 | None  # None: random weights, to be made where they are used
    config: MT5Config
    tokenizer: Tokenizer
    source: str

    @property
    def fingerprint(self) -> str:
        """Of the weights, wherever they lie."""
        return fingerprint(self.model)


@dataclass(frozen=True)
class Loaded(Start):
    """A model that was read; the line says from where and which switches are set."""

    model: MT5
    suppressed: tuple[int, ...] = ()  # ids that it is never to write


def load(
    path: Path | str,
    *,
    semantics: Semantics = "auto",
    step: int | None = None,
) -> Loaded:
    """The model in a folder, whatever wrote it.

    Arrays are float32. semantics: instead of what the source tells; see above. step: which checkpoint of several, of a
    run by default the newest undamaged one; damaged ones are told of. Raises DataError for whatever does not fit.
    """
    path = path_of(path, "the model")
    if semantics not in get_args(Semantics):
        raise ValueError(f"semantics is {semantics!r}: it must be {', '.join(get_args(Semantics))}")
    kind, suppressed, is_own, why = kind_of_folder(path), tuple[int, ...](), False, "as it was trained"
    path = path if kind == "run" else on_disk(path)
    made_with: str | None = None
    match kind:
        case "run":
            number, about, model = read_model(path, run_init, step)
            config = _run_config(about)
            made_with, what = about["tokenizer"], f"step {number} of a run"
        case "huggingface":
            if step is not None:
                raise DataError(f"{path}: a Hugging Face folder holds one model; leave out --step")
            model, config, is_own, what = huggingface.read_folder(path)
            suppressed = huggingface.read_suppressed(path, config.vocabulary)
        case "tensorflow":
            model, config, what = bert4keras.read_checkpoint(path, step)
        case "keras":
            raise DataError(
                f"{path}: weights of Keras in {keras_files(path)[0].name}, which are read of encoders alone; "
                "write it with bert4keras's save_weights_as_checkpoint, or transformers' save_pretrained"
            )
    tokenizer = load_model_tokenizer(path, made_with)
    if kind != "run" and semantics == "auto":
        config, why = _as_trained(config, path, kind, is_own, tokenizer)
    _check_vocabulary(config, tokenizer, path)
    if semantics != "auto":
        config, why = replace(config, **SEMANTICS[semantics]), f"as asked for: {semantics}"
    size = sum(x.size for x in jax.tree.leaves(model)) / 1e6
    switches = f"gelu {config.gelu}, " + ", ".join(
        f"{name} {'on' if getattr(config, name) else 'off'}" for name in ("scaled_output", "cross_bias")
    )
    said = tokenizer.settings
    if {said.start, said.end, said.pad} != {None}:
        why += f"; starts with {tokenizer.start_id}, ends with {tokenizer.eos_id}, pads with {tokenizer.pad_id}"
    if kind == "huggingface" and (search := huggingface.searched_with(path)):
        why += f"; {search}, which only flags set here"
    source = f"{path}: {what}, {size:.1f}M parameters; {switches} ({why})"
    return Loaded(model, config, tokenizer, source, tuple(i for i in suppressed if i != tokenizer.pad_id))


def _as_trained(config: MT5Config, path: Path, kind: str, is_own: bool, tokenizer: Tokenizer) -> tuple[MT5Config, str]:
    """The config with the switches that the weights were trained for, and what says so. Raises DataError where nothing
    does."""
    if is_own:
        return config, f"by {huggingface.OWN_KEY} in config.json"
    if not isinstance(tokenizer, PegasusTokenizer):
        if kind == "tensorflow":
            return replace(config, **SEMANTICS["mt5"]), f"{SENTENCEPIECE_FILE}: Google's own weights"
        return config, "by config.json"
    if kind == "tensorflow":
        return replace(config, **SEMANTICS["bert4keras"]), f"{PEGASUS_FILE}: trained by bert4keras"
    words = [token for token in tokenizer.vocabulary if len(token) > 1 and all(map(is_chinese, token))]
    if UER_SENTINEL in tokenizer.vocabulary and not words:
        return config, f"by config.json; {PEGASUS_FILE} has {UER_SENTINEL}: UER's T5"
    if words and UER_SENTINEL not in tokenizer.vocabulary:
        why = f"{PEGASUS_FILE} has words of jieba such as {words[0]}: a port of T5-PEGASUS"
        return replace(config, **SEMANTICS["bert4keras"]), why
    raise DataError(
        f"{path / PEGASUS_FILE}: {'both' if words else 'neither'} words of several characters, as T5-PEGASUS has, "
        f"{'and' if words else 'nor'} {UER_SENTINEL}, as UER's T5 has: say what the weights were trained by, as in "
        f"docs/export.md: --semantics mt5 or bert4keras, or {huggingface.OWN_KEY} in config.json"
    )


def _check_vocabulary(config: MT5Config, tokenizer: Tokenizer, folder: Path) -> None:
    spare = config.vocabulary - tokenizer.vocab_size
    if not 0 <= spare < _SPARE_ROWS:
        raise DataError(
            f"{folder}: the embedding has {config.vocabulary:,} rows and the tokenizer {tokenizer.vocab_size:,} "
            "tokens; put the tokenizer there that belongs to the model"
        )
    marks = {"start": tokenizer.start_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    if wrong := [f"{name}_token_id is {i}" for name, i in marks.items() if i >= config.vocabulary]:
        raise DataError(f"{folder}: {wrong[0]}, and the embedding has {config.vocabulary:,} rows; write one of them")


def _run_config(about: dict[str, Any]) -> MT5Config:
    """Of a checkpoint. What computed attention in the training is no part of the model, and may be there no more."""
    return MT5Config(**about["model"] | {"attention": "auto"})


def run_init(about: dict[str, Any], checkpoint: Path) -> Callable[[jax.Array], MT5]:
    """What makes the mT5 of a checkpoint with this config, for training.checkpoints.read_model.
    Raises DataError for others."""
    try:
        return partial(init, _run_config(about))
    except (KeyError, TypeError):
        raise DataError(f"{checkpoint}: not a checkpoint of an mT5; give the work folder of scripts.pretrain") from None
