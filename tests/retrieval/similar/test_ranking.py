"""What of draws is kept, by numbers that can be seen."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval.similar.drawing import Drawing
from retrieval.similar.prompts import prompt_of
from retrieval.similar.ranking import Found, Similar, chosen, different, distinct_n
from retrieval.vectors.arrays import unit
from tests.retrieval.vectors.test_encoding import TOKENIZER
from training.files.errors import DataError

CLS, SEP, MASK = TOKENIZER.start_id, TOKENIZER.eos_id, TOKENIZER.mask_id
VECTORS = unit(np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32))
SOURCE = unit(np.ones((1, 5), np.float32))[0]
NEAR = VECTORS @ SOURCE


def test_copies_and_repetitions_are_counted():
    draws = ["天气很好", "今天", " ", "天气好", "天气很好", "今天天气好吗"]
    assert different(draws, frozenset({"今天"}), ["好吗"]) == (["天气很好", "天气好"], 3, 1)


def test_the_nearest_within_bounds():
    order = np.argsort(-NEAR)
    places, near = chosen(VECTORS, SOURCE, 7)
    np.testing.assert_array_equal(places, order[:7])
    np.testing.assert_allclose(near, NEAR, atol=1e-6)
    least, greatest = float(NEAR[order[12]]) - 1e-4, float(NEAR[order[3]]) + 1e-4
    np.testing.assert_array_equal(chosen(VECTORS, SOURCE, 30, least, greatest)[0], order[3:13])
    assert chosen(VECTORS, SOURCE, 5, 0.999)[0] == [] == chosen(VECTORS[:0], SOURCE, 5)[0]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.7])
def test_diversity_trades_nearness_for_being_unlike(diversity):
    """By the rule as it is written down."""
    left, wanted = [*range(30)], [int(np.argmax(NEAR))]
    left.remove(wanted[0])
    while len(wanted) < 8:
        gains = [(1 - diversity) * NEAR[i] - diversity * max(VECTORS[i] @ VECTORS[j] for j in wanted) for i in left]
        wanted.append(left.pop(int(np.argmax(gains))))
    found, _ = chosen(VECTORS, SOURCE, 8, diversity=diversity)
    assert found == wanted
    assert sorted(chosen(VECTORS, SOURCE, 30, diversity=0.7)[0]) == [*range(30)]


def test_distinct_runs():
    assert distinct_n(["今天天气", "今天好"]) == 4 / 5  # 今天 天天 天气; 今天 天好
    assert distinct_n([]) == 0 == distinct_n(["好"]) and distinct_n(["好", "好"], 1) == 0.5
    row = Found("今天", [Similar("今天好", 0.5)], 9, 1, 2).row()
    assert row["distinct_2"] == 1 and row["kept"] == 1 and row["similar"] == [{"text": "今天好", "score": 0.5}]


def test_prompts_have_masks_where_words_are_to_change():
    encode = TOKENIZER.encode
    assert prompt_of("今天天气很好", TOKENIZER, 64) == [CLS, *encode("今天天气很好"), SEP]
    found = prompt_of("今天很好，今天很好", TOKENIZER, 64, ["今天", "好"])
    middle = [MASK, MASK, *encode("很"), MASK]
    assert found == [CLS, *middle, *encode("，"), *middle, SEP]
    assert prompt_of("今天很好", TOKENIZER, 64, (), [1, 4]) == [CLS, MASK, *encode("天很"), MASK, SEP]
    assert prompt_of("好", TOKENIZER, 64) == [CLS, *encode("好"), SEP]  # one token is a text
    assert len(prompt_of("今天很好" * 9, TOKENIZER, 10)) == 10


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("今天很好", {"change": ["公园"]}, "'公园' is to change, and '今天很好' does not have it"),
        ("今天很好" * 9, {"change": ["公园"]}, "'今天很好今天很好今天很好今天很好今天很好…' does not have it"),
        ("今天很好", {"mask_idxs": [5]}, "mask_idxs has 5, and '今天很好' has ids from 1 to 4"),
        ("今天很好公园", {"change": ["公园"], "length": 6}, "beyond its first 6 ids: give a longer max_source"),
        ("", {}, "'' has nothing that the vocabulary sees: leave it out"),
        (" \u200b", {}, "has nothing that the vocabulary sees"),
        ("龘靐", {}, "'龘靐' has only characters that the vocabulary does not: leave it out, or take another model"),
    ],
)
def test_texts_that_are_no_prompts_are_one_line(text, settings, message):
    with pytest.raises(DataError, match=message) as error:
        prompt_of(text, TOKENIZER, **{"length": 64} | settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": 0}, "keep is 0: it must be 1 or more"),
        ({"least": 0.9, "greatest": 0.8}, "least is 0.9 and greatest 0.8: give cosines"),
        ({"greatest": 1.5}, "greatest 1.5"),
        ({"diversity": 1.0}, "diversity is 1.0: it must be below 1"),
        ({"change": ("",)}, "change is .*: give words"),
        ({"change": "红色"}, "'红色' is one text: give a list"),
        ({"mask_idxs": (0,)}, r"mask_idxs is \(0,\): give whole numbers from 1"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(Drawing(), **wrong)
