"""Decoding: the cache changes nothing; ends and padding; beams as written down plainly; draws; meshes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.mt5 import decode, encode, logits
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from tests.pegasus_zh.t5.random_model import START, TINY, on_mesh, random_model, random_pairs, rows, token_of_some_rows
from tests.rope.decoding.reference import plain_beams
from training.mesh import MeshConfig, make_mesh
from training.partition import spec

MODEL = random_model(TINY, seed=4)
MODEL = MODEL.replace(head=MODEL.head.at[:, 0].multiply(3))  # padding would often be most probable
BERT4KERAS = replace(TINY, gelu="erf", scaled_output=True, cross_bias=True)
SHALLOW = replace(TINY, layers=3, decoder_layers=1)
SHALLOW_MODEL = random_model(SHALLOW, seed=3)
SOURCE = rows([[pair] for pair in random_pairs(8, TINY, seed=4)], 20, 10)["source"]
LONGEST = 12
SEEDS = np.arange(8, dtype=np.uint32)
GREEDY, BEAMS, BERT4KERAS_BEAMS = Search(), Search(beams=3), Search(beams=3, length_penalty=None)
DRAWN = Search(temperature=0.8, top_k=20, top_p=0.9)
CONTROLS = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2, "min_length": 6}


def ids(
    source=SOURCE, *, end: int = -1, search: Search = GREEDY, config=TINY, seeds=SEEDS, model=MODEL, **words
) -> np.ndarray:
    marks = Marks(start=START, end=end, **words)
    return np.asarray(
        write(model, source, seeds, decoder=MT5Decoder(config), search=search, marks=marks, length=LONGEST)[0]
    )


@pytest.fixture(scope="module")
def endless():
    """What is written if no token ends it."""
    return ids()


@pytest.fixture(scope="module")
def end(endless):
    return token_of_some_rows(endless)


@partial(jax.jit, static_argnames="config")
def uncached(source, inputs, config, model=MODEL):
    segments = (source > 0).astype(int)
    hidden = decode(model, inputs, jnp.ones_like(inputs), encode(model, source, segments, config), segments, config)
    return jax.nn.log_softmax(logits(model, hidden, config))


@pytest.mark.parametrize(
    ("config", "model"),
    [(TINY, MODEL), (BERT4KERAS, MODEL), (SHALLOW, SHALLOW_MODEL)],
    ids=["mt5", "bert4keras", "unequal depths"],
)
def test_each_token_is_the_uncached_models_most_probable_one(config, model):
    # One call with all that was written tells the choice of every step, since a position sees only what is left of it.
    endless = ids(config=config, model=model)
    inputs = np.concatenate([np.full((len(SOURCE), 1), START), endless[:, :-1]], axis=1)
    found = np.array(uncached(SOURCE, inputs, config, model))
    assert model is not MODEL or (found.argmax(-1) == 0).any()
    found[..., 0] = -np.inf  # padding is never written
    np.testing.assert_array_equal(endless, found.argmax(-1))
    assert len(np.unique(endless)) > 10


def log_p(source: np.ndarray, hypotheses: list[list[int]], config) -> np.ndarray:
    """Of the next token [K, V] after each of K hypotheses, without a cache."""
    inputs = np.zeros((len(hypotheses), LONGEST), np.int32)
    length = len(hypotheses[0]) + 1
    inputs[:, :length] = [[START, *tokens] for tokens in hypotheses]
    return np.asarray(uncached(np.tile(source, (len(inputs), 1)), inputs, config))[:, length - 1]


@pytest.mark.parametrize("config", [TINY, BERT4KERAS], ids=["mt5", "bert4keras"])
@pytest.mark.parametrize("search", [BEAMS, Search(beams=4, length_penalty=0.0), BERT4KERAS_BEAMS], ids=str)
def test_beams_are_those_written_down_plainly(search, config):
    for end in np.unique(ids(search=search, config=config))[::-1].tolist():
        marks = Marks(start=START, end=end)
        found, scores = write(
            MODEL, SOURCE, SEEDS, decoder=MT5Decoder(config), search=search, marks=marks, length=LONGEST
        )
        if len(set((np.asarray(found) != 0).sum(1))) > 2:
            break
    lengths = set()
    for source, row, score in zip(SOURCE, np.asarray(found), np.asarray(scores), strict=True):
        tokens, expected = plain_beams(partial(log_p, source, config=config), search, end, LONGEST)
        assert row.tolist() == tokens + [0] * (LONGEST - len(tokens))
        assert score == pytest.approx(expected, rel=1e-4)
        lengths.add(len(tokens))
    assert len(lengths) > 2


def test_more_beams_find_what_is_more_probable(endless):
    marks = Marks(start=START, end=-1)
    run = partial(write, MODEL, SOURCE, SEEDS, decoder=MT5Decoder(TINY), marks=marks, length=LONGEST)
    greedy, beams = (np.asarray(run(search=Search(beams=k, length_penalty=0.0))[1]) for k in (1, 8))
    assert beams.mean() > greedy.mean()


def test_rows_end_with_the_end_token_and_padding_after_it(endless, end):
    found = ids(end=end)
    lengths = set()
    for row, unended in zip(found, endless, strict=True):
        ends = np.flatnonzero(unended == end)
        length = ends[0] + 1 if len(ends) else LONGEST
        np.testing.assert_array_equal(row, np.where(np.arange(LONGEST) < length, unended, 0))
        lengths.add(int(length))
    assert len(lengths) > 1 and LONGEST in lengths


@pytest.mark.parametrize("search", [GREEDY, BEAMS, BERT4KERAS_BEAMS, DRAWN], ids=str)
def test_padding_and_the_other_rows_do_not_count(search, end):
    alone, wider = ids(search=search, end=end), np.pad(SOURCE, ((0, 0), (0, 5)))[::-1]
    np.testing.assert_array_equal(ids(wider, search=search, end=end, seeds=SEEDS[::-1])[::-1], alone)
    source = SOURCE.copy()
    source[2] = 0  # padding gives padding
    found = ids(source, search=search, end=end)
    assert not found[2].any()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(alone, 2, 0))


@pytest.mark.parametrize("search", [GREEDY, BEAMS, BERT4KERAS_BEAMS, DRAWN], ids=str)
def test_a_mesh_writes_the_same(search, end):
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])):
        source, seeds = (jax.device_put(x, spec("batch")) for x in (SOURCE, SEEDS))
        found = ids(source, search=search, end=end, seeds=seeds, model=on_mesh(MODEL, TINY))
    np.testing.assert_array_equal(found, ids(search=search, end=end))


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.5), (6, 0.6)])
def test_tokens_are_drawn_from_what_is_left_of_the_distribution(top_k, top_p):
    """The first token of 4,000 draws for one source against the probabilities written down plainly."""
    log_p = np.array(uncached(SOURCE[:1], np.full((1, LONGEST), START), TINY))[0, 0].astype(np.float64)
    log_p[0] = -np.inf
    p = np.exp(log_p / 0.7)
    order = np.argsort(-p)
    if top_k:
        p[order[top_k:]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= top_p]] = 0
    p /= p.sum()
    search = Search(temperature=0.7, top_k=top_k, top_p=top_p)
    source, seeds = np.tile(SOURCE[:1], (4000, 1)), np.arange(4000, dtype=np.uint32)
    found, _ = write(
        MODEL, source, seeds, decoder=MT5Decoder(TINY), search=search, marks=Marks(start=START, end=-1), length=1
    )
    counts = np.bincount(np.asarray(found)[:, 0], minlength=len(p))
    assert not counts[p == 0].any()
    # Total variation of a multinomial sample is below this with probability 1 - 1e-6 or so.
    assert np.abs(counts / 4000 - p).sum() / 2 < 0.5 * np.sqrt((p > 0).sum() / 4000) + 0.04


@pytest.mark.parametrize("search", [GREEDY, BEAMS, BERT4KERAS_BEAMS, DRAWN], ids=str)
def test_what_is_asked_of_a_text_holds(search, end):
    free = ids(search=search, end=end)
    begin, never = (7, 9), (tuple(free[0, :2].tolist()), (int(free[1, 0]),))
    found = ids(search=replace(search, **CONTROLS), end=end, first=begin, never=never)
    lengths = set()
    for row in found.tolist():
        text = row[: row.index(end) + 1] if end in row else row
        pairs = list(zip([START, *text], text, strict=False))
        assert len({*pairs}) == len(pairs) and len(text) >= CONTROLS["min_length"] and tuple(text[:2]) == begin
        assert never[1][0] not in text and never[0] not in pairs and 0 not in text
        assert not any(row[len(text) :])
        lengths.add(len(text))
    assert len(lengths) > 1


def test_answers_are_the_best_of_the_beams(end):
    marks, run = Marks(start=START, end=end), partial(write, MODEL, SOURCE, SEEDS, decoder=MT5Decoder(TINY))
    found, scores = map(np.asarray, run(search=replace(BEAMS, answers=3), marks=marks, length=LONGEST))
    np.testing.assert_array_equal(found[::3], ids(search=BEAMS, end=end))
    assert len(np.unique(found, axis=0)) == 3 * len(SOURCE)
    scores = scores.reshape(-1, 3)
    assert (np.diff(scores) < 0).all() and scores.max() < 0


def test_drawn_answers_are_those_of_so_many_rows(end):
    seeds, search = np.arange(24, dtype=np.uint32), replace(DRAWN, no_repeat_ngram_size=2)
    source = SOURCE.copy()
    source[2] = 0
    found = ids(source, search=replace(search, answers=3), seeds=seeds, end=end)
    np.testing.assert_array_equal(found, ids(np.repeat(source, 3, 0), search=search, seeds=seeds, end=end))
    assert not found[6:9].any() and len(np.unique(found, axis=0)) > 16


@pytest.mark.parametrize("search", [replace(BEAMS, answers=2), replace(DRAWN, answers=2), GREEDY], ids=str)
def test_a_mesh_heeds_the_same(search, end):
    search, seeds = replace(search, **CONTROLS), np.arange(8 * search.answers, dtype=np.uint32)
    words = {"never": ((7,), (8, 9)), "first": (6,), "search": search, "end": end}
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])):
        source, placed = (jax.device_put(x, spec("batch")) for x in (SOURCE, seeds))
        found = ids(source, seeds=placed, model=on_mesh(MODEL, TINY), **words)
    np.testing.assert_array_equal(found, ids(seeds=seeds, **words))


@pytest.mark.parametrize(
    ("search", "words", "message"),
    [
        (Search(beams=TINY.vocabulary), {}, f"a vocabulary of {TINY.vocabulary} needs fewer"),
        (GREEDY, {"never": ((3, TINY.vocabulary),)}, f"id {TINY.vocabulary} is to be written first, or never"),
        (GREEDY, {"first": (-2,)}, "id -2 is to be written first, or never"),
        (Search(min_length=LONGEST + 2), {}, f"min_length is {LONGEST + 2}: at most {LONGEST} ids are written"),
        (GREEDY, {"first": (3,) * (LONGEST + 1)}, f"a beginning of {LONGEST + 1} ids"),
    ],
)
def test_what_vocabulary_or_length_do_not_serve_is_refused(search, words, message):
    with pytest.raises(ValueError, match=message):
        ids(search=search, **words)
