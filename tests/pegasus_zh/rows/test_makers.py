"""The table of makers: every row makes what it says, and each value of --selector is a row."""

import numpy as np
import pytest

from pegasus_zh.experiments.few_shot import FewShotConfig
from pegasus_zh.pretrain import PretrainRecipe
from pegasus_zh.rows.makers import MAKERS, ExamplesConfig, add_selector, of_documents
from pegasus_zh.rows.pseudo_summary import SELECTORS
from pegasus_zh.text.documents import CORPUS, read_documents
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.errors import DataError

TEXTS = list(read_documents([str(CORPUS / "heldout.jsonl")]))[:8]


@pytest.fixture(scope="module")
def tokenizer() -> PegasusTokenizer:
    return PegasusTokenizer(train_pegasus_vocabulary(TEXTS, 1000))


@pytest.mark.parametrize("name", MAKERS)
def test_examples_have_the_sides_of_their_maker(name, tokenizer):
    maker, config = MAKERS[name], ExamplesConfig(max_source=64, max_target=24)
    texts = TEXTS if maker.reads == "documents" else [(text, text[:9]) for text in TEXTS]
    made = maker.examples(texts, tokenizer, config)
    assert len(made) == len(TEXTS) and any(made)
    most = {"source": 64, "target": 23, "ids": 64}
    for example in (example for examples in made for example in examples):
        assert len(example) == len(maker.sides)
        for side, ids in zip(maker.sides, example, strict=True):
            assert ids.dtype == np.uint16 and 0 < len(ids) <= most[side] and ids[-1] == tokenizer.eos_id


def test_the_values_of_selector_are_the_documents_makers():
    assert of_documents() == [*SELECTORS, "span-corruption", "text"]
    with pytest.raises(DataError, match=f"selector is 'pairs': it must be one of {', '.join(of_documents())}"):
        ExamplesConfig(selector="pairs")


def test_an_encoder_decoder_takes_pairs_alone():
    with pytest.raises(DataError, match="selector is 'text', which makes no pairs: give one of lcs"):
        PretrainRecipe(examples=ExamplesConfig(selector="text"))
    with pytest.raises(DataError, match="objectives has 'text': it must be one of lcs"):
        FewShotConfig(documents=("some",), tasks=("some",), objectives=("lcs", "text"))


def test_a_selector_of_ones_own_has_a_name(monkeypatch):
    monkeypatch.setattr("pegasus_zh.rows.makers.MAKERS", dict(MAKERS))
    add_selector("own", SELECTORS["lead"])
    assert "own" in of_documents() and ExamplesConfig(selector="own").maker.sides == MAKERS["lead"].sides
    with pytest.raises(ValueError, match="selector 'own' is there already"):
        add_selector("own", SELECTORS["lead"])
    del SELECTORS["own"]
