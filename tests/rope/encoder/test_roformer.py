"""The encoder by its laws; its numbers are compared with transformers' in tests/parity."""

from dataclasses import replace
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.encoder.roformer import (
    PRESETS,
    Positions,
    RoFormerConfig,
    encode,
    encode_layers,
    init,
    logits,
    parameters,
    pool,
)
from rope.layers.masks import unilm_mask
from rope.positions.extension import Extension, extended_rotation

CONFIG = RoFormerConfig(
    vocabulary=48, width=32, embedding=16, feed_forward=64, heads=4, layers=3, max_positions=16, dropout=0.0
)
IDS = np.random.default_rng(0).integers(5, 48, (2, 12)).astype(np.int32)
ONE = np.ones_like(IDS)


def begin(config: RoFormerConfig):
    """Weights ten times as large as initial ones, with which tokens look at some others more than at the rest."""
    grow = lambda path, x: x if "norm" in str(path) or x.ndim < 2 else 10 * x  # noqa: E731
    return jax.tree.map_with_path(grow, init(config, jax.random.key(1)))


@pytest.fixture(scope="module")
def models():
    return {p: begin(replace(CONFIG, positions=p)) for p in get_args(Positions)}


@pytest.mark.parametrize("positions", get_args(Positions))
def test_packed_rows_are_as_if_alone(models, positions):
    """Two examples side by side and padding; relative buckets see only differences inside a segment."""
    config, model = replace(CONFIG, positions=positions), models[positions]
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3])
    run = jax.jit(partial(encode_layers, config=config, outputs=(-1, 0)))
    packed = run(model, IDS[:1], segments)
    for first, end in ((0, 5), (5, 9)):
        alone = run(model, IDS[:1, first:end], ONE[:1, first:end])
        for whole, part in zip(packed, alone, strict=True):
            np.testing.assert_allclose(whole[:, first:end], part, atol=2e-5)
    changed = IDS[:1].copy()
    changed[:, 9:] = 7
    np.testing.assert_array_equal(run(model, changed, segments)[0][:, :9], packed[0][:, :9])


@pytest.mark.parametrize("method", ["dynamic", "ntk", "yarn", "dynamic-yarn", "longrope", "rerope", "leaky"])
def test_an_extension_reads_a_text_alike_in_any_row(models, method):
    """Shorter and longer than what was trained, beside another and with padding."""
    config = replace(
        CONFIG, extension=Extension(method=method, factor=2.0, trained=4, long_factors=(1.0, 1.5, 2.0, 4.0))
    )
    segments, run = np.array([[1] * 3 + [2] * 7 + [0] * 2]), jax.jit(partial(encode, config=config))
    packed = run(models["rotary"], IDS[:1], segments)
    for first, end in ((0, 3), (3, 10)):
        alone = run(models["rotary"], IDS[:1, first:end], ONE[:1, first:end])
        np.testing.assert_allclose(packed[:, first:end], alone, atol=2e-5)


def test_a_rotation_may_be_given_instead_of_the_configs(models):
    e, places = Extension(method="linear", factor=2.0), jnp.arange(12)
    run = jax.jit(partial(encode, config=CONFIG))
    wanted = jax.jit(partial(encode, config=replace(CONFIG, extension=e)))(models["rotary"], IDS, ONE)
    by = extended_rotation(e, places, CONFIG.head_size, 12)
    np.testing.assert_allclose(run(models["rotary"], IDS, ONE, rotation=by), wanted, atol=1e-5)
    assert np.abs(run(models["rotary"], IDS, ONE) - wanted).max() > 1e-3


@pytest.mark.parametrize("positions", get_args(Positions))
def test_order_matters_but_for_none(models, positions):
    config, model = replace(CONFIG, positions=positions), models[positions]
    run = jax.jit(partial(encode, config=config))
    order = np.array([0, 7, 2, 3, 4, 5, 6, 1, 8, 9, 10, 11])
    ours, swapped = run(model, IDS, ONE), run(model, IDS[:, order], ONE)
    difference = np.abs(np.asarray(swapped) - np.asarray(ours)[:, order]).max()
    assert difference < 1e-5 if positions == "none" else difference > 1e-4


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_rotary_positions_are_relative(models, positions):
    config, model = replace(CONFIG, positions=positions), models[positions]
    run = jax.jit(partial(encode, config=config))
    where = np.broadcast_to(np.arange(12), IDS.shape)
    ours, shifted = (run(model, IDS, ONE, positions=where + s) for s in (0, 100))
    np.testing.assert_allclose(ours, shifted, atol=1e-4)


def test_unilm_writes_from_left_to_right(models):
    """The gradient of a target's output reaches the source and the target up to it, and no further."""
    model, types = models["rotary"], np.array([[0] * 5 + [1] * 7])
    mask = unilm_mask(jnp.asarray(ONE[:1]), jnp.asarray(types))

    def of(word, place):
        embedded = model.replace(embeddings=model.embeddings.replace(word=word))
        hidden = encode(embedded, np.arange(12)[None], ONE[:1], CONFIG, types=types, mask=mask)
        return hidden[0, place] @ jnp.linspace(-1, 1, CONFIG.width) ** 3

    gradient = jax.jit(jax.grad(of))
    for place in (2, 5, 9):
        reached = np.abs(gradient(model.embeddings.word, place)[:12]).max(1) > 0
        np.testing.assert_array_equal(reached, np.arange(12) <= max(place, 4))


def test_outputs_are_those_of_the_layers(models):
    run = jax.jit(encode_layers, static_argnames=("config", "outputs"))
    last, first, middle, again = run(models["rotary"], IDS, ONE, CONFIG, outputs=(-1, 0, 1, 2))
    np.testing.assert_array_equal(last, again)
    model = models["rotary"]
    for layers, expected in ((1, first), (2, middle)):
        fewer = model.replace(blocks=jax.tree.map(lambda x, n=layers: x[:n], model.blocks))
        np.testing.assert_allclose(run(fewer, IDS, ONE, replace(CONFIG, layers=layers))[0], expected, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputation_changes_nothing(models, remat):
    model = models["rotary"].replace(blocks=jax.tree.map(lambda x: x[:1], models["rotary"].blocks))

    def of(model, config):
        hidden = encode(model, IDS, ONE, config, key=jax.random.key(0))
        return (hidden * jnp.linspace(-1, 1, CONFIG.width)[None, None] ** 3).sum()

    plain, ours = (
        jax.jit(jax.grad(partial(of, config=replace(CONFIG, layers=1, dropout=0.1, remat=r))))(model)
        for r in ("none", remat)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(a).max() + 1e-6), plain, ours)


def test_one_head_on_many_devices():
    config = replace(CONFIG, heads=1)
    run = jax.jit(lambda model, ids, segments: encode(model, ids, segments, config))
    ids, segments = np.tile(IDS, (4, 1)), np.tile(ONE, (4, 1))
    alone = run(begin(config), ids, segments)
    with jax.set_mesh(jax.make_mesh((8, 1, 1), ("data", "fsdp", "tensor"))):
        model = jax.jit(partial(begin, config))()
        found = run(model, *(jax.device_put(x, jax.P(("data", "fsdp"))) for x in (ids, segments)))
    np.testing.assert_allclose(found, alone, atol=2e-5)


@pytest.mark.parametrize("positions", ["rotary", "learned", "buckets"])
def test_sharded_equals_unsharded(models, positions):
    config = replace(CONFIG, positions=positions)
    ids, segments = np.tile(IDS, (4, 1)), np.tile(ONE, (4, 1))

    @jax.jit
    def of(model, ids, segments):
        hidden = encode(model, ids, segments, config)
        return logits(model, hidden, config), pool(model, hidden, config)

    alone = of(models[positions], ids, segments)
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        cut = jax.jit(partial(begin, config))()
        found = of(cut, *(jax.device_put(x, jax.P(("data", "fsdp"))) for x in (ids, segments)))
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("method", ["linear", "ntk", "dynamic", "yarn", "rerope", "leaky"])
def test_continued_models_read_longer_rows(models, method):
    """A row of the trained length reads as it did, but where the method changes short rows too."""
    config = replace(CONFIG, extension=Extension(method=method, factor=2, trained=6, window=12))
    run = jax.jit(encode, static_argnames="config")
    plain, ours = (run(models["rotary"], IDS, ONE, c)[0] for c in (CONFIG, config))
    assert np.isfinite(ours).all()
    same = np.allclose(plain, ours, atol=1e-5)
    assert same == (method in ("rerope", "leaky"))  # whose window is as long as these rows


REFUSED = {
    "width": ({"width": 30}, "width is 30: it must be a multiple of heads, 4"),
    "head": ({"width": 36, "heads": 4}, "width / heads is 9: rotary positions need an even head size"),
    "theta": ({"theta": "10^t"}, "theta is '10^t'"),
    "extension": (
        {"positions": "learned", "extension": Extension(method="yarn")},
        "positions are learned: extension yarn is for rotary ones",
    ),
    "hierarchical": (
        {"extension": Extension(method="hierarchical")},
        "positions are rotary: extension hierarchical is for learned ones",
    ),
    "base": ({"theta": "t", "extension": Extension(method="ntk")}, "theta is 't': a larger base needs"),
    "dropout": ({"dropout": 1.0}, "dropout is 1.0"),
    "a name": ({"positions": "Rotary"}, "positions is 'Rotary': it must be rotary, learned"),
    "a norm": ({"norm": "rms"}, "norm is 'rms': it must be post, pre"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_is_refused(kind):
    changed, expected = REFUSED[kind]
    with pytest.raises(ValueError) as error:
        replace(CONFIG, **changed)
    assert expected in str(error.value)


def test_shapes_and_layers_that_cannot_be(models):
    for ids, segments in ((IDS, ONE[:1]), (IDS[:0], ONE[:0]), (IDS[:, :0], ONE[:, :0]), (IDS[0], ONE[0])):
        with pytest.raises(ValueError, match="both must be"):
            encode(models["rotary"], ids, segments, CONFIG)
    with pytest.raises(ValueError, match="ids of float32: they must be integers"):
        encode(models["rotary"], IDS.astype(np.float32), ONE, CONFIG)
    for layer in (CONFIG.layers, -CONFIG.layers - 1):
        with pytest.raises(ValueError, match=f"there is no layer {layer}"):
            encode_layers(models["rotary"], IDS, ONE, CONFIG, outputs=(0, layer))


def test_past_a_learned_table(models):
    long = np.ones((1, 20), np.int32)
    config = replace(CONFIG, positions="learned")
    with pytest.raises(ValueError, match="rows of 20 positions: the model's table of learned ones ends at 16"):
        encode(models["learned"], long, long, config)
    continued = replace(config, extension=Extension(method="hierarchical"))
    run = jax.jit(encode, static_argnames="config")
    assert np.isfinite(run(models["learned"], long, long, continued)).all()
    short = (run(models["learned"], IDS, ONE, c) for c in (config, continued))
    np.testing.assert_array_equal(*short)


def test_numbers_that_a_table_does_not_have_are_seen(models):
    config, model = replace(CONFIG, positions="learned"), models["learned"]
    run = jax.jit(partial(encode, config=config))
    assert np.isfinite(run(model, IDS, ONE)).all()
    for bad in ({"ids": IDS + 40}, {"ids": IDS - 20}, {"positions": 16 * ONE}, {"positions": -ONE}, {"types": 2 * ONE}):
        assert np.isnan(run(model, **{"ids": IDS, "segments": ONE} | bad)).any()


def test_without_pooler_head_or_positions():
    config = replace(CONFIG, pooler="none", head=False)
    model = init(config, jax.random.key(0))
    hidden = encode(model, IDS, ONE, config)
    with pytest.raises(ValueError, match="no pooler"):
        pool(model, hidden, config)
    with pytest.raises(ValueError, match="no masked language model's head"):
        logits(model, hidden, config)
    with pytest.raises(ValueError, match="no learned positions"):
        encode(model, IDS, ONE, replace(config, positions="learned"))


def test_presets_have_their_sizes():
    """BERT's 110M, but for its head; RoFormer's vocabulary of 50,000 words has 14M more."""
    assert 102e6 < parameters(PRESETS["bert-base-chinese"]) < 104e6
    assert 124e6 < parameters(PRESETS["roformer-base"]) < 126e6
