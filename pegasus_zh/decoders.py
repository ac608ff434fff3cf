"""Whatever writes, ready to: an mT5, or RoFormer as a prefix language model, told apart by what their folder says."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pegasus_zh.generation import placed
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.load import Semantics, load
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.text_encoder import load_text_encoder
from pegasus_zh.writing import unwritten
from rope.config_files import config_in
from rope.decoding.decoder import Decoder
from rope.encoder.config_json import CLASSES
from rope.encoder.prefix_decoder import PrefixDecoder
from rope.encoder.roformer import init
from training.checkpoints import Checkpoints, DamagedCheckpoint, checkpoints_of
from training.files.atomic import read_json
from training.files.buckets import path_of
from training.files.errors import DataError
from training.flags import changed
from training.partition import Dtype, abstract, place


class Ready(NamedTuple):
    """What pegasus_zh.writing takes."""

    model: Any
    decoder: Decoder
    tokenizer: Tokenizer
    suppressed: tuple[int, ...]  # ids that are never written
    fingerprint: str  # of weights, config and tokenizer


def load_decoder(
    path: Path | str, *, step: int | None = None, semantics: Semantics = "auto", dtype: Dtype = "float32"
) -> Ready:
    """What writes with the model at `path`, on the devices of the mesh that is set: as pegasus_zh.t5.load, or as
    load_text_encoder of a RoFormer that has a head.

    Raises DataError for what is neither, for an encoder without a head, and for positions that cannot be written step
    by step; ValueError for a type that there is not.
    """
    path = path_of(path, "the model")
    if not _is_encoder(path):
        found = load(path, semantics=semantics, step=step)
        there = placed(found, dtype)
        return Ready(there.model, MT5Decoder(there.config), found.tokenizer, found.suppressed, found.fingerprint)
    source = load_text_encoder(path, step=step)
    config = changed(source.config, {"dtype": dtype})
    if not config.head:
        raise DataError(f"{path}: an encoder without the head that writes; give one whose training kept it")
    try:
        prefix = PrefixDecoder(config)
    except ValueError as error:
        raise DataError(f"{path}: {error}; give another model") from None
    model = place(source.model, abstract(partial(init, config, jax.random.key(0))))
    return Ready(model, prefix, source.tokenizer, unwritten(source.tokenizer), source.fingerprint)


def _is_encoder(path: Path) -> bool:
    """Is it RoFormer or BERT? What is neither that nor an mT5 is left to mT5's loader, which says so."""
    if config := config_in(path):
        about = read_json(config)
        classes = about.get("architectures") or [""]
        named = str(classes[0]).startswith(tuple(CLASSES.values()))
        return about.get("model_type") in CLASSES or named or config.name != "config.json"
    run = checkpoints_of(path)
    if not any(x.is_dir() and x.name.isdigit() for x in (run.iterdir() if run.is_dir() else ())):
        return False
    with Checkpoints(run, keep=None) as checkpoints:
        for step in reversed(checkpoints.steps):
            with suppress(DamagedCheckpoint):  # of which the loader tells
                return "encoder" in checkpoints.config(step)
    return False
