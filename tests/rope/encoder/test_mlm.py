"""Masking by its shares, the loss on what is masked alone, the same on every mesh."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rope.encoder.mlm import Vocabulary, loss, mask_tokens
from rope.encoder.roformer import PRESETS, encode, init, logits

VOCABULARY = Vocabulary(64, 3, 10)
CONFIG = replace(PRESETS["tiny"], vocabulary=64, width=32, feed_forward=64, layers=1, max_positions=24)


def rows(seed=0, count=4, length=24):
    """Rows of two examples and padding, special tokens among them."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, VOCABULARY.size, (count, length)).astype(np.int32)
    segments = np.where(np.arange(length) < length // 2, 1, np.where(np.arange(length) < length - 3, 2, 0))
    return {"ids": ids, "segments": np.broadcast_to(segments, ids.shape).astype(np.int32)}


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 7, 30]))
def test_what_is_masked(seed, length):
    batch = rows(seed, 3, length)
    may = (batch["segments"] > 0) & (batch["ids"] >= VOCABULARY.specials)
    masked = mask_tokens(batch["ids"], batch["segments"], VOCABULARY, jax.random.key(seed))
    inputs, places, labels, weights = map(np.asarray, masked)
    for row in range(3):
        chosen = places[row][weights[row] > 0]
        assert len(chosen) == (3 * may[row].sum() + 19) // 20  # 15 %, rounded up
        assert len({*chosen}) == len(chosen) and may[row, chosen].all()
        np.testing.assert_array_equal(labels[row][weights[row] > 0], batch["ids"][row, chosen])
        others = np.setdiff1d(np.arange(length), chosen)
        np.testing.assert_array_equal(inputs[row, others], batch["ids"][row, others])
        assert ((inputs[row, chosen] == VOCABULARY.mask) | (inputs[row, chosen] >= VOCABULARY.specials)).all()


def test_shares():
    ids = jnp.full((400, 100), 20)
    masked = mask_tokens(ids, jnp.ones_like(ids), VOCABULARY, jax.random.key(1))
    inside = np.take_along_axis(np.asarray(masked.inputs), np.asarray(masked.places), 1)
    assert masked.places.shape == (400, 15) and masked.weights.all()
    for value, share in ((VOCABULARY.mask, 0.8), (20, 0.1 + 0.1 / 54)):
        assert abs((inside == value).mean() - share) < 5 * (share * (1 - share) / inside.size) ** 0.5
    drawn = inside[(inside != VOCABULARY.mask) & (inside != 20)]
    assert drawn.min() == VOCABULARY.specials and drawn.max() == VOCABULARY.size - 1
    spread = np.bincount(np.asarray(masked.places).ravel(), minlength=100) / 400
    assert abs(spread - 0.15).max() < 5 * (0.15 * 0.85 / 400) ** 0.5


@pytest.mark.parametrize("positions", ["rotary", "buckets"])
def test_loss_is_that_of_the_masked_tokens(positions):
    config = replace(CONFIG, positions=positions)
    model, batch = init(config, jax.random.key(0)), rows()
    found = jax.jit(partial(loss, config=config, vocabulary=VOCABULARY))(model, batch, None)
    masked = mask_tokens(batch["ids"], batch["segments"], VOCABULARY, jax.random.key(0))
    scores_of = jax.jit(lambda model: logits(model, encode(model, masked.inputs, batch["segments"], config), config))
    log_p = np.asarray(jax.nn.log_softmax(scores_of(model)))
    entropy = right = 0.0
    for row, column in np.ndindex(masked.places.shape):
        if masked.weights[row, column]:
            scores = log_p[row, masked.places[row, column]]
            entropy -= scores[masked.labels[row, column]]
            right += scores.argmax() == masked.labels[row, column]
    np.testing.assert_allclose(found["loss"], [entropy, masked.weights.sum()], rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"][0], right)


def test_every_mesh_has_the_same_loss_and_gradient():
    config = replace(CONFIG, dropout=0.1, attention_dropout=0.1)
    model, batch = init(config, jax.random.key(0)), rows(count=8)

    def value(model, batch):
        return loss(model, batch, jax.random.key(5, impl="rbg"), config=config, vocabulary=VOCABULARY)["loss"][0]

    alone = jax.jit(jax.value_and_grad(value))(model, batch)
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        cut = jax.jit(partial(init, config))(jax.random.key(0))
        assert str(jax.typeof(cut.blocks.inner.kernel).sharding.spec) == "P(None, 'fsdp', 'tensor')"
        placed = jax.device_put(batch, jax.P(("data", "fsdp")))
        meshed = jax.jit(jax.value_and_grad(value))(cut, placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), alone, meshed)
