"""Tuning: sharded and cached as plain, resumed as run through, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pegasus_zh.text_encoder import load_text_encoder
from retrieval import Embedder
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.similarity import read_task
from retrieval.tuning.batches import Batches
from retrieval.tuning.contrastive import LOSSES, cached_gradients
from retrieval.tuning.program import sentence_vectors
from retrieval.tuning.simcse import Examples, SimCSEConfig, TuningRecipe, read_examples, tune
from retrieval.vectors.pooling import embed
from tests.retrieval.vectors.test_encoding import CHARACTERS, TOKENIZER, source
from tests.rope.encoder.random_encoder import BERT
from training.files.errors import DataError
from training.loop import to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.optimizer import OptimizerConfig
from training.partition import spec

SENTENCES = [(CHARACTERS * 2)[i : i + 2 + i % 9] for i in range(16)]
LOUD = OptimizerConfig(learning_rate=1e-2, weight_decay=0, warmup=1, clip=0)


def recipe(**given) -> TuningRecipe:
    return TuningRecipe(**{"batch_size": 8, "optimizer": LOUD, "max_length": 20} | given)


def batches_of(ids: list, given: TuningRecipe, mesh: jax.sharding.Mesh) -> Batches:
    return Batches(ids, None, given.loop(len(ids)), given.max_length, given.views, TOKENIZER.pad_id, mesh)


def tuned(given: TuningRecipe, folder: Path, model, examples: Examples, valid=None):
    """The last state, on all devices."""
    return tune(given, model, examples, valid, make_mesh(MeshConfig()), folder).complete()


def pairs(count: int = 16) -> Examples:
    return Examples(
        "pairs",
        [(a, b, c) for a, b, c in zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1], SENTENCES[::-1], strict=True)][:count],
    )


def gradient(given: TuningRecipe, mesh: jax.sharding.Mesh) -> tuple[float, dict]:
    """Of the first batch, without dropout."""
    model = source(replace(BERT, dropout=0.0, attention_dropout=0.0))
    ids = [[TOKENIZER.frame_source(TOKENIZER.encode(x), 20) for x in example] for example in pairs().sentences]
    batch = next(batches_of(ids, given, mesh)(0, WHOLE))
    with jax.set_mesh(mesh):
        run = cached_gradients(
            lambda arrays, rows, _: (sentence_vectors(arrays, rows, model.config, "mean", None), {}), LOSSES["pairs"]
        )
        arrays = jax.tree.map(lambda x: jax.device_put(x, jax.NamedSharding(mesh, jax.P())), model.model)
        sums, found = jax.jit(run)(
            arrays, to_mesh(batch, mesh, given.accumulate), jax.random.split(jax.random.key(0), given.accumulate)
        )
    return float(sums["loss"][0]), jax.tree.map(np.asarray, found)


def test_eight_devices_and_gradient_caching_change_nothing(tmp_path) -> None:
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    wanted, eight = gradient(recipe(loss="pairs"), one), make_mesh(MeshConfig(data=4, fsdp=2))
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted[1]))
    for given, mesh in (({"accumulate": 4}, one), ({}, eight)):
        found = gradient(recipe(loss="pairs", **given), mesh)
        assert found[0] == pytest.approx(wanted[0], rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), found[1], wanted[1])


def test_the_packed_vectors_are_those_of_each_sentence(tmp_path) -> None:
    model, examples = source(), pairs()
    given = recipe(loss="pairs", accumulate=2)
    ids = [[TOKENIZER.frame_source(TOKENIZER.encode(x), 20) for x in example] for example in examples.sentences]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    batch = to_mesh(next(batches_of(ids, given, mesh)(0, WHOLE)), mesh, 2)
    order = np.random.default_rng([0, 0]).permutation(16)
    embedded = jax.jit(lambda row: embed(model.model, row, jnp.ones_like(row), model.config, ["cls"]))
    with jax.set_mesh(mesh):
        for m in range(2):
            part = {name: x[m] for name, x in batch.items()}
            found = jax.jit(lambda part: sentence_vectors(model.model, part, model.config, "cls", None))(part)
            for vectors, example in zip(np.asarray(found), order[:8][m::2], strict=True):
                for vector, x in zip(vectors, ids[example], strict=True):
                    row = jax.device_put(np.array([x], np.int32), spec("batch", None))
                    np.testing.assert_allclose(vector, np.asarray(embedded(row))[0, 0, 0], atol=2e-5)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path) -> None:
    examples = Examples("sentences", [(text,) for text in SENTENCES])
    given = recipe(epochs=2, eval_every=2)
    wanted = tuned(given, tmp_path / "whole", source(), examples)
    tuned(replace(given, epochs=1), tmp_path / "half", source(), examples)
    found = tuned(given, tmp_path / "half", source(), examples)
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, x.model) for x in (found, wanted)))
    again = load_text_encoder(tmp_path / "half")
    assert again.pooling == "cls"  # which every other command takes
    jax.tree.map(np.testing.assert_array_equal, again.model, jax.tree.map(np.asarray, wanted.model))
    export_encoder(ExportEncoderConfig(model=str(tmp_path / "half"), folder=str(tmp_path / "out")))
    run, out = (Embedder(tmp_path / name).encode(SENTENCES[:5]) for name in ("half", "out"))
    np.testing.assert_array_equal(out, run)  # of the pooling that it was tuned with, and not of the mean
    assert np.abs(run - Embedder(tmp_path / "out").encode(SENTENCES[:5], "mean")).max() > 0.01


def test_scored_pairs_are_learned(tmp_path) -> None:
    lines = [
        f"{a}\t{b}\t{i % 2}" for i, (a, b) in enumerate(zip(SENTENCES, SENTENCES[3:] + SENTENCES[:3], strict=True))
    ]
    (tmp_path / "p.tsv").write_text("\n".join(lines) + "\n")
    given = recipe(
        loss="cosent",
        epochs=30,
        eval_every=30,
        dropout=0.0,
        pooling="mean",
        optimizer=replace(LOUD, learning_rate=1e-3),
    )
    config = SimCSEConfig(model="m", data=(str(tmp_path / "p.tsv"),), recipe=given)
    tuned(given, tmp_path / "run", source(), read_examples(config), read_task("p", [str(tmp_path / "p.tsv")]))
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    told = [float(row.split('"eval_spearman": ')[1].rstrip("}")) for row in rows if "eval_spearman" in row]
    assert told[-1] > 0.7 > told[0]


@pytest.mark.parametrize(
    ("given", "text", "message"),
    [
        ({"loss": "pairs"}, "甲\n", "line 1: 1 column"),
        ({"loss": "pairs"}, "甲\t乙\n甲\t乙\t丙\n", "line 2: 3 column.s., and 2 on the first line"),
        (
            {"loss": "cosent"},
            "甲\t乙\t好\n",
            "line 1: the label or score '好' is not a number: labels are to be 0 and 1",
        ),
        ({}, "甲\n\n乙\n", "line 2 is blank: remove it"),
        ({"loss": "pairs"}, "", "no pair in it"),
        ({"loss": "pairs"}, "甲\t乙\t1\n甲\t丙\t0\n", "line 1: '1' in column 3, as on other lines, is a label"),
        (
            {"loss": "pairs"},
            "sentence1\tsentence2\tlabel\n甲\t乙\t0\n",
            "line 2: '0' in .* is a label and no text: of labels 0 and 1 --lab",
        ),
        (
            {"loss": "pairs"},
            "左\t右\t像\n甲\t乙\t0\n甲\t丙\t1\n",
            "line 2: '0' in column 3",
        ),
        ({"loss": "pairs"}, "左\t右\t像\n甲\t乙\t0\n", "line 2: '0' in column 3"),
        (
            {"loss": "pairs"},
            "甲\t乙\tentailment\n甲\t丙\tcontradiction\n",
            "line 1: 'entailment' in .* is a label and no text: keep the pairs that are alike",
        ),
        ({"loss": "pairs"}, "s1\ts2\tgold_label\n甲\t乙\t蕴含\n", "line 2: '蕴含' in .* is a label and no text"),
        ({"loss": "pairs"}, "1\t甲\t乙\n2\t甲\t丙\n", "line 1: '1' in column 1"),
        *(
            ({"loss": "pairs"}, f"甲\t乙\t{yes}\n丙\t丁\t{no}\n", f"line 1: '{yes}' in column 3, .* keep the pairs")
            for yes, no in (("true", "false"), ("yes", "no"), ("是", "否"), ("相似", "不相似"), ("label0", "label1"))
        ),
        (
            {"loss": "pairs"},
            "左\t右\t像\n上\t下\t像\n" + "甲\t乙\t0\n丙\t丁\t1\n戊\t己\t-\n" * 2,
            "line 3: '0' in column 3",
        ),
        ({"loss": "pairs"}, "s1\ts2\tlabel\n甲\t乙\t1\n丙\t丁\tneg\n", "line 2: '1' in column 3"),
        ({"loss": "pairs"}, "".join(f"甲{n}\t乙{n}\t{'体财'[n % 2]}\n" for n in range(40)), "line 1: '体' in column 3"),
    ],
)
def test_data_that_cannot_be_used_is_one_line(tmp_path, given: dict, text: str, message: str) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_examples(SimCSEConfig(model="m", data=(str(tmp_path / "x.tsv"),), recipe=recipe(**given)))


LABELLED = [("甲", "乙", "1"), ("丙", "丁", "0"), ("戊", "己", "1")]


@pytest.mark.parametrize("name", ["a.tsv", "heading.tsv", "a.csv", "heading.csv", "a.jsonl", "first.json"])
def test_labelled_pairs_are_what_they_are(tmp_path, said: list[str], name: str) -> None:
    """With a heading or without one, and in any kind of file: refused as pairs, or trained on by their labels."""
    path, comma = tmp_path / name, "," if name.endswith("csv") else "\t"
    rows = [("sentence1", "sentence2", "label"), *LABELLED] if "heading" in name else LABELLED
    objects = [{"id": 7, "label": int(c), "s1": a, "s2": b} for a, b, c in LABELLED]
    lines = [json.dumps(x) for x in objects] if "json" in name else [comma.join(row) for row in rows]
    path.write_text(json.dumps(objects) if name.endswith(".json") else "\n".join(lines) + "\n\n")
    with pytest.raises(DataError, match="--labelled takes the pairs that are alike; --loss cosent learns"):
        read_examples(SimCSEConfig(model="m", data=(str(path),), recipe=recipe(loss="pairs")))
    found = read_examples(SimCSEConfig(model="m", data=(str(path),), labelled=True, recipe=recipe(loss="pairs")))
    assert found.sentences == [("甲", "乙"), ("戊", "己")]
    assert said == [f"{path}: 2 pairs labelled 1; 1 labelled 0 are left out"]
    found = read_examples(SimCSEConfig(model="m", data=(str(path),), recipe=recipe(loss="cosent")))
    assert found.sentences == [row[:2] for row in LABELLED] and found.scores.tolist() == [1, 0, 1]
    if "json" not in name:  # else one field is asked for
        found = read_examples(SimCSEConfig(model="m", data=(str(path),), recipe=recipe()))
        assert [text for (text,) in found.sentences] == list("甲乙丙丁戊己")


def test_an_id_is_no_sentence_and_a_label_neither(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,sentence1,sentence2\nx1,甲,乙\nx2,丙,丁\n")
    found = read_examples(SimCSEConfig(model="m", data=(str(path),), recipe=recipe(loss="pairs")))
    assert found.sentences == [("甲", "乙"), ("丙", "丁")]
    (tmp_path / "x.tsv").write_text("甲\t乙\ttrue\n丙\t丁\tfalse\n")
    found = read_examples(SimCSEConfig(model="m", data=(str(tmp_path / "x.tsv"),), recipe=recipe()))
    assert [text for (text,) in found.sentences] == list("甲乙丙丁")


def test_labels_that_are_scores_are_refused(tmp_path) -> None:
    (tmp_path / "x.tsv").write_text("甲\t乙\t1\n丙\t丁\t3\n")
    with pytest.raises(DataError, match="line 2: the label 3 is neither 0 nor 1"):
        read_examples(
            SimCSEConfig(model="m", data=(str(tmp_path / "x.tsv"),), labelled=True, recipe=recipe(loss="pairs"))
        )
    with pytest.raises(ValueError, match="labelled goes with --loss pairs, not cosent"):
        SimCSEConfig(model="m", data=("x.tsv",), labelled=True, recipe=recipe(loss="cosent"))


def test_scores_that_changed_are_another_run(tmp_path) -> None:
    scores = np.arange(3000, dtype=np.float32)
    examples = Examples("pairs", [(SENTENCES[i % 16], SENTENCES[i % 15]) for i in range(3000)], scores)
    given = recipe(loss="cosent", epochs=0.003, dropout=0.0, examples=0)
    tuned(given, tmp_path, source(), examples)
    changed = scores.copy()
    changed[1500] = 0  # in the middle, which repr leaves out
    with pytest.raises(ValueError, match="examples"):
        tuned(given, tmp_path, source(), examples._replace(scores=changed))


def test_examples_that_fill_no_batch_are_told(tmp_path, said: list[str], monkeypatch) -> None:
    monkeypatch.setattr("retrieval.tuning.simcse.train", lambda *_: None)
    for count, left in ((13, "; 5 of them, which fill none, are left out of each pass, others each time"), (16, "")):
        tune(
            recipe(),
            source(),
            Examples("x", [(x,) for x in SENTENCES[:count]]),
            None,
            make_mesh(MeshConfig()),
            tmp_path,
        )
        assert f"{count} examples, {count // 8} updates of 8{left}" in said


def test_what_cannot_be_tuned_is_one_line(tmp_path) -> None:
    with pytest.raises(DataError, match="fewer than one batch of 8"):
        tuned(recipe(), tmp_path, source(), Examples("seven", [("今天",)] * 7))
    with pytest.raises(DataError, match="no pooler"):
        tuned(recipe(pooling="pooler"), tmp_path, source(replace(BERT, pooler="none")), pairs())
    with pytest.raises(ValueError, match="two views"):
        recipe(dropout=0)
    with pytest.raises(ValueError, match="batch_size is 1"):
        recipe(batch_size=1)


def test_sentences_of_pairs_are_each_taken_once_and_scores_are_none(tmp_path) -> None:
    (tmp_path / "x.tsv").write_text("甲乙\t丙\t1\n丙\t甲\t0.5\n")
    found = read_examples(SimCSEConfig(model="m", data=(str(tmp_path / "x.tsv"),)))
    assert found.sentences == [("甲乙",), ("丙",), ("甲",)]
