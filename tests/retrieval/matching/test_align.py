"""Alignments by an encoder whose folder has tokens that were added beside its vocabulary."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pegasus_zh.text.added_tokens import Added
from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.side_files import Settings
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text_encoder import load_text_encoder
from retrieval.matching.commands.align import AlignConfig, align
from rope.encoder.huggingface import write_encoder
from tests.retrieval.matching.small_matching import KEY, as_numbers, texts
from tests.retrieval.vectors.test_encoding import VOCABULARY
from tests.rope.encoder.random_encoder import ROFORMER, random_encoder

ADDED = VOCABULARY[-1]
NUMBER = next(number for number, character in KEY.items() if character == ADDED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The last character is no token of vocab.txt, but one that was added, and an id between them is of no token."""
    folder = tmp_path_factory.mktemp("added")
    size = len(VOCABULARY)
    tokenizer = PegasusTokenizer(VOCABULARY[:-1], settings=Settings(added=(Added(size, ADDED),)))
    config = replace(ROFORMER, vocabulary=size + 3)
    write_encoder(folder / "m", random_encoder(config), config, write_more=partial(write_tokenizer, tokenizer))
    (folder / "t.tsv").write_text("".join(f"{as_numbers(text)}\n" for text in texts(300)))
    (folder / "p.txt").write_text("".join(f"{text}\n" for text in texts(300)), "utf-8")
    (folder / "key.tsv").write_text("".join(f"{number}\t{x}\n" for number, x in KEY.items()), "utf-8")
    (folder / "c.json").write_text(json.dumps({ADDED: 9, VOCABULARY[-2]: 5}), "utf-8")
    return folder


@pytest.mark.parametrize("method", ["key", "context", "likelihood", "rank"])
def test_a_number_may_be_a_token_that_was_added(folder: Path, method: str) -> None:
    names = {"model": "m", "key": "key.tsv", "folder": f"by-{method}"}
    given = {name: str(folder / path) for name, path in names.items()}
    compared = {"counts": str(folder / "c.json")} if method == "rank" else {"plain": (str(folder / "p.txt"),)}
    found = align(AlignConfig(**given, **compared, data=(str(folder / "t.tsv"),), method=method))
    best = dict(zip(found.numbers, found.best(), strict=True))
    if method == "rank":
        assert [best[number] for number in found.numbers[:2]] == [ADDED, VOCABULARY[-2]]
        return
    assert best[NUMBER] == ADDED
    made = load_text_encoder(folder / f"by-{method}")
    if method == "key":
        row = made.model.embeddings.word[made.tokenizer.encode(NUMBER)[0]]
        np.testing.assert_array_equal(row, load_text_encoder(folder / "m").model.embeddings.word[len(VOCABULARY)])
