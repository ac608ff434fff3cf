"""The table of makers: every row makes what it says, and each value of --selector is a row."""

import time
from dataclasses import replace

import numpy as np
import pytest

from pegasus_zh.experiments.few_shot import FewShotConfig
from pegasus_zh.pretrain import PretrainRecipe
from pegasus_zh.rows import makers
from pegasus_zh.rows.makers import (
    MAKERS,
    ExamplesConfig,
    Maker,
    add_maker,
    add_selector,
    making_pairs,
    pairs_of_documents,
)
from pegasus_zh.rows.packed_rows import open_rows
from pegasus_zh.rows.packing import IDS, Side
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.pseudo_summary import SELECTORS
from pegasus_zh.text.documents import CORPUS, read_documents
from pegasus_zh.text.readers import DOCUMENTS
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.errors import DataError

TEXTS = list(read_documents([str(CORPUS / "heldout.jsonl")]))[:8]


@pytest.fixture(scope="module")
def tokenizer() -> PegasusTokenizer:
    return PegasusTokenizer(train_pegasus_vocabulary(TEXTS, 1000))


@pytest.mark.parametrize("name", MAKERS)
def test_examples_have_the_sides_of_their_maker(name, tokenizer):
    maker, config = MAKERS[name], ExamplesConfig(selector=name, max_source=64, max_target=24)
    texts = TEXTS if maker.reads is DOCUMENTS else [(text, text[:9]) for text in TEXTS]
    made = maker.examples(texts, tokenizer, config)
    assert len(made) == len(TEXTS) and any(made)
    assert config.longest == ([64, 23] if len(maker.sides) == 2 else [64])
    for example in (example for examples in made for example in examples):
        assert len(example) == len(maker.sides)
        for side, most, ids in zip(maker.sides, config.longest, example, strict=True):
            assert ids.dtype == np.uint16 and 0 < len(ids) <= most
            # Of a target that is cut there is no end.
            assert ids[-1] == tokenizer.eos_id or (side.inputs and len(ids) == most)


def test_the_values_of_selector_are_the_makers():
    assert [*MAKERS] == [*SELECTORS, "span-corruption", "text", "pairs"]
    assert making_pairs() == [*SELECTORS, "span-corruption", "pairs"]
    assert pairs_of_documents() == [*SELECTORS, "span-corruption"]
    with pytest.raises(DataError, match=f"selector is 'best': it must be one of {', '.join(MAKERS)}"):
        ExamplesConfig(selector="best")


def test_an_encoder_decoder_takes_pairs_alone():
    with pytest.raises(DataError, match="selector is 'text', which makes no pairs: give one of lcs"):
        PretrainRecipe(examples=ExamplesConfig(selector="text"))
    with pytest.raises(DataError, match="objectives has 'text': it must be one of lcs"):
        FewShotConfig(documents=("some",), tasks=("some",), objectives=("lcs", "text"))


def test_a_selector_of_ones_own_has_a_name(monkeypatch):
    monkeypatch.setattr("pegasus_zh.rows.makers.MAKERS", dict(MAKERS))
    add_selector("own", SELECTORS["lead"])
    assert "own" in pairs_of_documents() and ExamplesConfig(selector="own").maker.sides == MAKERS["lead"].sides
    with pytest.raises(ValueError, match="selector 'own' is there already"):
        add_selector("own", SELECTORS["lead"])
    del SELECTORS["own"]


def two_sentences(texts, tokenizer, *, max_source):
    """BERT's: [CLS] a [SEP] with types 0, b [SEP] with types 1."""
    made = []
    for text in texts:
        a, b = (tokenizer.encode(text)[first : first + 9] for first in (0, 9))
        ids = [tokenizer.start_id, *a, tokenizer.eos_id, *b, tokenizer.eos_id][:max_source]
        types = [0] * (len(a) + 2) + [1] * (len(b) + 1)
        made.append([(np.array(ids, "<u2"), np.array(types, "<u2"))] if b else [])
    return made


TYPES = Side("types", "types_segments", "max_source", "row_source")


def test_a_maker_with_sides_of_its_own(tokenizer, tmp_path, monkeypatch):
    """Prepared, packed and read back, on any of its sides."""
    monkeypatch.setattr(makers, "MAKERS", dict(MAKERS))
    add_maker("sentences", Maker(two_sentences, ("max_source",), sides=(IDS, TYPES), needs="text"))
    examples = ExamplesConfig(selector="sentences", max_source=24)
    documents = PrepareConfig(data=(str(CORPUS / "heldout.jsonl"),), workers=1)
    prepared = prepare(examples, documents, tokenizer, tmp_path / "set")
    assert [*prepared.manifest.row] == ["ids", "types"] and prepared.manifest.padding["train"]["types"] < 0.2
    rows = prepared.train.batch(range(len(prepared.train)))
    assert {*rows} == {"ids", "segments", "types", "types_segments"}
    found = [
        tuple(tuple(rows[side][n][rows[segments][n] == k].tolist()) for side, segments in SEGMENTS.items())
        for n in range(len(rows["ids"]))
        for k in range(1, rows["segments"][n].max() + 1)
    ]
    texts = [*read_documents(documents.data)]
    wanted = [tuple(tuple(side.tolist()) for side in made[0]) for made in examples.make(texts, tokenizer)]
    assert sorted(found) == sorted(wanted)
    monkeypatch.undo()
    with pytest.raises(DataError, match="rows have a side 'types': add the maker"):
        open_rows(tmp_path / "set")


SEGMENTS = {"ids": "segments", "types": "types_segments"}


def test_names_are_taken_once():
    with pytest.raises(ValueError, match="selector 'lcs' is there already"):
        add_maker("lcs", MAKERS["lcs"])
    with pytest.raises(ValueError, match="side 'ids' is there already, and is not the same"):
        add_maker("other", replace(MAKERS["text"], sides=(replace(IDS, inputs="inputs"),)))


@pytest.mark.parametrize("name", pairs_of_documents())
def test_text_without_a_mark_takes_time_by_its_length_alone(name, tokenizer):
    """Twenty times as much text, twenty times the pairs; the square of it would be minutes."""
    character = next(c for c in TEXTS[0] if c in tokenizer.vocabulary)
    config, started = ExamplesConfig(selector=name), time.perf_counter()
    few, many = config.make([character * 20_000, character * 400_000], tokenizer)
    assert len(few) > 5 and abs(len(many) - 20 * len(few)) <= 20
    assert time.perf_counter() - started < 20


def test_fewer_characters_an_id_cut_fewer_pairs(tokenizer):
    """Of a vocabulary of few words T5-PEGASUS's 1.5 fill more ids than there are, and what is cut has no end."""
    ended = {}
    for characters in (0.6, 1.5):
        config = ExamplesConfig(max_source=128, max_target=80, characters=characters)
        pairs = [pair for text in config.make(TEXTS, tokenizer) for pair in text]
        ended[characters] = np.mean([target[-1] == tokenizer.eos_id for _, target in pairs])
    assert ended[0.6] > 0.8 and ended[0.6] > ended[1.5] + 0.15
