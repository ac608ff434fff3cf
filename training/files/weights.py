"""Tensors on disk, by name, and a model filled with them one at a time.

Files are opened and their headers read first; nothing is allocated before every name and shape is known to fit. Then
each tensor is read, converted and written into its place of the stacked arrays, so a model needs its own memory and
that of its largest tensor.
"""

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from training.files.atomic import read_json
from training.files.errors import AGAIN, DataError, damaged

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # or these + .index.json beside the shards; the first counts
_SAFETENSORS_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
FLOATS = tuple(_SAFETENSORS_TYPES.values())
TORCH = "pip install torch==2.13.0"
_WRAPPED = "module."  # before every name, where torch's DataParallel was saved instead of the model in it


@dataclass(frozen=True)
class Stored:
    """A tensor in a file that is open."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


def hollow(init: Callable[[jax.Array], Any]) -> Any:
    """What `init` makes of a key, as NumPy arrays that have shapes and no memory."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)


def empty(init: Callable[[jax.Array], Any]) -> Any:
    """The same as float32 NumPy arrays that hold nothing yet."""
    return jax.tree.map(lambda x: np.empty(x.shape, np.float32), hollow(init))


def check_fit(
    slots: Mapping[str, Any], stored: Mapping[str, Stored], where: Path, model: str, ignored: Iterable[str] = ()
) -> None:
    """Raises DataError for a tensor that is missing, superfluous, of another shape, or not of floating point numbers.

    slots: what the model wants, by the names of `stored`: anything with a shape. model: such as "an mT5", for the
    message. ignored: names that may be there.
    """
    if missing := [name for name in slots if name not in stored]:
        raise DataError(
            f"{where}: no tensor {_first(missing)}; the checkpoint is not whole, or not of {model}: {AGAIN}"
        )
    if extra := [name for name in stored if name not in slots and name not in ignored]:
        raise DataError(
            f"{stored[extra[0]].file}: a tensor {_first(extra)}, which {model} of this config does not have; give "
            "the folder's own config.json, or another checkpoint"
        )
    for name, slot in slots.items():
        found = stored[name]
        if found.shape != tuple(slot.shape):
            raise DataError(
                f"{found.file}: {name!r} has the shape {found.shape}, and {tuple(slot.shape)} by its config; give the "
                "config.json that belongs to the weights"
            )
        if found.dtype not in FLOATS:
            raise DataError(f"{found.file}: {name!r} is {found.dtype}; only {', '.join(FLOATS)} are read")


def fill(slots: Mapping[str, np.ndarray], stored: Mapping[str, Stored]) -> None:
    """Reads every tensor into its slot: a view of an array, of which it may be the transpose or one layer.
    Raises DataError for one that holds what is no number."""
    for name, slot in slots.items():
        slot[...] = read(name, stored[name])
        check_finite(name, slot, stored[name].file)


def check_finite(name: str, array: np.ndarray, where: Path) -> None:
    """Raises DataError, with the first place, where an array has NaN or infinite values: a model with one writes
    nothing but padding, and finds everything alike."""
    if not (finite := np.isfinite(array)).all():
        place = ", ".join(map(str, np.argwhere(~finite)[0]))
        raise DataError(
            f"{where}: {name!r} has {np.size(finite) - np.count_nonzero(finite):,} values that are no finite numbers, "
            f"the first at [{place}]; its training diverged: give an earlier checkpoint"
        )


def read_tensors(
    init: Callable[[jax.Array], Any],
    names: Callable[[Any], Iterable[tuple[str, Any]]],
    stored: Mapping[str, Stored],
    where: Path,
    model: str,
    ignored: Iterable[str] = (),
) -> Any:
    """What `init` makes, as float32 NumPy arrays, with the stored tensors in it. Raises DataError as `check_fit`.

    names: every array of such a model under its name among `stored`; of NumPy arrays views, to write to.
    """
    check_fit(dict(names(hollow(init))), stored, where, model, ignored)
    made = empty(init)
    fill(dict(names(made)), stored)
    return made


def read(name: str, stored: Stored) -> np.ndarray:
    try:
        return stored.read()
    except Exception as error:  # each library has its own for a damaged file
        raise damaged(stored.file, error, f"{name!r} cannot be read") from None


def fingerprint(model: Any) -> str:
    """Of a model's arrays, by which a resumed run knows what it began with."""
    leaves = (np.ascontiguousarray(x).view(np.uint8).data for x in jax.tree.leaves(model))
    return f"{reduce(lambda crc, data: zlib.crc32(data, crc), leaves, 0):08x}"


def open_weights(folder: Path) -> tuple[dict[str, Stored], Path]:
    """The tensors of a Hugging Face folder, and the file that holds or lists them. Raises DataError."""
    for name in WEIGHT_FILES:
        opener = open_safetensors if name.endswith(".safetensors") else open_torch
        if (file := folder / name).is_file():
            return _unwrapped(opener(file)), file
        if (index := folder / f"{name}.index.json").is_file():
            return _unwrapped(_open_shards(index, opener)), index
    raise DataError(f"{folder}: neither {' nor '.join(WEIGHT_FILES)}, nor an index of either's shards; {AGAIN}")


def refuse_others(folder: Path) -> None:
    """Raises DataError for a folder whose weights are in files that are not read; to be called where there are none
    that are."""
    if (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{folder}: an adapter alone, as of LoRA, without its model; merge them with PEFT's merge_and_unload and "
            "write that with save_pretrained"
        )
    kinds = (".safetensors", ".bin", ".msgpack", ".onnx", ".gguf", ".ckpt", ".pt", ".pth")
    if names := sorted(file.name for file in folder.glob("*") if file.suffix in kinds):
        raise DataError(
            f"{folder}: weights in {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}, but neither "
            f"{' nor '.join(WEIGHT_FILES)}, nor an index of either's shards; write it with save_pretrained"
        )


def _unwrapped(tensors: dict[str, Stored]) -> dict[str, Stored]:
    if all(name.startswith(_WRAPPED) for name in tensors):
        return {name.removeprefix(_WRAPPED): stored for name, stored in tensors.items()}
    return tensors


def _open_shards(index: Path, opener: Callable[[Path], dict[str, Stored]]) -> dict[str, Stored]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) and x and Path(x).name == x for x in places.values()):
        raise DataError(f"{index}: no weight_map from tensors to the names of files beside it; {AGAIN}")
    shards = {name: opener(index.with_name(name)) for name in dict.fromkeys(places.values())}
    for tensor, name in places.items():
        if tensor not in shards[name]:
            raise DataError(f"{index.with_name(name)}: no tensor {tensor!r}, which {index.name} says is there; {AGAIN}")
    counts = Counter(tensor for shard in shards.values() for tensor in shard)
    if twice := [tensor for tensor, count in counts.items() if count > 1]:
        raise DataError(f"{index}: {_first(twice)} is in two of its shards; {AGAIN}")
    return {tensor: stored for shard in shards.values() for tensor, stored in shard.items()}


def open_safetensors(file: Path) -> dict[str, Stored]:
    """The tensors of a .safetensors file, which is mapped into memory and read only where it is used."""
    try:
        handle = safe_open(_there(file), framework="numpy")
        found = {}
        for name in handle.keys():  # noqa: SIM118 (not a mapping)
            about = handle.get_slice(name)
            dtype = _SAFETENSORS_TYPES.get(about.get_dtype(), about.get_dtype())
            found[name] = Stored(file, tuple(about.get_shape()), dtype, partial(handle.get_tensor, name))
    except SafetensorError as error:
        raise damaged(file, error, "not a whole .safetensors file") from None
    return found


def write_safetensors(
    path: Path, tensors: Iterable[tuple[str, np.ndarray | jax.Array]], dtype: str, exact: Collection[str] = ()
) -> None:
    """Writes the arrays one after the other, so that only one is ever copied (the library's writer wants them all).

    Those named in `exact` are float32 whatever the dtype.

    The format: the header's length as 8 bytes, a JSON header, the data (https://github.com/huggingface/safetensors).
    """
    arrays = dict(tensors)  # views
    kinds = {type_: kind for kind, type_ in _SAFETENSORS_TYPES.items()}
    types = {name: "float32" if name in exact else dtype for name in arrays}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.size * jax.numpy.dtype(types[name]).itemsize
        header[name] = {"dtype": kinds[types[name]], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in arrays.items():
            file.write(np.ascontiguousarray(array, jax.numpy.dtype(types[name])).view(np.uint8).data)


def open_torch(file: Path) -> dict[str, Stored]:
    """The tensors of a pytorch_model.bin, without running the code that a pickle may hold."""
    try:
        import torch
    except ImportError:
        raise DataError(f"{file}: needs torch: {TORCH}, or give the folder's model.safetensors") from None
    try:
        try:
            tensors = torch.load(_there(file), map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            tensors = torch.load(file, map_location="cpu", weights_only=True)  # of torch before 1.6: cannot be mapped
    except DataError:
        raise
    except Exception as error:  # pickle, zip and torch raise many kinds for a damaged file
        if code := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise DataError(
                f"{file}: not a state dict but a pickle of {code[1]}, which would run code when read: where you trust "
                "it, load it with torch and write it again with save_pretrained"
            ) from None
        with suppress(OSError), open(file, "rb") as opened:
            if opened.read(2) in (b"\x80\x03", b"\x80\x04", b"\x80\x05") and "weights_only" in str(error):
                raise DataError(
                    f"{file}: not a state dict but a pickle of something else, which may run code when read: where you "
                    "trust it, load it and write the model with save_pretrained"
                ) from None
        raise damaged(file, error, "not a whole file of torch weights") from None
    if not isinstance(tensors, dict) or not all(isinstance(x, torch.Tensor) for x in tensors.values()):
        raise DataError(f"{file}: not a state dict of tensors alone; save the model with save_pretrained")

    def stored(tensor: torch.Tensor) -> Stored:
        # NumPy has no bfloat16 of torch's; float32 holds every value of both half types.
        return Stored(
            file, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: tensor.detach().float().numpy()
        )

    return {name: stored(tensor) for name, tensor in tensors.items()}


def _there(file: Path) -> Path:
    if not file.is_file():
        raise DataError(f"{file}: no such file; {AGAIN}")
    return file


def _first(names: list[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
