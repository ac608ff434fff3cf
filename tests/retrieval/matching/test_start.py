"""An encoder that reads numbers by the true map computes what it computes of the characters."""

from collections import Counter
from functools import partial

import jax
import numpy as np
import pytest

from retrieval.matching.alignment.table import of_key
from retrieval.matching.alphabet import NO, YES, make_alphabet
from retrieval.matching.start import beginning_to_match, reading_numbers
from rope.encoder.roformer import encode, logits
from tests.retrieval.matching.small_matching import KEY, NUMBERS, as_numbers, texts
from tests.retrieval.vectors.test_encoding import TOKENIZER, source

ALPHABET = make_alphabet(Counter(NUMBERS), 1)
ORDER = ALPHABET.vocabulary[106:]


def test_by_the_true_map_states_and_logits_are_those_of_the_characters() -> None:
    plain = source()
    made = reading_numbers(plain, ALPHABET, of_key(ORDER, plain.tokenizer.vocabulary, KEY))
    for text in texts(5):
        states = []
        for given, words in ((plain, text), (made, as_numbers(text))):
            ids = np.array([given.tokenizer.frame_source(given.tokenizer.encode(words), 20)], np.int32)
            hidden = jax.jit(partial(encode, config=given.config))(given.model, ids, np.ones_like(ids))
            at = jax.jit(partial(logits, config=given.config))(given.model, hidden)
            states.append((np.asarray(hidden), np.asarray(at)[0]))
        np.testing.assert_array_equal(states[0][0], states[1][0])
        of = {number: TOKENIZER.encode(character)[0] for number, character in KEY.items()}
        for n, number in enumerate(ORDER):
            np.testing.assert_allclose(states[1][1][:, 106 + n], states[0][1][:, of[number]], rtol=1e-5, atol=1e-5)


def test_rows_are_mixed_by_shares_and_what_is_missing_is_unknown() -> None:
    plain = source()
    shares = np.zeros((len(NUMBERS), plain.tokenizer.vocab_size), np.float32)
    shares[0, [106, 107]] = 0.25, 0.5
    made, word = reading_numbers(plain, ALPHABET, shares), plain.model.embeddings.word
    np.testing.assert_allclose(
        made.model.embeddings.word[106], 0.25 * word[106] + 0.5 * word[107] + 0.25 * word[100], rtol=1e-6
    )
    np.testing.assert_array_equal(made.model.embeddings.word[107], word[100])
    np.testing.assert_array_equal(made.model.embeddings.word[[NO, YES]], word[[NO, YES]])  # may have been learned
    assert made.config.vocabulary % 16 == 0 and len(made.model.embeddings.word) == made.config.vocabulary


def test_words_of_labels_and_marks_begin_as_far_apart_as_words() -> None:
    plain = source()
    made, same, other = (beginning_to_match(plain, seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, made.model, same.model)
    word, kind = made.model.embeddings.word, made.model.embeddings.type
    assert kind is not None and np.abs(word[[NO, YES]] - other.model.embeddings.word[[NO, YES]]).min() > 0
    wide = plain.model.embeddings.word[106:].std()
    for apart in (word[YES] - word[NO], kind[1] - kind[0]):
        assert wide / 2 < apart.std() < 3 * wide
    kept = [n for n in range(len(word)) if n not in (NO, YES)]
    np.testing.assert_array_equal(word[kept], plain.model.embeddings.word[kept])
    jax.tree.map(np.testing.assert_array_equal, made.model.blocks, plain.model.blocks)


def test_drawn_rows_are_random_and_their_layers_are_kept() -> None:
    plain = source()
    one, same, other = (reading_numbers(plain, ALPHABET, np.zeros((15, 1)), seed, drawn=True) for seed in (0, 0, 1))
    rows = [x.model.embeddings.word[106 : 106 + len(NUMBERS)] for x in (one, same, other)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert np.abs(rows[0] - rows[2]).min() > 0 and rows[0].std() == pytest.approx(0.02, rel=0.15)
    jax.tree.map(np.testing.assert_array_equal, one.model.blocks, plain.model.blocks)
