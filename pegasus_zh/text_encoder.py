"""An encoder with its tokenizer, from a run of scripts.pretrain_encoder or a folder of transformers, and out to one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax

from pegasus_zh.huggingface_tokenizer import write_tokenizer
from pegasus_zh.tokenizers import PegasusTokenizer, load_tokenizer
from rope.huggingface import Pooler, write_encoder
from rope.load import load_encoder
from rope.roformer import RoFormer, RoFormerConfig
from training.errors import DataError
from training.whole import check_new


class TextEncoder(NamedTuple):
    model: RoFormer  # of float32 NumPy arrays
    config: RoFormerConfig
    tokenizer: PegasusTokenizer


def tokenizer_folder(path: Path | str) -> Path:
    """Where the tokenizer of a run, or of a folder of transformers, lies."""
    path = Path(path)
    run = path if (path / "checkpoints").is_dir() else path.absolute().parent
    return run / "tokenizer" if (run / "checkpoints").is_dir() else path


def load_text_encoder(
    path: Path | str, *, step: int | None = None, pooler: Pooler = "auto", say: Callable[[str], None] = print
) -> TextEncoder:
    """As rope.load.load_encoder, with the tokenizer. Raises DataError for one that does not fit, too."""
    model, config = load_encoder(path, step=step, pooler=pooler, say=say)
    tokenizer = load_tokenizer(where := tokenizer_folder(path))
    if not isinstance(tokenizer, PegasusTokenizer) or tokenizer.vocab_size > config.vocabulary:
        raise DataError(
            f"{where}: {tokenizer.vocab_size:,} tokens, and the embedding has {config.vocabulary:,} rows; put the vocab.txt "
            "there that belongs to the model"
        )
    return TextEncoder(model, config, tokenizer)


@dataclass(frozen=True, kw_only=True)
class ExportEncoderConfig:
    """Write an encoder as a folder for transformers (RoFormerForMaskedLM or BertForMaskedLM)."""

    model: str
    """The work folder of a run of scripts.pretrain_encoder, or a Hugging Face folder."""
    folder: str
    """The new folder."""
    step: int | None = None
    """Which checkpoint of several; by default the newest undamaged one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""


def export_encoder(config: ExportEncoderConfig, say: Callable[[str], None] = print) -> Path:
    """Writes the folder, says how to load it, and returns it. Raises DataError as loading and writing do."""
    out = Path(config.folder)
    check_new(out)
    model, about, tokenizer = load_text_encoder(config.model, step=config.step, say=say)
    kind = write_encoder(out, model, about, dtype=config.dtype, write_tokenizer=partial(write_tokenizer, tokenizer))
    size = sum(x.size for x in jax.tree.leaves(model)) / 1e6
    say(f"{out}: {size:.1f}M parameters in {config.dtype}; load it with")
    say(f"from transformers import AutoTokenizer, {kind}")
    say(f"tokenizer = AutoTokenizer.from_pretrained({str(out)!r})  # needs: pip install rjieba")
    say(f"model = {kind}.from_pretrained({str(out)!r})")
    return out
