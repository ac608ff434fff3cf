"""Greedy decoding: the cache changes nothing, ends and padding, meshes, text to text."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pegasus_zh.decoding import generate, greedy
from pegasus_zh.mt5 import decode, encode, logits
from pegasus_zh.tokenizers import PegasusTokenizer
from pegasus_zh.vocabulary import SPECIALS
from tests.pegasus_zh.random_model import START, TINY, on_mesh, random_model, random_pairs, rows, token_of_some_rows
from training.mesh import MeshConfig, make_mesh
from training.partition import RULES

MODEL = random_model(TINY, seed=3)
MODEL = MODEL.replace(head=MODEL.head.at[:, 0].multiply(3))  # padding would often be most probable
SOURCE = rows([[pair] for pair in random_pairs(8, TINY, seed=4)], 20, 10)["source"]
LONGEST = 12
write = partial(greedy, MODEL, config=TINY, start_id=START, pad_id=0, max_length=LONGEST)


@pytest.fixture(scope="module")
def endless():
    """What is written if no token ends it."""
    return np.asarray(write(SOURCE, eos_id=-1))


@pytest.fixture(scope="module")
def eos(endless):
    return token_of_some_rows(endless)


def test_each_token_is_the_uncached_models_most_probable_one(endless):
    @jax.jit
    def scores(inputs):
        segments = (SOURCE > 0).astype(int)
        hidden = decode(MODEL, inputs, jnp.ones_like(inputs), encode(MODEL, SOURCE, segments, TINY), segments, TINY)
        return logits(MODEL, hidden, TINY)

    # One call with all that was written tells the choice of every step, since a position sees only what is left of it.
    inputs = np.concatenate([np.full((len(SOURCE), 1), START), endless[:, :-1]], axis=1)
    found = np.array(scores(inputs))
    assert (found.argmax(-1) == 0).any()
    found[..., 0] = -np.inf  # padding is never written
    np.testing.assert_array_equal(endless, found.argmax(-1))
    assert len(np.unique(endless)) > 10


def test_rows_end_with_the_end_token_and_padding_after_it(endless, eos):
    found = np.asarray(write(SOURCE, eos_id=eos))
    lengths = set()
    for row, unended in zip(found, endless, strict=True):
        ends = np.flatnonzero(unended == eos)
        length = ends[0] + 1 if len(ends) else LONGEST
        np.testing.assert_array_equal(row, np.where(np.arange(LONGEST) < length, unended, 0))
        lengths.add(int(length))
    assert len(lengths) > 1 and LONGEST in lengths


def test_padding_and_the_other_rows_do_not_count(endless):
    wider = np.pad(SOURCE, ((0, 0), (0, 5)))[::-1]
    np.testing.assert_array_equal(write(wider, eos_id=-1)[::-1], endless)


def test_padding_gives_padding(endless):
    source = SOURCE.copy()
    source[2] = 0
    found = np.asarray(write(source, eos_id=-1))
    assert not found[2].any()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(endless, 2, 0))


def test_a_mesh_writes_the_same(endless):
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])):
        source = jax.device_put(SOURCE, jax.P(RULES["batch"]))
        found = greedy(on_mesh(MODEL, TINY), source, eos_id=-1, **write.keywords)
        np.testing.assert_array_equal(found, endless)


CHARACTERS = [chr(c) for c in range(0x4E00, 0x4E00 + 55)]
TOKENIZER = PegasusTokenizer(SPECIALS + CHARACTERS)
CONFIG = replace(TINY, vocabulary=160)
TEXT_MODEL = random_model(CONFIG, seed=1)
TEXT_MODEL = TEXT_MODEL.replace(head=TEXT_MODEL.head.at[:, : TOKENIZER.eos_id].multiply(0.1))  # few special tokens
TEXTS = ["".join(CHARACTERS[7 * i : 7 * i + 6 + i]) for i in range(5)]
to_text = partial(generate, config=CONFIG, tokenizer=TOKENIZER, max_source=12, max_target=10)


@pytest.fixture(scope="module")
def framed():
    return [TOKENIZER.frame_source(TOKENIZER.encode(text), 12) for text in TEXTS]


@pytest.fixture(scope="module")
def written(framed):
    return to_text(TEXT_MODEL, sources=framed, batch_size=5)


def test_text_to_text(framed, written):
    ids = greedy(
        TEXT_MODEL,
        np.array([source + [0] * (12 - len(source)) for source in framed]),
        config=CONFIG,
        start_id=TOKENIZER.start_id,
        eos_id=TOKENIZER.eos_id,
        pad_id=TOKENIZER.pad_id,
        max_length=9,  # and the start token
    )
    assert written == [TOKENIZER.decode(row.tolist()) for row in np.asarray(ids)]
    assert len(set(written) - {""}) > 2


def test_text_to_text_in_batches_that_the_mesh_cannot_cut(framed, written):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:8])):
        assert to_text(on_mesh(TEXT_MODEL, CONFIG), sources=framed, batch_size=3) == written


def test_a_longer_source_is_cut(framed, written):
    longer = [source + [110] * 5 if len(source) == 12 else source for source in framed]
    assert longer != framed
    assert to_text(TEXT_MODEL, sources=longer, batch_size=5) == written


def test_no_source_no_text():
    assert to_text(TEXT_MODEL, sources=[]) == []
