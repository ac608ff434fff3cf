"""The model and its loss: transformers' numbers, packing, causality, the loss function, sizes, precision, remat."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pegasus_zh.t5.huggingface import huggingface_tensors
from pegasus_zh.t5.mt5 import (
    PRESETS,
    MT5Config,
    decode,
    encode,
    feed_forward,
    flops_per_row,
    init,
    logits,
    parameters,
    with_vocabulary,
)
from pegasus_zh.t5.objective import loss
from rope.layers.attention import attention
from rope.layers.dropout import dropout
from tests.pegasus_zh.t5.random_model import SHAPE, TINY, random_model, random_pairs, rows

GOLDENS = Path(__file__).parents[2] / "goldens"
MODEL = random_model(TINY)
PAIRS = random_pairs(6, TINY)


@partial(jax.jit, static_argnames="config")
def outputs(model, batch, config=TINY):
    """(mean loss, its gradients, logits)."""

    def mean(model):
        total, weight = loss(model, batch, None, config=config)["loss"]
        return total / weight

    encoded = encode(model, batch["source"], batch["source_segments"], config)
    hidden = decode(model, batch["target_inputs"], batch["target_segments"], encoded, batch["source_segments"], config)
    return *jax.value_and_grad(mean)(model), logits(model, hidden, config)


def close(found, wanted, tolerance: float) -> None:
    """Every array of two trees, to `tolerance` of its largest element."""
    for (path, x), y in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.abs(x - y).max() <= tolerance * np.abs(y).max(), jax.tree_util.keystr(path)


@pytest.fixture(scope="module")
def unpacked():
    """One pair a row."""
    return rows([[pair] for pair in PAIRS], *SHAPE)


@pytest.fixture(scope="module")
def wanted(unpacked):
    return outputs(MODEL, unpacked)


def test_transformers_logits_loss_and_gradients():
    with np.load(GOLDENS / "mt5.npz") as file:
        golden = dict(file)
    weights = [golden[f"weight {jax.tree_util.keystr(p, simple=True)}"] for p, _ in jax.tree.leaves_with_path(MODEL)]
    model = jax.tree.unflatten(jax.tree.structure(MODEL), weights)
    batch = {name.removeprefix("batch "): x for name, x in golden.items() if name.startswith("batch ")}
    real = batch["target_segments"] > 0
    assert 0 < real.mean() < 1 and (batch["source_segments"] == 0).any()
    value, gradients, scores = outputs(model, batch)
    close(scores[real], golden["logits"][real], 1e-4)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    for name, gradient in huggingface_tensors(gradients):
        close(gradient, golden[f"gradient {name}"], 1e-4)


def test_packed_rows_have_the_loss_and_gradients_of_single_ones(wanted):
    # Empty rows give it the shape of the unpacked batch.
    packed = rows([PAIRS[5:], [], PAIRS[:2], [], PAIRS[2:5], []], *SHAPE)
    assert packed["target_segments"].max() == 3
    value, gradients, _ = outputs(MODEL, packed)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-5)
    close(gradients, wanted[1], 1e-5)


def test_a_position_sees_its_pair_and_what_is_left_of_it_alone():
    # Two pairs in a row. All ids differ, so that the gradient in an id's embedding tells whether its position is seen.
    source = np.array([[3, 4, 5, 6, 10, 11, 12, 0]])
    source_segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0]])
    inputs = np.array([[20, 21, 22, 23, 30, 31, 32, 0]])
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0]])
    direction = np.random.default_rng(0).standard_normal(TINY.width)

    def hidden(embedding):
        model = MODEL.replace(embedding=embedding)
        encoded = encode(model, source, source_segments, TINY)
        return decode(model, inputs, segments, encoded, source_segments, TINY)[0] @ direction

    seen = np.abs(jax.jit(jax.jacrev(hidden))(MODEL.embedding)).max(-1) > 0  # [T, V]
    for t, segment in enumerate(segments[0]):
        left = inputs[0][(segments[0] == segment) & (np.arange(inputs.shape[1]) <= t)]
        assert set(np.flatnonzero(seen[t])) == set(left) | set(source[0][source_segments[0] == segment]), t


def test_smoothing_and_z_loss_change_the_loss_alone(unpacked):
    options = {"config": TINY, "smoothing": 0.1, "z_loss": 1e-3}, {"config": TINY}
    with_options, without = jax.jit(lambda model: [loss(model, unpacked, None, **o) for o in options])(MODEL)
    assert with_options["loss"][0] > without["loss"][0]
    np.testing.assert_allclose(without["loss"], without["cross_entropy"], rtol=1e-6)
    for name in ("cross_entropy", "accuracy"):
        np.testing.assert_allclose(with_options[name], without[name], rtol=1e-6)
    assert without["loss"][1] == (unpacked["target_segments"] > 0).sum()


def test_dropout_is_off_without_a_key_and_drawn_by_it(unpacked):
    config = replace(TINY, dropout=0.2)
    value = jax.jit(lambda key, config: loss(MODEL, unpacked, key, config=config)["loss"][0], static_argnums=1)
    keys = (jax.random.key(seed, impl="rbg") for seed in (0, 0, 1))
    first, again, other = (float(value(key, config)) for key in keys)
    assert first == again and len({first, other, float(value(None, TINY))}) == 3
    text = (jax.jit(value, static_argnums=1).lower(None, c).as_text() for c in (config, TINY))
    assert len(set(text)) == 1  # without a key the same program


def test_dropout_keeps_the_expectation():
    rate, count = 0.25, 2000
    keys = jax.random.split(jax.random.key(0), count)
    x = jnp.full((50, 40), 3.0)
    dropped = np.asarray(dropout(x, rate, keys[0]))
    assert set(np.unique(dropped)) == {0, 4}
    deviation = (rate * (1 - rate) / x.size) ** 0.5
    assert abs((dropped == 0).mean() - rate) < 4 * deviation
    # Two layers that are linear in what is dropped: the mean over many keys is the output without dropout.
    config, random = replace(TINY, dropout=rate), np.random.default_rng(0)
    block = jax.tree.map(lambda x: x[0], MODEL.decoder.blocks)
    h = jnp.asarray(random.standard_normal((1, 5, TINY.width)), jnp.float32)
    q, k, v = (jnp.asarray(random.standard_normal((1, 5, 2, 8)), jnp.float32) for _ in range(3))
    layers = {
        "feed forward": lambda key: feed_forward(h, block.feed_forward, config, key),
        "attention": lambda key: attention(q, k, v, dropout_rate=rate, dropout_key=key),
    }
    for name, layer in layers.items():
        outputs = np.asarray(jax.jit(jax.vmap(layer))(keys))
        error = np.abs(outputs.mean(0) - layer(None)) / (outputs.std(0) / count**0.5)
        assert error.max() < 5, name  # standard errors of the mean


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("t5-pegasus-small", 95),
        ("t5-pegasus-base", 275),
        ("mt5-small", 300),
        ("mt5-base", 582),
        ("mt5-large", 1230),
        ("mt5-xl", 3743),
        ("mt5-xxl", 12_921),
    ],
)
def test_presets_have_the_published_sizes(preset, millions):
    assert round(parameters(PRESETS[preset]) / 1e6) == millions


def test_parameters_counts_what_init_makes():
    assert parameters(TINY) == sum(x.size for x in jax.tree.leaves(MODEL))
    sizes = {depth: parameters(replace(TINY, layers=1, decoder_layers=depth)) for depth in (None, 1, 3)}
    block = jax.eval_shape(partial(init, TINY), jax.random.key(0)).decoder.blocks
    layer = sum(x.size for x in jax.tree.leaves(block)) // TINY.layers
    assert sizes[None] == sizes[1] and sizes[3] - sizes[1] == 2 * layer
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="decoder_layers is"):
            replace(TINY, decoder_layers=wrong)


def test_the_vocabulary_is_rounded_up_for_the_mesh():
    assert [with_vocabulary(TINY, size).vocabulary for size in (1, 16, 17, 50_000)] == [16, 16, 32, 50_000]


@pytest.mark.parametrize("decoder_layers", [None, 3])
def test_flops_of_a_row_are_what_xla_counts(decoder_layers):
    config = replace(TINY, vocabulary=1024, width=256, feed_forward=512, heads=3, head_size=64, layers=1)
    config = replace(config, decoder_layers=decoder_layers)
    model = jax.eval_shape(partial(random_model, config))
    batch = rows([[pair] for pair in random_pairs(1, config)], 96, 64)
    sums = jax.jit(jax.value_and_grad(lambda model: loss(model, batch, None, config=config)["loss"][0]))
    counted = sums.lower(model).cost_analysis()["flops"]
    assert counted == pytest.approx(flops_per_row(config, 96, 64), rel=0.04)


def test_bfloat16_is_close_to_float32(unpacked, wanted):
    config = replace(TINY, dtype="bfloat16")
    value, gradients, scores = outputs(MODEL, unpacked, config)
    assert value.dtype == jnp.float32 and {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(value, wanted[0], rtol=0.01)
    norm = lambda tree: sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree)) ** 0.5  # noqa: E731
    assert norm(jax.tree.map(jnp.subtract, gradients, wanted[1])) < 0.05 * norm(wanted[1])


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputation_changes_nothing(unpacked, wanted, remat):
    value, gradients, _ = outputs(MODEL, unpacked, replace(TINY, remat=remat))
    np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
    close(gradients, wanted[1], 1e-5)


def test_dots_recomputes_no_product_of_weights_and_full_all_that_gradients_need(unpacked):
    def products(remat: str) -> int:
        of = partial(loss, config=replace(TINY, remat=remat, dropout=0.1))
        program = jax.make_jaxpr(jax.grad(lambda model: of(model, unpacked, jax.random.key(0))["loss"][0]))(MODEL)
        return len(re.findall(r":f32\[\d+,\d+\]\S* = dot_general", str(program)))

    found = {remat: products(remat) for remat in ("none", "dots", "full")}
    assert found["dots"] == found["none"]
    # Of the encoder queries, keys, values, output, gate and side; of the decoder those of cross-attention too.
    assert found["full"] == found["none"] + 6 + 10


@pytest.mark.parametrize("remat", ["none", "full"])
def test_bias_and_masks_are_made_once_a_stack(unpacked, remat, monkeypatch):
    """No layer of a loop sees segments [6, S] or makes positions or buckets, neither forwards nor backwards."""
    monkeypatch.setattr("pegasus_zh.t5.mt5.on_one_cpu", lambda: False)  # a loop, as on an accelerator
    config = replace(TINY, remat=remat, cross_bias=True)
    program = jax.make_jaxpr(jax.grad(lambda model: loss(model, unpacked, None, config=config)["loss"][0]))(MODEL)
    bodies = [str(e.params["jaxpr"]) for e in program.eqns if e.primitive.name == "scan" and e.params["length"] == 2]
    assert len(bodies) >= 4  # both stacks, forwards and backwards
    assert not [name for name in ("i32[6,", " iota", " log ") if any(name in body for body in bodies)]


def test_what_computes_attention_is_chosen(unpacked):
    source = unpacked["source"], unpacked["source_segments"]
    text = [
        jax.jit(encode, static_argnums=3).lower(MODEL, *source, replace(TINY, attention=a)).as_text()
        for a in ("auto", "xla")
    ]
    assert text[0] == text[1]
    with pytest.raises(ValueError, match="attention by cudnn computes in bfloat16"):
        encode(MODEL, *source, replace(TINY, attention="cudnn"))


def test_a_fresh_model_predicts_like_chance():
    # The head gives a normalised hidden state logits of variance 1, hence an expected loss of log V + 1/2.
    config = replace(TINY, width=64, vocabulary=512, layers=1)
    batch = rows([[pair] for pair in random_pairs(6, config)], *SHAPE)
    key = jax.random.key(1, impl="rbg")
    value, weight = jax.jit(lambda key: loss(init(config, key), batch, None, config=config)["loss"])(key)
    assert value / weight == pytest.approx(np.log(512) + 0.5, abs=0.25)


WRONG = [{"gelu": "foo"}, {"remat": "x"}, {"dtype": "float64"}, {"attention": "splash"}]
WRONG += [{name: 0} for name in ("vocabulary", "width", "feed_forward", "heads", "head_size", "layers")]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_config_that_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*: it must be"):
        MT5Config(**wrong)
