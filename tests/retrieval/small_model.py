"""A folder of transformers with a random small encoder and its vocabulary."""

from functools import partial
from pathlib import Path

from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from rope.encoder.huggingface import write_encoder
from rope.encoder.roformer import RoFormerConfig
from tests.retrieval.vectors.test_encoding import source
from tests.rope.encoder.random_encoder import ROFORMER


def write_model(folder: Path, config: RoFormerConfig = ROFORMER) -> Path:
    """The same at every call."""
    given = source(config)
    write_encoder(folder, given.model, given.config, write_more=partial(write_tokenizer, given.tokenizer))
    return folder
