"""A private map is one to one and tells nothing; whoever has it undoes what was anonymised."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.documents import CORPUS
from retrieval.matching.alignment.table import read_key
from retrieval.matching.alphabet import is_number
from retrieval.matching.anonymise import SPREAD, anonymised, characters, private_map, write_key
from training.experiment.statistics import spearman

TEXTS = st.lists(st.text(max_size=20) | st.text("天气 A,é1\t", max_size=20), max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    lines = (CORPUS / "heldout.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@given(TEXTS, SEEDS)
def test_the_map_is_one_to_one(texts: list[str], seed: int) -> None:
    of = private_map(texts, seed)
    assert {*of} == {x for text in texts for x in characters(text)}
    assert len({*of.values()}) == len(of)
    assert all(type(number) is int and 1 <= number <= SPREAD * len(of) for number in of.values())


@given(TEXTS, SEEDS)
def test_the_same_seed_makes_the_same_map(texts: list[str], seed: int) -> None:
    """Of the same characters, however often and in whatever order."""
    of = private_map(texts, seed)
    assert private_map([*reversed(texts), *texts], seed) == of


def test_another_seed_makes_another_map(corpus):
    maps = [private_map(corpus, seed) for seed in range(4)]
    for n, one in enumerate(maps):
        same = [sum(one[x] == other[x] for x in one) for other in maps[:n]]
        assert all(count < 5 for count in same)  # one in 3 by chance


@pytest.mark.parametrize("seed", range(5))
def test_neither_frequency_nor_the_alphabet_tells_the_number(corpus, seed):
    """Spearman's of independent ranks deviates by 1 / √(n - 1) from 0; the bound is four times that."""
    counts = Counter(x for text in corpus for x in characters(text))
    of = private_map(corpus, seed)
    numbers = np.array([of[x] for x in counts])
    bound = 4 / (len(counts) - 1) ** 0.5
    assert len(counts) > 1000 and bound < 0.13
    assert abs(spearman(np.array([*counts.values()]), numbers)) < bound
    assert abs(spearman(np.array([ord(x) for x in counts]), numbers)) < bound
    assert abs(spearman(np.arange(len(counts)), numbers)) < bound  # the order in which they come
    # Nor do the numbers say how many characters there are: they are spread evenly over three times as many.
    assert abs(numbers.mean() / (3 * len(counts)) - 0.5) < 4 * (1 / 12 / len(counts)) ** 0.5


@given(texts=TEXTS, seed=SEEDS)
def test_the_key_undoes_it(tmp_path_factory, texts: list[str], seed: int) -> None:
    of, path = private_map(texts, seed), tmp_path_factory.getbasetemp() / "key.tsv"
    write_key(path, of)
    key = read_key(str(path))
    assert [*map(int, key)] == sorted(of.values())
    for text in texts:
        numbers = anonymised(text, of).split(" ") if characters(text) else []
        assert all(map(is_number, numbers))
        assert [key[number] for number in numbers] == characters(text)


def test_a_corpus_undone_is_the_corpus(corpus, tmp_path):
    of = private_map(corpus, 0)
    write_key(tmp_path / "key.tsv", of)
    key = read_key(str(tmp_path / "key.tsv"))
    undone = ["".join(map(key.__getitem__, anonymised(text, of).split())) for text in corpus]
    assert undone == ["".join(text.lower().split()) for text in corpus] and len("".join(undone)) > 5000


def test_characters_are_those_of_a_vocabulary():
    assert characters("今天 OK，\t好\u3000吗\r\n") == [*"今天ok，好吗"]
    assert characters("e\u0301") == characters("É") == ["é"]
    assert anonymised(" \n", {}) == ""
