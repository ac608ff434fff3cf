"""A source's states are of the source alone, whatever is written after it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from rope.encoder import prefix_lm
from tests.rope.encoder.random_encoder import ROFORMER, random_encoder

STILL = replace(ROFORMER, types=2, dropout=0.0, attention_dropout=0.0)


def test_the_first_token_depends_on_its_own_text_alone() -> None:
    """To the bit, whatever is written after it; and no gradient of it comes from there."""
    model = random_encoder(STILL)
    random = np.random.default_rng(0)
    ids = random.integers(5, 15, (3, 14)).astype(np.int32)
    types = np.repeat([[0] * 5 + [1] * 9], 3, 0).astype(np.int32)
    segments = np.ones_like(ids)
    run = jax.jit(lambda ids: prefix_lm.states(model, ids, segments, types, STILL))
    other = np.where(types, random.integers(5, 15, ids.shape), ids).astype(np.int32)
    assert (other != ids).any()
    found, changed = np.asarray(run(ids)), np.asarray(run(other))
    np.testing.assert_array_equal(found[:, :5], changed[:, :5])
    assert np.abs(found[:, 5:] - changed[:, 5:]).max() > 0.1

    def first(noise: jax.Array) -> jax.Array:
        table = jnp.asarray(model.embeddings.word)[ids] + noise
        shaped = replace(model, embeddings=model.embeddings.replace(word=table.reshape(-1, table.shape[-1])))
        rows = jnp.arange(ids.size).reshape(ids.shape)
        config = replace(STILL, vocabulary=ids.size)
        return prefix_lm.states(shaped, rows, segments, types, config)[:, 0].sum()

    noise = jnp.zeros((*ids.shape, model.embeddings.word.shape[1]))
    grads = np.abs(np.asarray(jax.jit(jax.grad(first))(noise))).max(-1)
    assert (grads[:, :5] > 1e-4).all() and not grads[:, 5:].any()
