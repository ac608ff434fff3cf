"""Training on labelled and unlabelled pairs: it learns, the same seed gives the same bits, a run that was stopped ends
as one that was not, and checkpoints are averaged."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from pegasus_zh.text_encoder import load_text_encoder
from retrieval.matching.matcher import Matcher, _regular, load_matcher
from retrieval.matching.pairs import Pair
from retrieval.matching.predict import probabilities, scorer
from retrieval.matching.score import auc
from retrieval.matching.train import Fold, MatchingRecipe, heldout_scores, train_matcher
from rope.encoder.roformer import RoFormerConfig, init
from tests.retrieval.matching.small_matching import small
from training.files.errors import DataError
from training.loop import Trained
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.optimizer import OptimizerConfig

LOUD = OptimizerConfig(learning_rate=3e-3, weight_decay=0, warmup=10)
FOLD = Fold(1, 5)
WIDE = RoFormerConfig(vocabulary=50, width=64, feed_forward=128, heads=2, layers=2, dropout=0, attention_dropout=0)
pytestmark = pytest.mark.usefixtures("one_device")


def recipe(**given) -> MatchingRecipe:
    return MatchingRecipe(**{"batch_size": 16, "epochs": 2, "eval_epochs": 2, "optimizer": LOUD} | given)


def trained(given: MatchingRecipe, folder: Path, unlabelled: list[Pair] | None = None):
    encoder, pairs = small()
    return train_matcher(given, encoder, pairs, unlabelled or [], FOLD, make_mesh(MeshConfig()), folder).complete()


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, x.model) for x in (one, other)))


@pytest.mark.slow  # the engine resumes as in test_simcse.py; batches by their step are in test_batches.py
def test_the_same_seed_gives_the_same_bits_and_a_stopped_run_ends_so(tmp_path) -> None:
    given = recipe(masks="spans", sides=0.2, rare=True, adversary=0.5, eval_epochs=1)
    whole = trained(given, tmp_path / "whole")
    trained(replace(given, epochs=1), tmp_path / "half")
    same(trained(given, tmp_path / "half"), whole)
    found = load_text_encoder(tmp_path / "half")
    jax.tree.map(np.testing.assert_array_equal, found.model, jax.tree.map(np.asarray, whole.model))


def test_labels_are_learned_told_of_rows_that_were_held_out_and_checkpoints_averaged(tmp_path) -> None:
    encoder, pairs = small(WIDE, count=400)
    model = jax.device_get(jax.jit(partial(init, encoder.config))(jax.random.key(0)))
    encoder = encoder._replace(model=model)  # as trainings begin; the other's arrays are loud
    # Of a number that is in one of the texts.
    pairs = [pair._replace(label=float(107 in (*pair.a, *pair.b))) for pair in pairs]
    given = recipe(epochs=15, eval_epochs=5, masks=None, batch_size=64, optimizer=LOUD, average=3)
    mesh = make_mesh(MeshConfig())
    state = train_matcher(given, encoder, pairs, [], FOLD, mesh, tmp_path).complete()
    held = [pair for n, pair in enumerate(pairs) if FOLD.holds(n)]
    with jax.set_mesh(mesh):
        found = heldout_scores(given, encoder, state.model, pairs, FOLD)
    area = auc(found, np.array([pair.label for pair in held]))
    assert area > 0.9
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["eval_auc"] for row in told if "eval_auc" in row][-1] == pytest.approx(area, abs=1e-6)

    # The mean of its checkpoints' weights is another model.
    steps = sorted(int(x.name) for x in (tmp_path / "checkpoints").iterdir() if x.name.isdigit())
    assert len(steps) == 3
    models = [load_text_encoder(tmp_path, step=step).model for step in steps]
    mean = jax.tree.map(lambda *arrays: np.mean(arrays, 0), *models)
    averaged = load_matcher(tmp_path, average=3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), averaged.source.model, mean)
    with jax.set_mesh(mesh):
        assert np.abs(probabilities(scorer(averaged)(held)) - found).max() > 1e-4
    # One between them, as a stop would leave it, is not among them.
    shutil.copytree(tmp_path / "checkpoints" / str(steps[0]), tmp_path / "checkpoints" / str(steps[0] + 1))
    assert _regular(tmp_path) == steps
    with pytest.raises(DataError, match="3 checkpoints, fewer than the 4 to be averaged"):
        load_matcher(tmp_path, average=4)


def test_texts_without_label_are_learned_of_and_held_out_ones_only_if_wanted(tmp_path, shown, monkeypatch) -> None:
    monkeypatch.setattr("retrieval.matching.train.train", lambda *_: Trained(None, finished=True))
    more = [pair._replace(b=np.zeros(0, np.int32), label=float("nan")) for pair in small()[1][:10]]
    trained(recipe(epochs=1), tmp_path / "a", more)
    assert "51 labelled pairs and 23 without label" in shown.readouterr().out
    trained(recipe(epochs=1, heldout_text=False), tmp_path / "b")
    assert "51 labelled pairs and 0 without label" in shown.readouterr().out


def test_where_nothing_is_hidden_texts_without_label_are_left_out_or_refused(tmp_path, shown, monkeypatch) -> None:
    monkeypatch.setattr("retrieval.matching.train.train", lambda *_: Trained(None, finished=True))
    trained(recipe(epochs=1, masks=None), tmp_path / "a")
    assert "51 labelled pairs and 0 without label to train on, 13 held out" in shown.readouterr().out
    nameless = small()[1][0]._replace(label=float("nan"))
    with pytest.raises(DataError, match="teach nothing where nothing is hidden: give --masks, or no --unlabelled"):
        trained(recipe(masks=None), tmp_path / "b", [nameless])


def test_a_run_of_other_settings_is_left_as_it_is(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("retrieval.matching.train.train", lambda *_: Trained(None, finished=True))
    trained(recipe(), tmp_path)
    trained(recipe(shared=False), tmp_path)  # none has begun yet
    trained(recipe(), tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    before = (tmp_path / "matching.json").read_bytes()
    with pytest.raises(DataError, match="matching.json: the run there had other settings"):
        trained(recipe(shared=False), tmp_path)
    assert (tmp_path / "matching.json").read_bytes() == before


def test_rows_are_no_longer_than_a_table_of_positions(tmp_path, monkeypatch) -> None:
    """Two pairs a row would be 70 positions; the texts of one are 15 ids at most."""
    encoder, pairs = small(replace(WIDE, positions="learned", max_positions=36))
    model = jax.device_get(jax.jit(partial(init, encoder.config))(jax.random.key(0)))
    one, encoder = recipe(epochs=1, eval_epochs=1, masks=None), encoder._replace(model=model)
    mesh = make_mesh(MeshConfig())
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.matching.train.train", lambda *given: given)
        training, *_ = train_matcher(one, encoder, pairs, [], FOLD, mesh, tmp_path)
    assert next(training.data.train(0, WHOLE))["ids"].shape[1] <= 36
    with jax.set_mesh(mesh):
        assert np.isfinite(scorer(Matcher(encoder, one.reading))(pairs)).all()
    with pytest.raises(DataError, match="--max-length 43: the model has 36 learned positions"):
        train_matcher(replace(one, max_length=40), encoder, pairs, [], FOLD, mesh, tmp_path)


def test_what_cannot_be_trained_is_one_line(tmp_path) -> None:
    encoder, pairs = small()
    mesh = make_mesh(MeshConfig())
    with pytest.raises(DataError, match="16 pairs, fewer than one batch of 32"):
        train_matcher(recipe(batch_size=32), encoder, pairs[:16], [], FOLD, mesh, tmp_path)
    single = encoder._replace(config=replace(encoder.config, types=1))
    with pytest.raises(DataError, match="the model has one token type, .* --no-shared"):
        train_matcher(recipe(), single, pairs, [], FOLD, mesh, tmp_path)
    headless = encoder._replace(config=replace(encoder.config, head=False))
    with pytest.raises(DataError, match="no masked language model's head, whose words the labels are"):
        train_matcher(recipe(), headless, pairs, [], FOLD, mesh, tmp_path)
    with pytest.raises(DataError, match="no run of scripts.match_anonymised train"):
        load_matcher(tmp_path)
    with pytest.raises(ValueError, match="epochs 0"):
        recipe(epochs=0)
