"""A function of arrays as an ONNX file, by jax2onnx, which reads a function as jax does and knows ONNX's operators."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from training.files.errors import DataError

LARGEST = 1 << 31  # bytes of a protocol buffer


def check_converter() -> None:
    """Raises DataError where jax2onnx is not installed."""
    try:
        import jax2onnx  # noqa: F401
    except ImportError:
        raise DataError("--onnx needs jax2onnx: pip install 'pegasus-zh[onnx]' with Python 3.11") from None


def write_onnx(
    path: Path, function: Callable, inputs: Mapping[str, jax.ShapeDtypeStruct], outputs: Sequence[str]
) -> None:
    """Writes the function of these inputs, its constants inside; sizes may be of jax.export.symbolic_shape.

    Raises DataError for one that a file cannot hold, and as check_converter.
    """
    check_converter()
    for name in ("jax2onnx", "onnx_ir"):  # each plugin that it does without, and shapes that are not constant
        logging.getLogger(name).setLevel(logging.ERROR)
    from jax2onnx import to_onnx

    program = to_onnx(function, inputs=list(inputs.values()), input_names=list(inputs), output_names=list(outputs))
    if (size := program.ByteSize()) >= LARGEST:
        raise DataError(f"{path.name}: {size / 1e9:.1f} GB, and an ONNX file ends at 2 GB; serve a smaller model")
    path.write_bytes(program.SerializeToString())
