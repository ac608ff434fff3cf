import random
import subprocess
import sys

import numpy as np
import pytest
import rjieba
from hypothesis import example, given
from hypothesis import strategies as st

from pegasus_zh.rows.pseudo_summary import SELECTORS, pseudo_summary
from tests.pegasus_zh.rows import reference
from training.files.errors import DataError

# Few kinds of characters and short sentences: many ties, repeated and empty sentences.
few_kinds = st.lists(st.text("天地😀", max_size=6), max_size=9)
more_kinds = st.lists(st.text("天地玄黄宇宙a \x00\ud800😀", max_size=12), max_size=12)
ratios = st.sampled_from([0.1, 0.25, 0.5, 1.0, 3.0])


def zipf_sentences(kinds: int, sentences: int, seed: int) -> list[str]:
    """Sentences of 10 to 32 characters with the few frequent and many rare kinds of real text."""
    generator = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, kinds + 1)
    lengths = generator.integers(10, 33, sentences)
    draws = [generator.choice(kinds, length, p=frequency / frequency.sum()) for length in lengths]
    return ["".join(chr(0x4E00 + kind) for kind in draw) for draw in draws]


@given(st.one_of(few_kinds, more_kinds), ratios)
@example(["天地"] * 6, 0.25)
@example(["", "", ""], 0.25)
@example(["天", "", ""], 0.25)
@example(["天", "天", ""], 0.25)
@example([], 0.25)
@example(["天地玄黄"], 0.25)
@example(["😀😁", "😁😀", "😀"], 0.25)
def test_lcs_is_the_reference(sentences: list[str], ratio: float) -> None:
    assert pseudo_summary(sentences, ratio=ratio) == reference.pseudo_summary(sentences, ratio)


@pytest.mark.parametrize(("kinds", "sentences", "ratio"), [(400, 22, 0.25), (30, 12, 1.0), (3, 12, 1.0)])
def test_lcs_is_the_reference_on_text_of_real_size(kinds: int, sentences: int, ratio: float) -> None:
    texts = zipf_sentences(kinds, sentences, seed=kinds)
    assert pseudo_summary(texts, ratio=ratio) == reference.pseudo_summary(texts, ratio)


def test_lcs_is_the_reference_beyond_256_matchable_kinds() -> None:
    order = random.Random(0)
    characters = [chr(0x4E00 + k) for k in range(300)] * 2
    order.shuffle(characters)
    texts = ["".join(characters[k : k + 50]) for k in range(0, 600, 50)]
    assert pseudo_summary(texts) == reference.pseudo_summary(texts)


def test_lcs_by_hand() -> None:
    # "天地玄黄" has 4 characters of the rest, "地宇" 1, the others fewer in order; 4 / 9 > 0.25 ends it.
    assert pseudo_summary(["宇地", "天地玄黄", "天宙地", "玄黄"]) == ([0, 2, 3], [1])
    assert pseudo_summary(["天地", "天地", "天地"]) == ([1, 2], [0])  # the first of equals
    # The target would be longer than the source: they are swapped.
    assert pseudo_summary(["天地玄黄", "天", "地"]) == ([0], [1, 2])


@pytest.mark.parametrize("selector", SELECTORS)
def test_fewer_than_two_sentences_have_no_target(selector: str) -> None:
    assert pseudo_summary([], selector=selector) == ([], [])
    assert pseudo_summary(["天地"], selector=selector) == ([0], [])
    assert pseudo_summary([""], selector=selector, unit="word") == ([0], [])


@given(few_kinds, ratios, st.booleans(), st.booleans())
def test_rouge_selectors_are_the_reference(sentences: list[str], ratio: float, sequential: bool, unique: bool) -> None:
    name = f"{'seq' if sequential else 'ind'}-{'uniq' if unique else 'orig'}"
    expected = reference.gap_sentences(sentences, sequential=sequential, unique=unique, ratio=ratio)
    assert pseudo_summary(sentences, selector=name, ratio=ratio) == expected


words = st.sampled_from(["北京", "天气", "今天", "很", "好", "。"])


@given(st.lists(st.lists(words, max_size=6).map("".join), max_size=7), st.booleans(), st.booleans())
def test_rouge_selectors_count_words(sentences: list[str], sequential: bool, unique: bool) -> None:
    name = f"{'seq' if sequential else 'ind'}-{'uniq' if unique else 'orig'}"
    expected = reference.gap_sentences(
        sentences, sequential=sequential, unique=unique, cut=lambda text: rjieba.cut(text, False)
    )
    assert pseudo_summary(sentences, selector=name, unit="word") == expected


def test_the_four_rouge_selectors_differ() -> None:
    texts = zipf_sentences(300, 25, seed=7)
    names = ["ind-orig", "ind-uniq", "seq-orig", "seq-uniq"]
    assert len({tuple(pseudo_summary(texts, selector=name)[1]) for name in names}) == 4


@given(few_kinds, ratios)
@example(["天地", "地天", "天天地"], 0.25)
def test_rouge_l_is_the_reference(sentences: list[str], ratio: float) -> None:
    expected = reference.rouge_l_sentences(sentences, ratio)
    assert pseudo_summary(sentences, selector="rouge-l", ratio=ratio) == expected


def test_rouge_l_is_the_reference_on_text_of_real_size_and_on_words() -> None:
    texts = zipf_sentences(400, 12, seed=5)
    assert pseudo_summary(texts, selector="rouge-l") == reference.rouge_l_sentences(texts)
    cut = lambda text: rjieba.cut(text, False)  # noqa: E731
    texts = ["今天北京天气很好。", "天气很好。", "北京今天很好。", "天天"]
    found = pseudo_summary(texts, selector="rouge-l", unit="word", ratio=1)
    assert found == reference.rouge_l_sentences(texts, 1, cut)


def test_rouge_l_does_not_prefer_what_is_long_or_repeated() -> None:
    # Of the first six characters stand in the rest in order, but of two kinds: the second has three kinds of three.
    sentences = ["甲乙甲乙甲乙丙", "甲乙丁", "丁甲乙甲乙甲乙"]
    assert pseudo_summary(sentences, ratio=0)[1] == [0]
    assert pseudo_summary(sentences, selector="rouge-l", ratio=0)[1] == [1]


@given(more_kinds, st.sampled_from(sorted(SELECTORS)), st.integers(0, 3))
def test_kept_sentences_are_in_both(sentences: list[str], selector: str, seed: int) -> None:
    source, target = pseudo_summary(sentences, selector=selector, seed=seed)
    some = pseudo_summary(sentences, selector=selector, seed=seed, kept=0.5)
    assert some[1] == target and {*source} <= {*some[0]} <= {*source, *target} and some[0] == sorted(some[0])
    assert some == pseudo_summary(sentences, selector=selector, seed=seed, kept=0.5)
    every = pseudo_summary(sentences, selector=selector, seed=seed, kept=1)
    assert every == ([*range(len(sentences))], target)


def test_as_many_are_kept_as_asked_for() -> None:
    texts = [zipf_sentences(60, 30, seed=seed) for seed in range(60)]
    pairs = [pseudo_summary(text, selector="random", kept=0.2) for text in texts]
    kept, targets = (sum(map(len, x)) for x in ([{*s} & {*t} for s, t in pairs], [t for _, t in pairs]))
    assert targets > 300 and abs(kept / targets - 0.2) < 4 * (0.2 * 0.8 / targets) ** 0.5


def test_lcs_over_words_matches_no_part_of_a_word() -> None:
    sentences = ["人民", "民人", "民"]  # the words 人民 | 民, 人 | 民
    assert pseudo_summary(sentences)[1] == [0]
    assert pseudo_summary(sentences, unit="word")[1] == [1]
    assert pseudo_summary(["民", "今天\ud800", "今天"], unit="word")[1] == [1]


@given(more_kinds, ratios, st.sampled_from(sorted(SELECTORS)), st.integers(0, 3))
def test_source_and_target_are_a_partition_of_the_right_size(
    sentences: list[str], ratio: float, selector: str, seed: int
) -> None:
    source, target = pseudo_summary(sentences, selector=selector, ratio=ratio, seed=seed)
    assert sorted(source + target) == list(range(len(sentences)))
    assert source == sorted(source) and target == sorted(target)
    lengths = [sum(len(sentences[k]) for k in side) for side in (source, target)]
    assert lengths[0] >= lengths[1]
    assert len(target) >= min(len(sentences) - 1, 1)


@given(few_kinds.filter(lambda sentences: len(sentences) > 1), ratios)
def test_lead_takes_the_first_sentences_until_the_target_is_long_enough(sentences: list[str], ratio: float) -> None:
    lengths = list(map(len, sentences))
    count = next(
        count
        for count in range(1, len(sentences))
        if sum(lengths[:count]) > ratio * sum(lengths[count:]) or count == len(sentences) - 1
    )
    first, last = list(range(count)), list(range(count, len(sentences)))
    expected = (first, last) if sum(lengths[:count]) > sum(lengths[count:]) else (last, first)
    assert pseudo_summary(sentences, selector="lead", ratio=ratio) == expected


def test_random_depends_on_the_seed_and_the_text_alone() -> None:
    sentences = zipf_sentences(300, 25, seed=3)
    chosen = pseudo_summary(sentences, selector="random", seed=5)
    assert chosen == pseudo_summary(sentences, selector="random", seed=5)
    assert chosen != pseudo_summary(sentences, selector="random", seed=6)
    assert chosen != pseudo_summary([*sentences[:-1], sentences[-1] + "。"], selector="random", seed=5)
    # Python's own hash() differs from process to process; the selection must not.
    program = (
        f"from pegasus_zh.rows.pseudo_summary import *; print(pseudo_summary({sentences}, selector='random', seed=5))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs == [f"{chosen}\n"] * 2


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="unknown selector 'lcss': use one of lcs, random, lead"):
        pseudo_summary(["天", "地"], selector="lcss")
    with pytest.raises(DataError, match="unknown unit 'byte': use character or word"):
        pseudo_summary(["天", "地"], unit="byte")
