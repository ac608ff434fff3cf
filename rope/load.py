"""An encoder from wherever it lies: a run of scripts.pretrain_encoder, or a folder of transformers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rope.extension import Extension
from rope.huggingface import Pooler, read_encoder
from rope.roformer import RoFormer, RoFormerConfig, init
from training.checkpoint import read_model
from training.errors import DataError
from training.weights import WEIGHT_FILES


def load_encoder(
    path: Path | str, *, step: int | None = None, pooler: Pooler = "auto", say: Callable[[str], None] = print
) -> tuple[RoFormer, RoFormerConfig]:
    """The encoder as float32 NumPy arrays, and its config.

    step: which checkpoint of a run, by default the newest undamaged one; `say` is told of damaged ones. pooler: of a folder
    of transformers, see rope.huggingface.read_encoder. Raises DataError for whatever is neither, or does not fit.
    """
    path = Path(path)
    if any((path / f"{name}{end}").is_file() for name in WEIGHT_FILES for end in ("", ".index.json")):
        if step is not None:
            raise DataError(f"{path}: a Hugging Face folder holds one model; leave out the step")
        return read_encoder(path, pooler)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give a run of scripts.pretrain_encoder or a Hugging Face folder")
    _, about, model = read_model(path, lambda about, where: partial(init, _config(about, where)), step, say)
    return model, _config(about, path)


def _config(about: dict[str, Any], where: Path) -> RoFormerConfig:
    try:
        saved = about["encoder"]
        return RoFormerConfig(**saved | {"extension": Extension(**saved["extension"])})
    except (KeyError, TypeError):
        raise DataError(
            f"{where}: not a checkpoint of an encoder; give the work folder of scripts.pretrain_encoder"
        ) from None
