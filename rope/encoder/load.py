"""An encoder from wherever it lies: a run of scripts.pretrain_encoder, a folder of transformers, a checkpoint of
TensorFlow."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rope.encoder.bert4keras import read_checkpoint, read_keras
from rope.encoder.config_json import read_pooling
from rope.encoder.huggingface import read_encoder
from rope.encoder.roformer import RoFormer, RoFormerConfig, init
from rope.layers.kernels import Implementation
from rope.positions.extension import Extension
from training.checkpoints import read_model
from training.files.buckets import on_disk, path_of
from training.files.errors import DataError
from training.files.folders import kind_of_folder
from training.files.tensorflow_files import keras_files, open_checkpoint


class Encoder(NamedTuple):
    model: RoFormer
    config: RoFormerConfig
    tokenizer: str | None = None  # a run's: the fingerprint of its tokenizer
    pooling: str | None = None  # what its vectors were trained with: of a run of scripts.simcse, or by config.json
    attention: Implementation = "auto"  # what computed it in the run's training; the config has auto


def load_encoder(path: Path | str, *, step: int | None = None) -> Encoder:
    """The encoder as float32 NumPy arrays, its config, and which tokenizer its run had.

    step: which checkpoint of a run, by default the newest undamaged one; damaged ones are told of. Raises DataError for
    whatever is neither, or does not fit.
    """
    path = path_of(path, "the model")
    kind = kind_of_folder(path)
    path = path if kind == "run" else on_disk(path)
    match kind:
        case "run":
            _, about, model = read_model(path, lambda about, where: partial(init, _config(about, where)), step)
            config = _config(about, path)
            return Encoder(model, config, about.get("tokenizer"), about.get("pooling"), about["encoder"]["attention"])
        case "huggingface":
            if step is not None:
                raise DataError(f"{path}: a Hugging Face folder holds one model; leave out the step")
            found = read_encoder(path)
        case "tensorflow":
            found = read_checkpoint(path, *open_checkpoint(path, step))
        case "keras":
            found = read_keras(path, keras_files(path), step)
    return Encoder(*found, pooling=read_pooling(path))


def _config(about: dict[str, Any], where: Path) -> RoFormerConfig:
    try:
        saved = about["encoder"]
        # What computed attention in the training is no part of the model.
        return RoFormerConfig(**saved | {"extension": Extension(**saved["extension"]), "attention": "auto"})
    except (KeyError, TypeError):
        raise DataError(
            f"{where}: not a checkpoint of an encoder; give the work folder of scripts.pretrain_encoder"
        ) from None
