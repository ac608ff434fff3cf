"""What controls a text, against transformers' generate() with the same settings: ids of 200 inputs, one by one."""

from collections import Counter
from dataclasses import replace
from itertools import product

import jax
import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from pegasus_zh.t5.decoder import MT5Decoder
from rope.decoding.controls import controlled
from rope.decoding.search import Marks, Search
from rope.decoding.tokens import allowed, of_top_k, ranked_before
from rope.decoding.write import write
from tests.parity.reference import reference_model
from tests.pegasus_zh.t5.random_model import START, TINY, random_model, random_pairs, rows

INPUTS, LONGEST = 200, 24
SEARCHES = {"greedy": Search(), "4 beams": Search(beams=4), "3 beams": Search(beams=3, length_penalty=0.0)}
GREEDY, BEAMS, _ = SEARCHES.values()
MODEL = random_model(TINY, seed=3)
# Sharp, so that no two tokens are as good as each other; padding is often most probable.
MODEL = MODEL.replace(head=3 * MODEL.head.at[:, 0].multiply(2))
SOURCE = rows([[pair] for pair in random_pairs(INPUTS, TINY, seed=5, source=40)], 40, 24)["source"]


def ours(search: Search, marks: Marks) -> np.ndarray:
    seeds = np.zeros(INPUTS * search.answers, np.uint32)
    found, _ = write(MODEL, SOURCE, seeds, decoder=MT5Decoder(TINY), search=search, marks=marks, length=LONGEST)
    return np.asarray(found)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return reference_model(MODEL, TINY, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def free():
    """(the end token, which half of the rows have early, what is written without any control, the words of one to three
    ids that are most often in it)."""
    early = ours(GREEDY, Marks(start=START, end=-1))[:, :8]
    end = min(range(1, TINY.vocabulary), key=lambda token: abs((early == token).any(1).mean() - 0.5))
    written = ours(GREEDY, Marks(start=START, end=end))
    words = []
    for n in (1, 2, 3):
        found = Counter(tuple(row[i : i + n].tolist()) for row in written for i in range(LONGEST + 1 - n))
        words.append(next(word for word, _ in found.most_common() if not {0, end} & {*word} and len({*word}) == n))
    return end, written, tuple(words)


def settings(search: Search, marks: Marks) -> dict:
    """The same for transformers."""
    return {
        "num_beams": search.beams,
        "length_penalty": search.length_penalty,
        "num_return_sequences": search.answers,
        "min_length": search.min_length,
        "no_repeat_ngram_size": search.no_repeat_ngram_size,
        "repetition_penalty": search.repetition_penalty,
        "bad_words_ids": [*map(list, marks.never)] or None,
        "forced_bos_token_id": marks.first[0] if marks.first else None,
        "decoder_start_token_id": marks.start,
        "eos_token_id": marks.end,
        "pad_token_id": marks.pad,
        "suppress_tokens": [marks.pad],
    }


def theirs(reference, search: Search, marks: Marks, prompt: tuple[int, ...] = ()) -> np.ndarray:
    """prompt: ids that the decoder is given after its start."""
    begun = {"decoder_input_ids": torch.tensor([[marks.start, *prompt]] * INPUTS)} if prompt else {}
    written = reference.generate(
        input_ids=torch.from_numpy(SOURCE).long(),
        attention_mask=torch.from_numpy(SOURCE > 0).long(),
        do_sample=False,
        max_length=LONGEST + 1,
        **settings(search, marks),
        **begun,
    ).numpy()[:, 1:]
    # Where the padding id is 0, transformers' beam search fills rows with the end token.
    written[np.cumsum(written == marks.end, 1) - (written == marks.end) > 0] = 0
    return np.pad(written, [(0, 0), (0, LONGEST - written.shape[1])])


CONTROLS = {
    "no ids twice": {"no_repeat_ngram_size": 1},
    "no pairs twice": {"no_repeat_ngram_size": 2},
    "no triples twice": {"no_repeat_ngram_size": 3},
    "penalty": {"repetition_penalty": 1.3},
    "bonus": {"repetition_penalty": 0.7},
    "length": {"min_length": 12},
    "words": {"never": True},
    "first": {"first": True},
    "all": {
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.2,
        "min_length": 9,
        "never": True,
        "first": True,
    },
}


@pytest.mark.parametrize(("beams", "name"), [*product(["greedy", "4 beams"], CONTROLS), ("3 beams", "all")])
def test_200_outputs(reference, free, beams, name):
    search, (end, written, words) = SEARCHES[beams], free
    numbers, marks = dict(CONTROLS[name]), Marks(start=START, end=end)
    if numbers.pop("never", False):
        marks = replace(marks, never=words)
    if numbers.pop("first", False):
        marks = replace(marks, first=(words[1][1],))
    search = replace(search, **numbers)
    found = ours(search, marks)
    assert (found != written).any(1).mean() > 0.1
    np.testing.assert_array_equal(found, theirs(reference, search, marks))


def test_the_best_three_of_four_beams(reference, free):
    marks, search = Marks(start=START, end=free[0]), replace(BEAMS, answers=3, no_repeat_ngram_size=2)
    found = ours(search, marks)
    assert all(len(np.unique(three, axis=0)) == 3 for three in found.reshape(INPUTS, 3, LONGEST))
    np.testing.assert_array_equal(found, theirs(reference, search, marks))


def test_several_first_tokens_are_a_prompt_of_the_decoder(reference, free):
    first = free[2][2]
    marks, search = Marks(start=START, end=free[0]), replace(GREEDY, no_repeat_ngram_size=3)
    found = ours(search, replace(marks, first=first))
    assert (found[:, : len(first)] == first).all()
    np.testing.assert_array_equal(found, theirs(reference, search, marks, first))


DRAWS = {
    "temperature": {"temperature": 0.7},
    "top_k": {"temperature": 1.3, "top_k": 7},
    "top_p": {"temperature": 1.0, "top_p": 0.8},
    "all": {
        "temperature": 0.9,
        "top_k": 9,
        "top_p": 0.9,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.2,
        "min_length": 9,
    },
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_from(reference, free, name):
    """The distribution that is drawn from after some ids, value by value: the draws themselves are other numbers."""
    end, written, words = free
    search, marks = Search(**DRAWS[name]), Marks(start=START, end=end, never=words if name == "all" else ())
    scores = np.random.default_rng(0).normal(0, 3, (INPUTS, TINY.vocabulary)).astype(np.float32)
    for t in (0, 1, 2, 7, LONGEST - 1):
        logits = allowed(jax.numpy.asarray(scores), marks.pad)
        chosen = controlled(logits, jax.numpy.asarray(written), jax.numpy.int32(t), search, marks)
        if search.top_k:
            left, tokens = of_top_k(chosen / search.temperature, search)
            found = np.zeros_like(scores)
            np.put_along_axis(found, np.asarray(tokens), np.asarray(jax.nn.softmax(left, -1)), 1)
        else:
            p = np.asarray(jax.nn.softmax(chosen / search.temperature, -1))
            number = np.arange(p.shape[1])
            before = np.stack([np.sum(row * ranked_before(row[None], number[None], row, number), -1) for row in p])
            found = np.where((before < search.top_p) | (search.top_p == 1), p, 0)
            found /= found.sum(1, keepdims=True)
        config = GenerationConfig(
            do_sample=True,
            temperature=search.temperature,
            top_k=search.top_k,
            top_p=search.top_p,
            **settings(search, marks),
        )
        reference._prepare_special_tokens(config, device="cpu")
        processors = reference._get_logits_processor(config, input_ids_seq_length=1)
        history = torch.from_numpy(np.pad(written[:, :t], [(0, 0), (1, 0)], constant_values=START)).long()
        wanted = processors(history, torch.from_numpy(scores)).softmax(-1).numpy()
        np.testing.assert_array_equal(found > 0, wanted > 0)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-7)
