"""Rows of plain text: nothing lost, held-out documents apart, special tokens known."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from pegasus_zh.rows.packed_rows import open_rows
from pegasus_zh.rows.plain_text import TextConfig, text_rows
from pegasus_zh.text.documents import DocumentsConfig
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.vocabulary import TokenizerConfig, train_sentencepiece
from training.files.errors import DataError
from training.mesh import WHOLE

LENGTH = 24
RANDOM = np.random.default_rng(0)
CHARACTERS = np.array([*"今天气很好我们去公园散步说话读书写字看山水花草风雨雪月"])
TEXTS = ["今天天气很好。" + "".join(RANDOM.choice(CHARACTERS, RANDOM.integers(10, 90))) for _ in range(40)]


@pytest.fixture(scope="module", params=["pegasus", "characters"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    documents = folder / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    config = TextConfig(
        documents=DocumentsConfig(data=(str(documents),), eval_fraction=0.3, workers=1),
        tokens=TokenizerConfig(tokenizer_kind=request.param, vocabulary=400),
    )
    return config, folder, text_rows(config, LENGTH, folder)


def pieces(batch) -> list[tuple[int, ...]]:
    found = []
    for ids, segments in zip(batch["ids"], batch["segments"], strict=True):
        found += [tuple(ids[segments == n].tolist()) for n in range(1, segments.max() + 1)]
    return found


def test_every_token_of_every_document_is_in_a_row(made):
    config, folder, rows = made
    tokenizer = load_tokenizer(folder / "tokenizer")
    heldout = [p for b in rows.heldout(batch_size=4, share=WHOLE) for p in pieces(b)]
    epoch = 200  # more than all rows
    train = {p for b in islice(rows.train(batch_size=4, seed=0, start_step=0, share=WHOLE), epoch) for p in pieces(b)}
    assert not train & {*heldout}
    room = LENGTH - 2
    wanted = set()
    for text in TEXTS:
        ids = tokenizer.encode(text)
        wanted |= {(101, *ids[n : n + room], 102) for n in range(0, len(ids), room)}
    assert train | {*heldout} == wanted


def test_batches_are_those_of_their_step(made):
    rows = made[2]
    which = {"batch_size": 4, "seed": 3, "share": WHOLE}
    all_steps, later = (rows.train(start_step=n, **which) for n in (0, 2))
    third = [*islice(all_steps, 3)][2]
    np.testing.assert_array_equal(next(later)["ids"], third["ids"])
    assert third["ids"].shape == (4, 24) and third["ids"].dtype == np.int32


def test_what_masking_knows(made):
    config, folder, rows = made
    tokenizer = load_tokenizer(folder / "tokenizer")
    assert (rows.vocabulary.size, rows.vocabulary.mask, rows.vocabulary.specials) == (tokenizer.vocab_size, 103, 106)
    assert rows.tokenizer == tokenizer.fingerprint
    words = [token for token in tokenizer.vocabulary[106:] if len(token) > 1 and not token.isascii()]
    assert bool(words) == (config.tokens.tokenizer_kind == "pegasus")


def test_sentencepiece_is_refused(made, tmp_path):
    """One is not even made, and one that is given is not taken."""
    with pytest.raises(DataError, match="sentencepiece has no \\[MASK\\]"):
        replace(made[0], tokens=TokenizerConfig(tokenizer_kind="sentencepiece", vocabulary=400))
    (tmp_path / "spiece.model").write_bytes(train_sentencepiece(TEXTS, 400))
    config = replace(made[0], tokens=TokenizerConfig(tokenizer=str(tmp_path)))
    with pytest.raises(DataError, match="sentencepiece has no \\[MASK\\]"):
        text_rows(config, LENGTH, tmp_path / "run")


def test_rows_have_one_side_and_the_pieces_a_limit(tmp_path):
    """No target is made up for text, and of very short texts only so many share a row."""
    documents = tmp_path / "documents.jsonl"
    documents.write_text(
        "".join(json.dumps({"text": f"{a}{b}"}) + "\n" for a in "天气很好" for b in "花草风雨"), "utf-8"
    )
    config = TextConfig(
        documents=DocumentsConfig(data=(str(documents),), workers=1),
        tokens=TokenizerConfig(tokenizer_kind="characters", vocabulary=400),
    )
    rows = text_rows(config, 48, tmp_path)
    opened = open_rows(tmp_path / "rows-48", verify=True)
    assert opened.manifest.row == {"ids": 48} and rows.heldout is None
    assert {*opened.manifest.padding["train"]} == {"ids", "all"}
    batch = opened.train.batch(range(len(opened.train)))
    assert {*batch} == {"ids", "segments"} and batch["segments"].max() == 48 // 8
