"""The tokenizer that belongs to a model, wherever the model lies."""

from pathlib import Path

from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import Tokenizer
from training.checkpoints import checkpoints_of
from training.files.buckets import absolute, path_of
from training.files.errors import DataError
from training.files.folders import kind_of_folder


def tokenizer_folder(path: Path | str) -> Path:
    """Where it lies: of a run, given its work folder or its checkpoints, in tokenizer/; else beside the weights.
    Raises DataError where there is no model."""
    path = absolute(path_of(path, "the model"))
    return checkpoints_of(path).parent / "tokenizer" if kind_of_folder(path) == "run" else path


def load_model_tokenizer(path: Path | str, fingerprint: str | None = None) -> Tokenizer:
    """The tokenizer of the model in a folder. fingerprint: which it must be, of a run. Raises DataError."""
    tokenizer = load_tokenizer(folder := tokenizer_folder(path))
    if fingerprint not in (None, tokenizer.fingerprint):
        raise DataError(f"{folder}: not the tokenizer that the checkpoint was trained with; put that one there")
    return tokenizer
