"""What an encoder expects at a number's places, and what it adds to what stands beside them."""

from collections import Counter
from functools import partial

import jax
import numpy as np
import pytest

from retrieval.matching.alignment import likelihood
from retrieval.matching.alignment.context import by_context
from retrieval.matching.alignment.likelihood import by_likelihood, expectation
from retrieval.matching.alignment.statistics import Statistics, gather, of_numbers, of_plain
from retrieval.matching.alignment.table import of_key
from retrieval.matching.alphabet import make_alphabet
from rope.encoder.roformer import RoFormerConfig, encode, logits
from tests.retrieval.matching.small_matching import KEY, NUMBERS, as_numbers, texts
from tests.retrieval.vectors.test_encoding import TOKENIZER, source
from tests.rope.encoder.random_encoder import BERT, ROFORMER

SIZE = 24
TWINS = (5, 6)  # tokens beside which the same stands


@pytest.fixture(scope="module")
def twins() -> tuple[Statistics, Statistics, np.ndarray]:
    """A language and the same in numbers, of which two tokens stand beside the same, as often; and the key."""
    law = np.random.default_rng(0).dirichlet(np.full(SIZE, 0.06), SIZE)
    law = 0.97 * law + 0.03 * np.random.default_rng(4).dirichlet(np.full(SIZE, 0.3))
    law[:, TWINS] = law[:, TWINS].mean(1, keepdims=True)
    law[TWINS, :] = law[TWINS, :].mean(0)
    key = np.random.default_rng(1).permutation(SIZE)
    number = np.argsort(key)

    def lines(seed: int) -> list[np.ndarray]:
        random, found = np.random.default_rng(seed), []
        for _ in range(2000):
            line = [int(random.integers(SIZE))]
            while len(line) < 8:
                line.append(int(random.choice(SIZE, p=law[line[-1]])))
            found.append(np.array(line))
        return found

    return gather((number[line] for line in lines(2)), SIZE), gather(lines(3), SIZE), key


def right(match: np.ndarray, key: np.ndarray) -> np.ndarray:
    return match.argmax(1) == key


def test_what_is_expected_tells_apart_what_stands_beside_the_same(twins) -> None:
    numbers, tokens, key = twins
    unsure = np.isin(key, TWINS)
    alone = by_context(numbers, tokens)
    assert right(alone, key)[~unsure].all() and alone[unsure].max() < 0.9
    truth = np.eye(SIZE, dtype=np.float32)[key]
    for twin in (True, False):  # what an encoder might expect of the twins, and of all others but them
        shares = by_likelihood(numbers, tokens, lambda match, turn, which=unsure == twin: 3 * truth * which[:, None])
        assert right(shares, key)[~unsure].all()
        if twin:
            assert right(shares, key).all() and shares[unsure, key[unsure]].min() > 0.9


def test_where_nothing_is_expected_a_perfect_matching_stays(twins) -> None:
    numbers, tokens, key = twins
    turns: list[tuple[int, int]] = []
    shares = by_likelihood(numbers, tokens, lambda match, turn: 0 * match, lambda *turn: turns.append(turn))
    unsure = np.isin(key, TWINS)
    assert right(shares, key)[~unsure].all()
    np.testing.assert_allclose(shares[unsure][:, TWINS], 0.5, atol=0.1)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert [turn for turn, _ in turns] == [*range(1, turns[-1][1] + 1)] and len({of for _, of in turns}) == 1


@pytest.mark.parametrize("config", [ROFORMER, BERT], ids=["roformer", "bert"])
def test_the_mean_log_probability_at_a_numbers_places_is_counted(config: RoFormerConfig, monkeypatch) -> None:
    """By hand: each number stands beside one that is too rare to be hidden, so there are two contexts in all."""
    monkeypatch.setattr(likelihood, "DOUBT", 0)
    monkeypatch.setattr(likelihood, "ROWS", 16)
    plain, (one, other) = source(config), NUMBERS[:2]
    alphabet = make_alphabet(Counter([one, other]), 1)
    match = of_key([one, other], TOKENIZER.vocabulary, KEY)
    found = expectation(plain, alphabet, [f"{one} 9999", f"9999 9999 {other}"] * 40)(match, 0)
    states, wanted = jax.jit(partial(encode, config=plain.config)), []
    for words in ([TOKENIZER.mask_id, TOKENIZER.unk_id], [TOKENIZER.unk_id, TOKENIZER.unk_id, TOKENIZER.mask_id]):
        ids = np.array([TOKENIZER.frame_source(words, 20)], np.int32)
        hidden = states(plain.model, ids, np.ones_like(ids))
        at = words.index(TOKENIZER.mask_id) + 1
        wanted.append(jax.nn.log_softmax(logits(plain.model, hidden, plain.config)[0, at]))
    np.testing.assert_allclose(found[0] - found[1], np.subtract(*map(np.asarray, wanted)), atol=1e-4)


def test_the_same_is_expected_to_the_bit_whatever_it_is_asked_before(monkeypatch) -> None:
    monkeypatch.setattr(likelihood, "ROWS", 8)
    plain, alphabet = source(), make_alphabet(Counter(NUMBERS), 1)
    secret = [as_numbers(text) for text in texts(30)]
    numbers = of_numbers(secret, alphabet.vocabulary[106:])
    tokens = of_plain(texts(40, 1), TOKENIZER)
    one, other = (by_likelihood(numbers, tokens, expectation(plain, alphabet, secret)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    match = by_context(numbers, tokens)
    expect = expectation(plain, alphabet, secret)
    first, _, again, second = expect(match, 0), expect(match, 1), expect(match, 0), expect(match, 1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0  # other places are hidden
