"""Weights of TensorFlow and Keras, by name, as training/files/weights.py has others: read where they are used."""

import re
from functools import partial
from pathlib import Path
from typing import Any

from training.files.errors import DataError, damaged
from training.files.tensor_bundle import open_bundle
from training.files.weights import Stored

# Beside the weights: the state of Adafactor and of Adam (Google's BERT: adam_m), and the number of the step.
_OTHERS = re.compile(
    r"_slot_|/(Adam(_1)?|adam_[mv])$|^(global_step|save_counter|beta[12]_power|_CHECKPOINTABLE_OBJECT_GRAPH)"
)


def open_checkpoint(folder: Path, step: int | None = None) -> tuple[dict[str, Stored], Path]:
    """The weights of the one checkpoint in a folder, or of that of `step`, and its .index file. Raises DataError."""
    index = _find_index(folder, step)
    try:
        found = open_bundle(index)
    except (OSError, ValueError, IndexError) as error:
        raise damaged(index, error, "not a whole checkpoint") from None
    return {name: found[name] for name in sorted(found) if not _OTHERS.search(name)}, index


def _find_index(folder: Path, step: int | None) -> Path:
    found = sorted(folder.glob("*.index"))
    if step is not None:
        found = [file for file in found if file.stem.endswith(f"-{step}")]
    latest = folder / "checkpoint"  # TensorFlow's note of which it wrote last
    if len(found) > 1 and latest.is_file():
        named = re.search(r'^model_checkpoint_path: "(.*)"', latest.read_text(encoding="utf-8"), re.MULTILINE)
        found = [file for file in found if named and file.stem == Path(named[1]).name] or found
    if len(found) != 1:
        wanted = "" if step is None else f" of step {step}"
        raise DataError(f"{folder}: {len(found)} checkpoints (*.index){wanted}; name one by --step, or leave one there")
    return found[0]


def keras_files(folder: Path) -> list[Path]:
    """The files of Keras's weights in a folder: .weights, as bert4keras's examples name them, and .h5."""
    return sorted(file for file in folder.glob("*") if file.suffix in (".weights", ".h5"))


def open_keras(file: Path) -> dict[str, list[Stored]]:
    """The weights of each layer of a HDF5 file of Keras 2, in the order in which the layer made them.

    Layers are named by the first part of their weights' names, so that those of a model within a model are found too.
    The file stays open. Raises DataError for what is no such file.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(f"{file}: weights of Keras need pip install h5py") from None
    try:
        root: Any = h5py.File(file, "r")
        root = root.get("model_weights", root)  # of a whole model that was saved
        if "layer_names" not in root.attrs:
            raise DataError(
                f"{file}: no layer_names, as Keras 2 writes them; save with bert4keras's save_weights_as_checkpoint"
            )
        layers: dict[str, list[Stored]] = {}
        for group in (root[_text(name)] for name in root.attrs["layer_names"]):
            for name in map(_text, group.attrs["weight_names"]):
                data = group[name]
                stored = Stored(file, tuple(data.shape), data.dtype.name, partial(data.__getitem__, ()))
                layers.setdefault(name.partition("/")[0], []).append(stored)
    except (OSError, KeyError, AttributeError) as error:
        raise damaged(file, error, "not a whole HDF5 file of Keras's weights") from None
    return layers


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
