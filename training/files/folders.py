"""What a model's folder is, by what lies in it."""

from pathlib import Path
from typing import Literal

from training.files.errors import DataError
from training.files.tensorflow_files import keras_files
from training.files.weights import WEIGHT_FILES, refuse_others

FolderKind = Literal["run", "huggingface", "tensorflow", "keras"]


def kind_of_folder(path: Path) -> FolderKind:
    """A folder of transformers, of a TensorFlow checkpoint, of Keras's weights, or a run (its work folder or its
    checkpoints/); the first that it may be. Raises DataError for one that is none, and names weights there that are not
    read."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give a run, or a folder of transformers, TensorFlow or Keras")
    if any((path / f"{name}{end}").is_file() for name in WEIGHT_FILES for end in ("", ".index.json")):
        return "huggingface"
    if any(path.glob("*.index")):
        return "tensorflow"
    if keras_files(path):
        return "keras"
    if (path / "checkpoints").is_dir() or any(x.is_dir() and x.name.isdigit() for x in path.iterdir()):
        return "run"
    refuse_others(path)
    raise DataError(
        f"{path}: no model here: neither checkpoints/ of a run, nor {', '.join(WEIGHT_FILES)} (or an index of their "
        "shards), nor a TensorFlow checkpoint's *.index, nor Keras's .weights or .h5"
    )
