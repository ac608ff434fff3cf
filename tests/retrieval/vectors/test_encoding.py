"""Vectors do not depend on what is encoded beside a text, on the mesh, or on where a run was killed."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.text_encoder import TextEncoder, rows_of_texts
from retrieval.vectors.encoding import Encoding, encoder, pack, texts_of
from retrieval.vectors.pooling import POOLINGS
from rope.encoder.roformer import RoFormer, RoFormerConfig, encode_layers, pool
from tests.rope.encoder.random_encoder import BERT, ROFORMER, random_encoder
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh

CHARACTERS = "今天气很好我们去公园散步吧，你呢？"
VOCABULARY = [*SPECIALS, *dict.fromkeys(CHARACTERS)]
TOKENIZER = PegasusTokenizer(VOCABULARY)
TEXTS = [(CHARACTERS * 3)[i : i + n] for i, n in enumerate([5, 1, 12, 30, 7, 2, 9, 3, 17, 4, 6, 24, 5])]


def source(config=ROFORMER) -> TextEncoder:
    config = replace(config, vocabulary=len(VOCABULARY))
    return TextEncoder(random_encoder(config), config, TOKENIZER)


@partial(jax.jit, static_argnames=("config", "layers"))
def states(model: RoFormer, ids: np.ndarray, segments: np.ndarray, config: RoFormerConfig, layers: tuple[int, ...]):
    return encode_layers(model, ids, segments, config, outputs=layers)


def by_hand(given: TextEncoder, text: str, length: int) -> np.ndarray:
    """[K, D], of a text alone in a row."""
    layers = (-1, 0, max(given.config.layers - 2, 0))
    found = states(given.model, *rows_of_texts(TOKENIZER, [text], length), given.config, layers)
    last, first, before = (np.asarray(x)[0] for x in found)
    pooled = pool(given.model, last[None], replace(given.config, pooler="linear"))[0]
    mean = last.mean(0)
    two = [(mean + other.mean(0)) / 2 for other in (first, before)]
    return np.stack([last[0], pooled, mean, *two, np.tanh(pooled)])


@pytest.mark.parametrize("config", [ROFORMER, BERT], ids=["roformer", "bert"])
@pytest.mark.parametrize("mesh", [None, MeshConfig(data=4, fsdp=2)], ids=["one", "eight"])
def test_every_pooling_is_that_of_the_text_alone(config, mesh: MeshConfig | None) -> None:
    given, encoding = source(config), Encoding(max_length=20, tokens=7)
    with jax.set_mesh(make_mesh(mesh) if mesh else make_mesh(MeshConfig(), jax.devices()[:1])):
        found = list(encoder(given, POOLINGS, encoding)(TEXTS))
    assert [len(part) for part in found] == [7, 6]  # windows
    wanted = np.stack([by_hand(given, text, 20) for text in TEXTS])
    np.testing.assert_allclose(np.concatenate([part for part in found]), wanted, atol=2e-5)


def test_no_mesh_is_one_device() -> None:
    encode = encoder(source(), ["mean"], Encoding(max_length=20))
    found = np.concatenate([part[:, 0] for part in encode(TEXTS)])
    np.testing.assert_allclose(found[0], by_hand(source(), TEXTS[0], 20)[2], atol=2e-5)


def test_texts_beyond_the_table_of_positions_are_refused() -> None:
    with pytest.raises(DataError, match="--max-length 4000: the model has"):
        encoder(source(BERT), ["mean"], Encoding(max_length=4000))


@given(st.lists(st.integers(3, 32), max_size=60))
def test_packing_puts_each_text_into_one_row_that_holds_it(lengths: list[int]) -> None:
    rows = pack(lengths, 32)
    assert sorted(text for row in rows for text in row) == list(range(len(lengths)))
    assert all(sum(lengths[text] for text in row) <= 32 and len(row) <= texts_of(32) for row in rows)
    # Best fit: no two rows could be one, unless one of them has as many texts as it may.
    free = [32 - sum(lengths[text] for text in row) for row in rows if len(row) < texts_of(32)]
    assert sum(x >= 16 for x in free) <= 1
