"""Each text's first hidden state is that of all that are computed, whichever model, packed, and on any mesh."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.encoder.firsts import encode_firsts
from rope.encoder.roformer import RoFormer, RoFormerConfig, encode, init
from rope.layers.primitives import Remat
from rope.positions.extension import Extension
from tests.rope.encoder.random_encoder import BERT, ROFORMER, random_encoder
from training.mesh import MeshConfig, make_mesh
from training.partition import abstract, place

CUTS = [[5, 7, 3], [17], [1, 1, 2, 8], [4, 13], *[[17]] * 4]  # of a row's 17 positions; what is left is padding
SEGMENTS = np.array([np.repeat([*range(1, len(cut) + 1), 0], [*cut, 17 - sum(cut)]) for cut in CUTS], np.int32)
IDS = np.random.default_rng(0).integers(1, ROFORMER.vocabulary, SEGMENTS.shape).astype(np.int32)


@pytest.mark.parametrize(
    "config",
    [
        ROFORMER,
        replace(ROFORMER, layout="half", norm="pre"),
        replace(ROFORMER, layers=1),
        replace(ROFORMER, extension=Extension(method="leaky", factor=2, trained=6, window=12)),
        BERT,
        replace(BERT, positions="buckets"),
    ],
    ids=["rotary", "half, norms before", "one layer", "extended", "learned", "buckets"],
)
def test_it_is_the_state_of_the_first_token(config: RoFormerConfig) -> None:
    model = random_encoder(config)
    found = jax.jit(partial(encode_firsts, config=config, texts=4))(model, IDS, SEGMENTS)
    every = np.asarray(jax.jit(partial(encode, config=config))(model, IDS, SEGMENTS))
    for row, cut in enumerate(CUTS):
        begins = np.cumsum([0, *cut[:-1]])
        np.testing.assert_allclose(found[row, : len(cut)], every[row, begins], atol=2e-5)
    assert found.shape == (8, 4, config.width) and np.isfinite(found).all()


@pytest.mark.parametrize("remat", ["none", "full"])
def test_it_has_the_gradient_of_the_whole(remat: Remat) -> None:
    config = replace(ROFORMER, types=2, remat=remat)
    model, types = random_encoder(config), (IDS % 2).astype(np.int32)
    mine = [SEGMENTS == n + 1 for n in range(4)]
    begins = np.stack([x & (x.cumsum(1) == 1) for x in mine], 1).astype(np.float32)  # [B, S, T]

    def by_firsts(model: RoFormer) -> jax.Array:
        found = encode_firsts(model, IDS, SEGMENTS, config, 4, types=types)
        return jnp.sum(jnp.sin(found) * begins.any(2)[:, :, None])

    def by_all(model: RoFormer) -> jax.Array:
        every = encode(model, IDS, SEGMENTS, config, types=types)
        return jnp.sum(jnp.sin(jnp.einsum("BST,BTD->BSD", begins, every)) * begins.any(2)[:, :, None])

    one, other = (jax.jit(jax.grad(f))(model) for f in (by_firsts, by_all))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, other)


def test_dropout_is_another_with_another_key() -> None:
    config = replace(ROFORMER, dropout=0.3, attention_dropout=0.3)
    run = jax.jit(lambda key: encode_firsts(random_encoder(config), IDS, SEGMENTS, config, 4, key=key))
    one, same, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.isfinite(one).all() and np.abs(one - other).max() > 0.1


def test_it_is_the_same_on_a_mesh() -> None:
    config = replace(ROFORMER, width=48, heads=4, feed_forward=32, vocabulary=64, embedding=16)
    model = random_encoder(config)
    run = jax.jit(partial(encode_firsts, config=config, texts=4))
    alone = run(model, IDS, SEGMENTS)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        placed = place(model, abstract(partial(init, config, jax.random.key(0))))
        np.testing.assert_allclose(run(placed, IDS, SEGMENTS), alone, atol=2e-5)
