"""The softmax over hidden tokens and labels is its formula, packed as alone, on any mesh and in any microbatches."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from retrieval.matching.alphabet import NO, YES
from retrieval.matching.batches import Hiding, MatchingBatches, framed
from retrieval.matching.matcher import Matcher, Reading
from retrieval.matching.predict import probabilities, scorer
from retrieval.matching.program import loss, shared
from retrieval.matching.train import MatchingRecipe
from rope.encoder.roformer import encode, logits
from tests.retrieval.matching.small_matching import small
from tests.rope.encoder.random_encoder import ROFORMER
from training.loop import to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.optimizer import OptimizerConfig
from training.program import HostBatch

STILL = replace(ROFORMER, dropout=0.0, attention_dropout=0.0)
PLAIN = OptimizerConfig(learning_rate=1e5, epsilon=1e5, warmup=1, weight_decay=0, clip=0)  # moves by the gradient


def recipe(**given) -> MatchingRecipe:
    return MatchingRecipe(**{"batch_size": 16, "max_length": 14, "epochs": 2, "optimizer": PLAIN} | given)


def batches(asked: MatchingRecipe, mesh: jax.sharding.Mesh) -> MatchingBatches:
    encoder, pairs = small(STILL)
    return MatchingBatches(pairs, asked.loop(len(pairs)), asked.max_length, asked.hiding, encoder.tokenizer, mesh)


def whole() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def by_hand(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Which ids of each pair are in both of its texts, a pair at a time."""
    types = np.zeros_like(ids)
    for row, of in zip(range(len(ids)), segments, strict=True):
        for pair in range(1, of.max() + 1):
            places = np.flatnonzero(of == pair)
            end = places[ids[row, places] == 102][0]
            texts = [{*ids[row, places[places < end]].tolist()}, {*ids[row, places[places > end]].tolist()}]
            both = (texts[0] & texts[1]) - {0, 100, 101, 102, 103}
            types[row, places] = [x in both for x in ids[row, places].tolist()]
    return types


def all_logits(batch: HostBatch, marked: bool) -> np.ndarray:
    """Float64 [R, T, V], by the model's own head at every position."""
    encoder, _ = small(STILL)
    ids, segments = batch["ids"], batch["segments"]
    types = by_hand(ids, segments) if marked else None
    hidden = jax.jit(partial(encode, config=encoder.config))(encoder.model, ids, segments, types=types)
    return np.asarray(jax.jit(partial(logits, config=encoder.config))(encoder.model, hidden), np.float64)


@pytest.mark.parametrize("marked", [False, True])
def test_the_loss_is_its_formula(marked: bool) -> None:
    encoder, _ = small(STILL)
    batch = next(batches(recipe(), whole())(0, WHOLE))
    log_p = log_softmax(all_logits(batch, marked), -1)
    wanted = weight = right = 0.0
    for row in range(len(batch["ids"])):
        for place, label, w in zip(*(batch[name][row] for name in ("places", "labels", "weights")), strict=True):
            wanted, weight = wanted - w * log_p[row, place, label], weight + w
            right += w * (log_p[row, place].argmax() == label)
    sums = jax.jit(partial(loss, config=encoder.config, types=marked))(
        encoder.model, jax.tree.map(jnp.asarray, batch), None
    )
    assert [float(x) for x in sums["loss"]] == pytest.approx([wanted, weight], rel=1e-5)
    assert float(sums["accuracy"][0]) == pytest.approx(right)
    asked = {int(x) for x in batch["labels"][batch["weights"] > 0]}
    assert {NO, YES} < asked  # labels and tokens, by one softmax


def test_labels_alone_have_the_same_loss_by_the_last_layer_of_cls_alone() -> None:
    encoder, _ = small(STILL)
    made = batches(recipe(masks=None), whole())
    batch = jax.tree.map(jnp.asarray, next(made(0, WHOLE)))
    assert made.form.hidden == 0 and made.form.pairs > 1
    run = jax.jit(partial(loss, config=encoder.config, types=True), static_argnames="pairs")
    every, alone = (run(encoder.model, batch, None, pairs=pairs) for pairs in (0, made.form.pairs))
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(alone[name], every[name], rtol=1e-5)


def test_what_both_texts_have_is_found_of_packed_pairs_with_hidden_ids_too() -> None:
    batch = next(batches(recipe(), whole())(0, WHOLE))
    ids, segments = batch["ids"], batch["segments"]
    wanted = by_hand(ids, segments)
    assert np.array_equal(np.asarray(shared(jnp.asarray(ids), jnp.asarray(segments))), wanted)
    assert (ids == 103).any() and 0.1 < wanted[segments > 0].mean() < 0.9


@pytest.mark.parametrize("both_orders", [False, True])
def test_a_score_is_the_odds_of_the_words_at_cls_of_the_pair_alone(both_orders: bool) -> None:
    encoder, pairs = small(STILL)
    with jax.set_mesh(whole()):
        found = scorer(Matcher(encoder, Reading(most=14, rare=True, shared=both_orders)), both_orders)(pairs)
    for pair, odds in zip(pairs[:8], found[:8].tolist(), strict=True):
        orders = [pair, pair._replace(a=pair.b, b=pair.a)][: 1 + both_orders]
        wanted = 0.0
        for one in orders:
            ids = framed(one, 14, encoder.tokenizer, True)[0][None]
            at = all_logits({"ids": ids, "segments": np.ones_like(ids)}, both_orders)[0, 0]
            wanted += (at[YES] - at[NO]) / len(orders)
        assert odds == pytest.approx(wanted, abs=2e-5)
    assert probabilities(np.float32([0, np.log(3)])) == pytest.approx([0.5, 0.75])


def test_windows_and_batches_change_nothing(monkeypatch) -> None:
    """Of windows that are full, and of a last one that is not; batches of rows of another length than theirs."""
    encoder, pairs = small(STILL)
    with jax.set_mesh(whole()):
        score = scorer(Matcher(encoder, Reading(most=14, rare=True, shared=True)))
        at_once = score(pairs)
        monkeypatch.setattr("retrieval.matching.predict.WINDOW", 25)
        monkeypatch.setattr("retrieval.matching.predict.TOKENS", 100)
        np.testing.assert_allclose(score(pairs), at_once, atol=2e-5)
    with jax.set_mesh(make_mesh(MeshConfig(data=8))):
        np.testing.assert_allclose(
            scorer(Matcher(encoder, Reading(most=14, rare=True, shared=True)))(pairs), at_once, atol=2e-5
        )


def one_step(mesh: jax.sharding.Mesh, **given) -> tuple[float, dict]:
    """The loss of the first batch, and the model after it."""
    encoder, _ = small(STILL)
    asked = recipe(**given)
    found = batches(asked, mesh)
    program = asked.program(encoder.config, found.form, 4)
    with jax.set_mesh(mesh):
        state = jax.jit(program.init)()
        model = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), encoder.model, state.model)
        batch = to_mesh(next(found(0, WHOLE)), mesh, asked.accumulate)
        state, sums = jax.jit(program.step)(state.replace(model=model), batch)
        return float(sums["loss"][0]), jax.tree.map(np.asarray, state.model)


# A step without an adversary is the engine's, which is tested on meshes in tests/training.
@pytest.mark.parametrize("adversary", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_eight_devices_and_microbatches_change_nothing(adversary: float) -> None:
    alone, model = one_step(whole(), adversary=adversary)
    eight = make_mesh(MeshConfig(data=4, fsdp=2))
    for mesh, accumulate in ((eight, 1), *(((whole(), 2),) if not adversary else ())):
        found, other = one_step(mesh, adversary=adversary, accumulate=accumulate)
        assert found == pytest.approx(alone, rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), model, other)


def test_the_shapes_that_a_plan_is_made_of_are_those_of_a_batch() -> None:
    found = batches(recipe(), whole())
    made = {name: (x.shape, x.dtype) for name, x in next(found(0, WHOLE)).items()}
    assert made == {name: (x.shape, x.dtype) for name, x in found.form.shapes(16).items()}


def test_hiding_a_side_asks_for_no_label() -> None:
    encoder, pairs = small(STILL)
    asked = recipe()
    made = MatchingBatches(pairs, asked.loop(64), 14, Hiding(None, sides=1.0), encoder.tokenizer, whole())
    batch = next(made(0, WHOLE))
    asked_for = batch["labels"][batch["weights"] > 0]
    assert len(asked_for) and not {NO, YES} & set(asked_for.tolist())
