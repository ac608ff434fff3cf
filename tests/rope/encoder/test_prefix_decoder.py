"""Writing on from a prompt, step by step, against the whole sequence under UniLM's mask at every step."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from rope.encoder.prefix_decoder import PrefixDecoder
from rope.encoder.roformer import encode, logits
from rope.layers.masks import unilm_mask
from rope.positions.extension import Extension
from tests.rope.decoding.reference import plain_beams
from tests.rope.encoder.random_encoder import ROFORMER, random_encoder, random_rows
from training.mesh import MeshConfig, make_mesh
from training.partition import spec

LONGEST = 9
PROMPTS = random_rows(ROFORMER, length=11)["ids"]  # of unequal lengths, padded; their last tokens are any
SEEDS = np.zeros(len(PROMPTS), np.uint32)
CONFIGS = {
    "roformer": ROFORMER,
    "bert": replace(ROFORMER, positions="learned", max_positions=len(PROMPTS[0]) + LONGEST),
    "pre-norm, half, yarn": replace(
        ROFORMER, norm="pre", layout="half", extension=Extension(method="yarn", factor=2, trained=8)
    ),
}

MODELS = {name: random_encoder(CONFIGS[name], seed=3) for name in ("roformer", "bert")}
MODEL = MODELS["roformer"]


def ids(prompts=PROMPTS, *, end: int = -1, search=Search(), config=ROFORMER, seeds=SEEDS, model=None):  # noqa: B008
    marks, model = Marks(start=0, end=end), model_of(config) if model is None else model
    return write(model, prompts, seeds, decoder=PrefixDecoder(config), search=search, marks=marks, length=LONGEST)


def model_of(config):
    return MODELS["bert" if config.positions == "learned" else "roformer"]


@partial(jax.jit, static_argnames="config")
def whole(sequences, segments, types, config):
    """Log-probabilities [K, T, V] under the mask that training has."""
    model = model_of(config)
    hidden = encode(model, sequences, segments, config, types=types, mask=unilm_mask(segments, types))
    return jax.nn.log_softmax(logits(model, hidden, config))


def log_p(prompt: np.ndarray, hypotheses: list[list[int]], config) -> np.ndarray:
    """Of the next token [K, V] after each of K hypotheses, all computed anew."""
    begin, written = np.count_nonzero(prompt), np.array(hypotheses, np.int32)
    sequences = np.zeros((len(written), len(prompt) + LONGEST), np.int32)
    sequences[:, :begin] = prompt[:begin]
    end = begin + written.shape[1]
    sequences[:, begin:end] = written
    places = np.broadcast_to(np.arange(sequences.shape[1]), sequences.shape)
    segments, types = (places < end).astype(np.int32), ((begin <= places) & (places < end)).astype(np.int32)
    return np.asarray(whole(sequences, segments, types, config))[:, end - 1]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_greedy_tokens_are_the_whole_sequences_most_probable_ones(config):
    found, scores = map(np.asarray, ids(config=config))
    for prompt, row, score in zip(PROMPTS, found, scores, strict=True):
        expected = 0.0
        for length, token in enumerate(row):
            (of_next,) = log_p(prompt, [row[:length].tolist()], config).copy()
            of_next[0] = -np.inf  # padding is never written
            assert token == of_next.argmax()
            expected += of_next[token]
        assert score == pytest.approx(expected, rel=1e-4)
    assert len(np.unique(found)) > 5


@pytest.mark.parametrize("search", [Search(beams=3), Search(beams=3, length_penalty=None)], ids=["pool", "bert4keras"])
def test_beams_are_those_of_whole_sequences(search):
    for end in np.unique(ids(search=search)[0])[::-1].tolist():  # one that ends some rows and not others
        found, scores = map(np.asarray, ids(search=search, end=end))
        if len({np.count_nonzero(row) for row in found}) > 1:
            break
    for prompt, row, score in zip(PROMPTS, found, scores, strict=True):
        tokens, expected = plain_beams(partial(log_p, prompt, config=ROFORMER), search, end, LONGEST)
        assert row.tolist() == tokens + [0] * (LONGEST - len(tokens))
        assert score == pytest.approx(expected, rel=1e-4)
    assert len({np.count_nonzero(row) for row in found}) > 1


def test_padding_other_rows_and_a_mesh_change_nothing():
    prompts, seeds = np.tile(PROMPTS, (3, 1))[:8], np.zeros(8, np.uint32)
    prompts[5] = 0  # padding gives padding
    search = Search(beams=3)
    alone, wider = (ids(np.pad(prompts, ((0, 0), (0, n))), search=search, seeds=seeds)[0] for n in (0, 4))
    np.testing.assert_array_equal(alone, wider)
    np.testing.assert_array_equal(np.asarray(alone)[:3], ids(search=search)[0])
    assert not np.asarray(alone)[5].any()
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2, tensor=1), jax.devices()[:8])):
        cut = (jax.device_put(x, spec("batch")) for x in (prompts, seeds))
        sharded, _ = ids(next(cut), seeds=next(cut), search=search, model=jax.device_put(MODEL, jax.P()))
    np.testing.assert_array_equal(sharded, alone)


def test_many_draws_of_a_prompt_are_those_of_so_many_prompts_and_end_apart():
    """Several hundred, of which ever fewer go on, none of which changes for it."""
    answers, search = 300, Search(temperature=0.7, top_p=0.9)
    seeds, prompts = np.arange(len(PROMPTS) * answers, dtype=np.uint32), PROMPTS.copy()
    prompts[1], prompts[2] = 0, prompts[0]  # of nothing, nothing
    free = np.asarray(ids(prompts, search=replace(search, answers=answers), seeds=seeds)[0])[:answers]
    end = max(range(1, ROFORMER.vocabulary), key=lambda i: np.mean(np.any(free == i, 1)))  # of most of them
    found, scores = map(np.asarray, ids(prompts, search=replace(search, answers=answers), seeds=seeds, end=end))
    alone, their_scores = ids(np.repeat(prompts, answers, 0), search=search, seeds=seeds, end=end)
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_allclose(scores, their_scores, rtol=1e-4, atol=1e-5)
    lengths = np.count_nonzero(found.reshape(len(PROMPTS), answers, -1), 2)
    assert not lengths[1].any() and np.mean(lengths[0] < LONGEST) > 0.5 and (lengths[0] == LONGEST).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "buckets"},
        {"extension": Extension(method="rerope")},
        {"positions": "learned", "extension": Extension(method="hierarchical")},
    ],
)
def test_positions_that_need_the_whole_row_are_refused(changes):
    with pytest.raises(ValueError, match="writing step by step needs positions of each token alone"):
        PrefixDecoder(replace(ROFORMER, **changes))


def test_texts_longer_than_a_table_of_positions_are_refused():
    with pytest.raises(ValueError, match="prompts of 12 ids and 9 written after them: .* ends at 20"):
        ids(np.pad(PROMPTS, ((0, 0), (0, 1))), config=CONFIGS["bert"])
