"""A model from any source -> a folder that transformers loads,
or StableHLO programs that need neither it nor this code."""

from dataclasses import dataclass
from pathlib import Path

import jax

from pegasus_zh.t5.huggingface import check_free, write_folder
from pegasus_zh.t5.load import Semantics, load
from pegasus_zh.t5.onnx import write_onnx_serving
from pegasus_zh.t5.stablehlo import write_serving
from training.files.atomic import check_new
from training.files.buckets import loadable_name, path_of
from training.files.errors import DataError
from training.onnx import check_converter
from training.partition import Dtype
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a model as a folder for transformers (MT5ForConditionalGeneration)."""

    model: str
    """The work folder of a run (or its checkpoints folder), a Hugging Face folder,
    or that of a TensorFlow checkpoint."""
    folder: str
    """The new folder."""
    step: int | None = None
    """Which checkpoint of several; of a run by default the newest undamaged one."""
    dtype: Dtype = "float32"
    """Of the weights."""
    semantics: Semantics = "auto"
    """Whose arithmetic the weights were trained for: Google's (mt5), bert4keras's, or as the source tells."""
    without_cross_bias: bool = False
    """Leave out the bias of the cross-attention, for which transformers has no place."""
    overwrite: bool = False
    """Replace an earlier export in the same place."""
    stablehlo: bool = False
    """Write the encoder and one decoding step as StableHLO instead, to serve the model without this code."""
    onnx: tuple[int, int] | None = None
    """Write them as ONNX instead, for sources and targets of these lengths, in float32, such as 256 32; needs
    jax2onnx."""


def export(config: ExportConfig) -> Path:
    """Writes the folder, says how to load it, and returns it. Raises what `load` and `write_folder` raise."""
    out = path_of(config.folder, "--folder")
    served = "--stablehlo" if config.stablehlo else "--onnx" if config.onnx else ""
    if served and (config.overwrite or config.without_cross_bias):
        raise DataError(f"{served} keeps the model as it is, in a new folder: no --overwrite, no --without-cross-bias")
    if config.onnx:
        _check_onnx(config)
    check_new(out) if served else check_free(out, config.overwrite)
    loaded = load(config.model, semantics=config.semantics, step=config.step)
    tell(loaded.source)
    if config.stablehlo:
        write_serving(out, loaded, config.dtype)
        tell(f"{out}: encoder.stablehlo, decode_step.stablehlo and weights.safetensors; docs/export.md shows their use")
        return out
    if config.onnx:
        write_onnx_serving(out, loaded, *config.onnx)
        tell(f"{out}: encoder.onnx and decode_step.onnx; docs/export.md shows their use")
        return out
    write_folder(
        out,
        loaded.model,
        loaded.config,
        loaded.tokenizer,
        dtype=config.dtype,
        cross_bias="leave out" if config.without_cross_bias else "refuse",
        suppressed=loaded.suppressed,
        overwrite=config.overwrite,
    )
    changes = ["the scale of the output is in lm_head"] if loaded.config.scaled_output else []
    changes += ["the cross-attention's bias is left out"] if loaded.config.cross_bias else []
    size = sum(x.size for x in jax.tree.leaves(loaded.model)) / 1e6
    tell("; ".join([f"{out}: {size:.1f}M parameters in {config.dtype}", *changes, "load it with"]))
    folder = loadable_name(out)
    tell("from transformers import AutoTokenizer, MT5ForConditionalGeneration")
    tell(f"tokenizer = AutoTokenizer.from_pretrained({folder!r})")
    tell(f"model = MT5ForConditionalGeneration.from_pretrained({folder!r})")
    return out


def _check_onnx(config: ExportConfig) -> None:
    if config.stablehlo or config.dtype != "float32":
        raise DataError("--onnx is of float32, and instead of --stablehlo: leave out the other")
    if min(config.onnx or (1,)) < 1:
        raise DataError(f"--onnx {config.onnx}: lengths of source and target, each 1 or more")
    check_converter()
