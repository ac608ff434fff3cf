"""Self-debiasing by the cache against the papers' formula in NumPy, over whole sequences computed anew."""

from functools import partial

import jax
import numpy as np
import pytest

from rope.decoding.debiased import Debiased
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from rope.encoder.prefix_decoder import PrefixDecoder
from rope.encoder.roformer import encode, logits
from rope.layers.masks import unilm_mask
from tests.rope.decoding.reference import plain_beams
from tests.rope.encoder.random_encoder import ROFORMER, random_encoder, random_rows
from training.mesh import MeshConfig, make_mesh
from training.partition import spec

LONGEST, PROMPTS = 9, 3
MODEL = random_encoder(ROFORMER, seed=3)
# [B, G, S], of unequal lengths, padded.
ROWS = np.stack([random_rows(ROFORMER, length=11, seed=seed)["ids"] for seed in (1, 2, 3, 4)])
SEEDS = np.arange(len(ROWS), dtype=np.uint32)
DECODER = PrefixDecoder(ROFORMER)


def ids(rows=ROWS, *, end: int = -1, search=Search(), decay=20.0, decoder=None, seeds=SEEDS, **words):  # noqa: B008
    decoder = decoder or Debiased(DECODER, rows.shape[1], decay)
    marks, flat = Marks(start=0, end=end, **words), rows.reshape(len(rows), -1)
    return map(np.asarray, write(MODEL, flat, seeds, decoder=decoder, search=search, marks=marks, length=LONGEST))


@jax.jit
def whole(sequences, segments, types):
    """Log-probabilities [K, T, V] under the mask that training has."""
    hidden = encode(MODEL, sequences, segments, ROFORMER, types=types, mask=unilm_mask(segments, types))
    return jax.nn.log_softmax(logits(MODEL, hidden, ROFORMER))


def under(prompt: np.ndarray, hypotheses: list[list[int]]) -> np.ndarray:
    """Probabilities [K, V] of the next token after each of K hypotheses, of one prompt, all computed anew."""
    begin, written = np.count_nonzero(prompt), np.array(hypotheses, np.int32)
    sequences = np.zeros((len(written), len(prompt) + LONGEST), np.int32)
    sequences[:, :begin] = prompt[:begin]
    end = begin + written.shape[1]
    sequences[:, begin:end] = written
    places = np.broadcast_to(np.arange(sequences.shape[1]), sequences.shape)
    segments, types = (places < end).astype(np.int32), ((begin <= places) & (places < end)).astype(np.int32)
    return np.exp(np.float64(whole(sequences, segments, types)[:, end - 1]))


def log_p(prompts: np.ndarray, decay: float, hypotheses: list[list[int]]) -> np.ndarray:
    """Log-probabilities [K, V]: formula 2 of arXiv 2104.07540 with alpha of its section 3, and made to sum to 1."""
    own, *others = (under(prompt, hypotheses) for prompt in prompts)
    delta = own - np.max(others, 0)
    found = own * np.where(delta >= 0, 1, np.exp(decay * delta))
    return np.log(found / found.sum(-1, keepdims=True))


def test_one_step_is_the_formula():
    decoder, flat = Debiased(DECODER, PROMPTS, 20.0), ROWS.reshape(len(ROWS), -1)
    memory = jax.jit(decoder.begin)(MODEL, flat, (flat != 0).astype(np.int32))
    tokens, path = np.zeros((len(ROWS), 1), np.int32), np.zeros((len(ROWS), 1, 1), np.int32)

    @jax.jit
    def step(memory):
        hidden, _ = decoder.step(MODEL, memory, decoder.cache(memory, 1, 1), tokens, path, np.int32(0))
        return jax.nn.log_softmax(decoder.logits(MODEL, hidden))[:, 0]

    found = step(memory)
    np.testing.assert_allclose(found, [log_p(prompts, 20.0, [[]])[0] for prompts in ROWS], atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 3.0, 100.0])
def test_greedy_tokens_are_the_formulas_most_probable_ones(decay):
    found, scores = ids(decay=decay)
    for prompts, row, score in zip(ROWS, found, scores, strict=True):
        expected = 0.0
        for length, token in enumerate(row):
            (of_next,) = log_p(prompts, decay, [row[:length].tolist()])
            of_next[0] = -np.inf
            assert token == of_next.argmax()
            expected += of_next[token]
        assert score == pytest.approx(expected, rel=1e-4)
    plain, _ = ids(ROWS[:, :1], decoder=DECODER)
    assert np.array_equal(found, plain) == (decay == 0)


def test_beams_are_those_of_the_formula():
    search = Search(beams=3)
    for end in np.unique([*ids(search=search)][0])[::-1].tolist():  # one that ends some rows and not others
        found, scores = ids(search=search, end=end)
        if len({np.count_nonzero(row) for row in found}) > 1:
            break
    for prompts, row, score in zip(ROWS, found, scores, strict=True):
        tokens, expected = plain_beams(partial(log_p, prompts, 20.0), search, end, LONGEST)
        assert row.tolist() == tokens + [0] * (LONGEST - len(tokens))
        assert score == pytest.approx(expected, rel=1e-4)
    assert len({np.count_nonzero(row) for row in found}) > 1


@pytest.mark.parametrize(
    "search",
    [Search(), Search(beams=3), Search(temperature=0.8, top_p=0.9), Search(temperature=1.0, answers=4)],
    ids=str,
)
def test_one_prompt_is_the_plain_decoder_to_the_bit(search):
    prompts, seeds = ROWS[:, :1], np.arange(len(ROWS) * search.answers, dtype=np.uint32)
    alone, plain = (
        [*ids(prompts, search=search, seeds=seeds, end=7, decoder=decoder)]
        for decoder in (Debiased(DECODER, 1), DECODER)
    )
    for one, other in zip(alone, plain, strict=True):
        np.testing.assert_array_equal(one, other)


def test_draws_controls_padding_and_other_rows():
    search = Search(temperature=1.0, answers=5, no_repeat_ngram_size=1)
    seeds = np.arange(5 * len(ROWS), dtype=np.uint32)
    found, _ = ids(search=search, seeds=seeds, never=((7,),))
    assert len({tuple(row) for row in found.tolist()}) == len(found) and 7 not in found
    assert all(len({*row}) == LONGEST for row in found.tolist())
    wider = np.pad(ROWS, ((0, 0), (0, 0), (0, 4)))
    np.testing.assert_array_equal([*ids(wider, search=search, seeds=seeds, never=((7,),))][0], found)
    last, _ = ids(ROWS[-1:], search=search, seeds=seeds[-5:], never=((7,),))
    np.testing.assert_array_equal(last, found[-5:])
    nothing = np.concatenate([ROWS[:2], np.zeros_like(ROWS[:1])])
    assert not [*ids(nothing, seeds=SEEDS[:3])][0][2].any()


@pytest.mark.slow  # over a mesh test_prefix_decoder.py has the same search
def test_a_mesh_changes_nothing():
    rows = np.tile(ROWS, (2, 1, 1))[:8].reshape(8, -1)
    run = partial(write, decoder=Debiased(DECODER, PROMPTS), marks=Marks(start=0, end=-1), length=LONGEST)
    for search in (Search(beams=3), Search(temperature=1.0, answers=2)):
        seeds = np.arange(8 * search.answers, dtype=np.uint32)
        alone, _ = run(MODEL, rows, seeds, search=search)
        with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2, tensor=1), jax.devices()[:8])):
            cut = (jax.device_put(x, spec("batch")) for x in (rows, seeds))
            sharded, _ = run(jax.device_put(MODEL, jax.P()), *cut, search=search)
        np.testing.assert_array_equal(sharded, alone)


def test_what_is_refused():
    with pytest.raises(ValueError, match="prompts is 0: it must be 1 or more"):
        Debiased(DECODER, 0)
    with pytest.raises(ValueError, match="decay is -1.0: it must be 0 or more"):
        Debiased(DECODER, 2, -1.0)
    with pytest.raises(ValueError, match="rows of 11 ids: 2 prompts of one length are needed"):
        ids(ROWS[:, :1], decoder=Debiased(DECODER, 2))
