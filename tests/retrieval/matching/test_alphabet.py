"""An alphabet is a vocab.txt whose words are numbers: it reads them as the Reader does, and is saved as one."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer
from retrieval.matching.alphabet import NO, RARE, YES, count_numbers, is_alphabet, is_number, make_alphabet
from retrieval.matching.pairs import Reader, Row, named_rare
from tests.retrieval.vectors.test_encoding import TOKENIZER
from training.files.errors import DataError

NUMBERS = st.integers(0, 30).map(str) | st.integers(0, 10**9).map(str) | st.text("0123456789", min_size=1, max_size=7)
ROWS = st.lists(NUMBERS, min_size=1, max_size=20)


def words_of(counts: dict[str, int], least: int = 1) -> list[str]:
    return make_alphabet(Counter(counts), least).vocabulary[len(SPECIALS) :]


def test_ranked_by_count_then_by_number():
    assert words_of({"7": 2, "100": 2, "20": 2, "3": 9, "1": 1}) == ["3", "7", "20", "100", "1"]
    assert words_of(count_numbers(["12 7", "7  9 12", "7"])) == ["7", "12", "9"]


@given(st.dictionaries(st.integers(0, 99).map(str), st.integers(1, 9), min_size=1), st.integers(1, 9))
def test_what_comes_less_often_is_left_out(counts: dict[str, int], least: int) -> None:
    if max(counts.values()) < least:
        with pytest.raises(DataError, match=f"^no number comes {least} times or more among {sum(counts.values())}; "):
            words_of(counts, least)
        return
    kept = words_of(counts, least)
    assert {*kept} == {number for number, count in counts.items() if count >= least} and len({*kept}) == len(kept)
    order = [(-counts[number], int(number)) for number in kept]
    assert order == sorted(order)


def test_none_at_all_is_refused():
    with pytest.raises(DataError, match="^no number comes 5 times or more among 8; give more text, or --least$"):
        make_alphabet(count_numbers(["1 2 1 2", "1 2 2 1"]))
    with pytest.raises(DataError, match="^no number comes 1 times or more among 0; "):
        words_of({})


@given(known=ROWS, row=ROWS)
def test_encode_gives_the_readers_ids(known: list[str], row: list[str]) -> None:
    """Unknown numbers are [UNK], however many of their digits are words; 007 is not 7."""
    alphabet, text = make_alphabet(count_numbers([" ".join(known)]), 1), " ".join(row)
    ids = alphabet.encode(text)
    found = Reader(alphabet).pair(Row("", text, "", None)).a
    assert named_rare(found, alphabet.unk_id, False).tolist() == ids and len(ids) == len(row)
    assert [i != alphabet.unk_id for i in ids] == [number in known for number in row]
    kept = [alphabet.vocabulary[i] for i in ids if i != alphabet.unk_id]
    assert kept == [number for number in row if number in known]


def test_what_is_an_alphabet():
    assert is_alphabet(make_alphabet(Counter({"12": 5, "0": 7})))
    assert not is_alphabet(TOKENIZER)
    assert not is_alphabet(PegasusTokenizer([*SPECIALS, "12", "天"]))
    assert is_number("007") and not any(map(is_number, ["", "-1", "1.5", "１２", "²", "٣", "1e3"]))


def test_the_labels_and_rare_numbers_have_ids_that_no_word_has():
    ids = [NO, YES, *RARE]
    assert len({*ids}) == len(ids) and all(SPECIALS[i] == f"[unused{i}]" for i in ids)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    random = np.random.default_rng(0)
    made = make_alphabet(count_numbers([" ".join(map(str, random.integers(0, 99, 400)))]), 2)
    made.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, PegasusTokenizer) and loaded.vocabulary == made.vocabulary and is_alphabet(loaded)
    assert loaded.fingerprint == made.fingerprint and loaded.settings == made.settings
    text = " ".join(map(str, range(120)))
    assert loaded.encode(text) == made.encode(text)
