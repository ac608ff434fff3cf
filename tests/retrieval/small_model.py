"""A folder of transformers with a random small encoder and its vocabulary."""

from functools import partial
from pathlib import Path

from pegasus_zh.huggingface_tokenizer import write_tokenizer
from rope.huggingface import write_encoder
from tests.retrieval.test_encode import source


def write_model(folder: Path) -> Path:
    """The same at every call."""
    given = source()
    write_encoder(folder, given.model, given.config, write_tokenizer=partial(write_tokenizer, given.tokenizer))
    return folder
