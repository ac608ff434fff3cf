"""A folder of transformers with a random small encoder and its vocabulary."""

from functools import partial
from pathlib import Path

from pegasus_zh.huggingface_tokenizer import write_tokenizer
from rope.huggingface import write_encoder
from rope.roformer import RoFormerConfig
from tests.retrieval.test_encode import source
from tests.rope.random_encoder import ROFORMER


def write_model(folder: Path, config: RoFormerConfig = ROFORMER) -> Path:
    """The same at every call."""
    given = source(config)
    write_encoder(folder, given.model, given.config, write_tokenizer=partial(write_tokenizer, given.tokenizer))
    return folder
