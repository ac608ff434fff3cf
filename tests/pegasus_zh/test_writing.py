"""Texts in, texts out, with any decoder: order, buckets, meshes."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.writing import Writing, answers, bucket, generate, marks_of, write_texts
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from rope.encoder.prefix_decoder import PrefixDecoder
from tests.pegasus_zh.t5.random_model import TINY, on_mesh, random_model
from tests.rope.encoder.random_encoder import ROFORMER, random_encoder
from training.mesh import MeshConfig, make_mesh

CHARACTERS = [chr(c) for c in range(0x4E00, 0x4E00 + 55)]
TOKENIZER = PegasusTokenizer(SPECIALS + CHARACTERS)
CONFIG = replace(TINY, vocabulary=176)
DECODER = MT5Decoder(CONFIG)
MODEL = random_model(CONFIG, seed=1)
MODEL = MODEL.replace(head=MODEL.head.at[:, : TOKENIZER.eos_id].multiply(0.1))  # few special tokens
TEXTS = ["".join(CHARACTERS[(7 * i) % 40 : (7 * i) % 40 + 2 + i % 13]) for i in range(11)]
WRITING = Writing(max_source=12, max_target=10, batch_size=4)


@pytest.fixture(scope="module")
def framed():
    return [TOKENIZER.frame_source(TOKENIZER.encode(text), 12) for text in TEXTS]


@pytest.fixture(scope="module")
def written(framed):
    return list(generate(MODEL, DECODER, TOKENIZER, framed, WRITING))


def test_text_to_text(framed, written):
    ids, _ = write(
        MODEL,
        np.array([source + [0] * (12 - len(source)) for source in framed]),
        np.zeros(len(framed), np.uint32),
        decoder=DECODER,
        search=Search(),
        marks=Marks(start=TOKENIZER.start_id, end=TOKENIZER.eos_id),
        length=10,
    )
    assert written == [TOKENIZER.decode(row.tolist()) for row in np.asarray(ids)]
    assert len(set(written) - {""}) > 2


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_and_windows_change_nothing(monkeypatch, framed, batch_size):
    search = Search(temperature=0.9)
    drawn = list(generate(MODEL, DECODER, TOKENIZER, framed, replace(WRITING, search=search)))
    monkeypatch.setattr("pegasus_zh.writing.WINDOW", 2)
    writing = replace(WRITING, search=search, batch_size=batch_size)
    assert list(generate(MODEL, DECODER, TOKENIZER, iter(framed), writing)) == drawn
    rest = generate(MODEL, DECODER, TOKENIZER, framed[5:], writing, first=5)
    assert list(rest) == drawn[5:]
    assert list(generate(MODEL, DECODER, TOKENIZER, framed, replace(writing, seed=1))) != drawn


def test_batches_that_the_mesh_cannot_cut(framed, written):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:8])):
        model, writing = on_mesh(MODEL, CONFIG), replace(WRITING, batch_size=3)
        assert list(generate(model, DECODER, TOKENIZER, framed, writing)) == written


def test_lengths_of_several_buckets_change_nothing():
    random = np.random.default_rng(0)
    texts = [random.choice(CHARACTERS, n).tolist() for n in (70, 3, 40, 20, 31, 66, 5)]
    sources = [TOKENIZER.frame_source(TOKENIZER.encode("".join(text)), 80) for text in texts]
    writing = replace(WRITING, max_source=80, batch_size=2)
    assert len({bucket(len(source), 80) for source in sources}) == 3
    alone = [next(generate(MODEL, DECODER, TOKENIZER, [x], replace(writing, batch_size=1))) for x in sources]
    assert list(generate(MODEL, DECODER, TOKENIZER, sources, writing)) == alone and len(set(alone)) > 3


def test_a_longer_source_is_cut(framed, written):
    longer = [source + [110] * 5 if len(source) == 12 else source for source in framed]
    assert longer != framed
    assert list(generate(MODEL, DECODER, TOKENIZER, longer, WRITING)) == written


def test_what_is_forbidden_first_and_suppressed(framed, written):
    """As texts, not ids: pairs of characters that were written are forbidden, and all texts begin alike."""
    words = {text[i : i + 2] for text in written for i in range(0, len(text) - 1, 3)} - {""}
    begin = "".join([c for c in CHARACTERS if c not in written[0]][:2])
    writing = replace(WRITING, forbid=tuple(sorted(words)), begin=begin)
    # What is dropped in decoding would join what it stood between.
    nothing = [i for i, piece in enumerate(TOKENIZER.pieces()) if not piece and i != TOKENIZER.eos_id]
    suppressed = (*TOKENIZER.encode(written[0][:1]), *nothing, *range(TOKENIZER.vocab_size, CONFIG.vocabulary))
    marks = marks_of(TOKENIZER, writing, suppressed)
    found = list(generate(MODEL, DECODER, TOKENIZER, framed, writing, marks=marks))
    assert all(text.startswith(writing.begin) and not any(word in text for word in words) for text in found)
    assert not any(written[0][0] in text for text in found) and any(len(text) > 3 for text in found)
    with pytest.raises(ValueError, match=r"forbid is \('啊', ' '\): give words, none of them empty"):
        replace(WRITING, forbid=("啊", " "))
    with pytest.raises(ValueError, match="'啊' is one text: give a list"):
        replace(WRITING, forbid="啊")


@pytest.mark.parametrize("search", [Search(beams=3, answers=2), Search(temperature=0.9, answers=2)], ids=str)
def test_several_answers_a_text(framed, search):
    found = list(answers(MODEL, DECODER, TOKENIZER, framed, replace(WRITING, search=search)))
    assert [len(each) for each in found] == [2] * len(framed) and any(a != b for a, b in found)
    best = list(generate(MODEL, DECODER, TOKENIZER, framed, replace(WRITING, search=replace(search, answers=1))))
    assert [first for first, _ in found] == best
    few = replace(WRITING, batch_size=3, search=search)
    assert list(answers(MODEL, DECODER, TOKENIZER, framed, few)) == found


def test_a_least_length_beyond_the_greatest_is_refused_at_once():
    assert Writing(max_target=10, search=Search(min_length=11)).max_target == 10
    with pytest.raises(ValueError, match="min_length is 12: at most 11 can be there, .* give a larger --max-target"):
        Writing(max_target=10, search=Search(min_length=12))


def test_no_source_no_text():
    assert list(generate(MODEL, DECODER, TOKENIZER, [], WRITING)) == []


def test_buckets_are_few_and_hold_what_is_in_them():
    lengths = range(1, 1025)
    buckets = [bucket(n, 1024) for n in lengths]
    assert all(n <= b for n, b in zip(lengths, buckets, strict=True)) and buckets == sorted(buckets)
    assert len(set(buckets)) == 4 + 6 + 4 and bucket(200, 210) == 210
    assert all(b / n < 1.5 for n, b in zip(lengths, buckets, strict=True) if n > 64)


SEARCHES = {"greedy": Search(), "beams": Search(beams=3), "drawn": Search(temperature=0.9)}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_prefix_decoder_writes_texts_too(search):
    """RoFormer, which goes on from the end of its prompt: one by one, in batches, in several buckets."""
    config = replace(ROFORMER, vocabulary=176)
    model, decoder = random_encoder(config, seed=3), PrefixDecoder(config)
    bias = np.where(np.arange(176) < len(SPECIALS), -4, 0).astype(np.float32)  # few special tokens
    model = model.replace(head=model.head.replace(bias=model.head.bias + bias))
    texts = ["".join(CHARACTERS[i % 40 : i % 40 + 9] * (1 + 5 * (i % 2))) for i in (3, 10, 17, 24, 31)]
    writing = replace(WRITING, max_source=64, batch_size=2, search=search)
    written = [text for (text,) in write_texts(model, decoder, TOKENIZER, writing, texts)]
    alone = [next(write_texts(model, decoder, TOKENIZER, writing, [x], i))[0] for i, x in enumerate(texts)]
    assert written == alone and len(set(written) - {""}) > 2
    for text, found in zip(texts, written, strict=True) if search == Search() else ():
        ids = np.array([TOKENIZER.frame_source(TOKENIZER.encode(text), 64)])
        marks = Marks(start=TOKENIZER.start_id, end=TOKENIZER.eos_id)
        rows, _ = write(model, ids, np.zeros(1, np.uint32), decoder=decoder, search=search, marks=marks, length=10)
        assert found == TOKENIZER.decode(np.asarray(rows)[0].tolist())
