"""Labelled pairs of several groups: the loss is its formula, a mesh and microbatches change nothing, a run is an
encoder, and what cannot be learned from is one line."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from pegasus_zh.text_encoder import load_text_encoder
from retrieval import Embedder
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.similarity import read_task
from retrieval.tuning.batches import Batches
from retrieval.tuning.examples import Examples, examples_of
from retrieval.tuning.labels import members
from retrieval.tuning.simcse import SimCSEConfig, plan_of, read_examples
from retrieval.tuning.softmax import Classifier, begin, softmax
from tests.retrieval.small_model import write_model
from tests.retrieval.tuning.test_simcse import LOUD, SENTENCES, recipe, tuned
from tests.retrieval.vectors.test_encoding import TOKENIZER, source
from tests.rope.encoder.random_encoder import BERT
from training.files.errors import DataError
from training.loop import to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.partition import spec

GROUPS = (("0", "1"), ("contradiction", "entailment", "neutral"))
INFERENCE = GROUPS[1]


def labelled(count: int = 16) -> Examples:
    """Two thirds are of the first group."""
    pairs = [(SENTENCES[i % 16], SENTENCES[(3 * i + 1) % 16]) for i in range(count)]
    columns = [i % 2 if i % 3 else 2 + i % 9 // 3 for i in range(count)]
    return Examples("labelled", pairs, np.array(columns, np.float32), GROUPS)


def test_the_loss_is_its_formula_on_one_device_and_on_eight() -> None:
    random = np.random.default_rng(0)
    vectors, kernel = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 2, 6), (18, 5)))
    labels = random.integers(0, 5, 16).astype(np.float32)
    wanted, right = 0.0, 0
    for (u, v), label in zip(vectors.astype(np.float64), labels.astype(int), strict=True):
        logits = np.concatenate([u, v, np.abs(u - v)]) @ kernel
        own = slice(0, 2) if label < 2 else slice(2, 5)
        wanted += logsumexp(logits[own]) - logits[label]
        right += logits[label] == max(logits[own])
    for mesh in (None, MeshConfig(data=4, fsdp=2)):
        if mesh is None:
            sums = jax.jit(partial(softmax, groups=GROUPS))(kernel, vectors, labels)
        else:
            with jax.set_mesh(make_mesh(mesh)):
                cut = [jax.device_put(x, spec("batch", *(None for _ in x.shape[1:]))) for x in (vectors, labels)]
                sums = jax.jit(partial(softmax, groups=GROUPS))(jax.device_put(kernel, spec(None, None)), *cut)
        assert [float(x) for x in sums["loss"]] == pytest.approx([wanted, 16], rel=1e-5)
        assert [float(x) for x in sums["accuracy"]] == [right, 16]


def one_step(mesh: jax.sharding.Mesh, **given) -> tuple[float, Classifier]:
    """The loss of the first batch and the model after it, without dropout, by an Adam that moves by the gradient."""
    model, examples = source(replace(BERT, dropout=0.0, attention_dropout=0.0)), labelled(48)
    plain = replace(LOUD, learning_rate=1e5, epsilon=1e5)
    asked = recipe(loss="softmax", pooling="mean", dropout=0.0, optimizer=plain, **given)
    ids = [[TOKENIZER.frame_source(TOKENIZER.encode(x), 20) for x in pair] for pair in examples.sentences]
    batches = Batches(
        ids, examples.scores, asked.loop(48), 20, 1, TOKENIZER.pad_id, mesh, members(GROUPS, examples.scores)
    )
    program = asked.program(model.config, batches.form, 1, GROUPS)
    with jax.set_mesh(mesh):
        state = jax.jit(program.init)()
        start = begin(model.model, model.config, GROUPS, 0)
        state = state.replace(model=jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), start, state.model))
        state, sums = jax.jit(program.step)(state, to_mesh(next(batches(0, WHOLE)), mesh, asked.accumulate))
        return float(sums["loss"][0]), jax.tree.map(np.asarray, state.model)


def test_eight_devices_and_microbatches_change_nothing() -> None:
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    wanted = one_step(one)
    for mesh, given in ((one, {"accumulate": 4}), (make_mesh(MeshConfig(data=4, fsdp=2)), {})):
        found = one_step(mesh, **given)
        assert found[0] == pytest.approx(wanted[0], rel=1e-5)
        jax.tree.map(partial(np.testing.assert_allclose, atol=2e-6), found[1], wanted[1])


def test_every_batch_has_equal_shares_of_the_groups() -> None:
    examples, given = labelled(48), recipe(loss="softmax", epochs=4)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    groups = members(GROUPS, examples.scores)
    assert [len(x) for x in groups] == [32, 16]
    ids = [[[2, 5 + i, 3], [2, 4, 3]] for i in range(48)]
    stream = Batches(ids, examples.scores, given.loop(48), 20, 1, 0, mesh, groups)(0, WHOLE)
    drawn = [next(stream) for _ in range(8)]
    for batch in drawn:
        assert np.sum(batch["scores"] < 2) == np.sum(batch["scores"] >= 2) == 4
    first = [
        text for batch in drawn for text, score in zip(batch["texts"][:, 0], batch["scores"], strict=True) if score < 2
    ]
    assert len({*map(int, first)}) == 32  # one pass over the larger group, two over the smaller
    with pytest.raises(ValueError, match="batch_size is 9, and 2 groups of labels have equal shares"):
        Batches(ids, examples.scores, recipe(loss="softmax", batch_size=9).loop(48), 20, 1, 0, mesh, groups)
    with pytest.raises(ValueError, match="a group of labels has 16 examples, and its share of a batch is 20"):
        Batches(ids, examples.scores, recipe(loss="softmax", batch_size=40).loop(48), 20, 1, 0, mesh, groups)


@pytest.mark.slow  # the engine resumes as in test_simcse.py
def test_a_run_is_resumed_to_the_bit_and_is_an_encoder(tmp_path: Path) -> None:
    given, examples = recipe(loss="softmax", pooling="pooler", epochs=2, eval_every=2), labelled()
    wanted = tuned(given, tmp_path / "whole", source(), examples)
    tuned(replace(given, epochs=1), tmp_path / "half", source(), examples)
    found = tuned(given, tmp_path / "half", source(), examples)
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, x.model) for x in (found, wanted)))
    again = load_text_encoder(tmp_path / "half")
    assert again.pooling == "pooler" and isinstance(found.model, Classifier)
    jax.tree.map(np.testing.assert_array_equal, again.model, jax.tree.map(np.asarray, wanted.model.encoder))
    export_encoder(ExportEncoderConfig(model=str(tmp_path / "half"), folder=str(tmp_path / "out")))
    run, out = (Embedder(tmp_path / name).encode(SENTENCES[:5]) for name in ("half", "out"))
    np.testing.assert_allclose(out, run, atol=1e-6)
    with pytest.raises(ValueError, match="another model or optimizer"):
        tuned(replace(given, loss="pairs"), tmp_path / "half", source(), examples._replace(scores=None, groups=()))


def write(path: Path, labels: str, shift: int = 0) -> str:
    rows = [
        f"{SENTENCES[i % 16]}\t{SENTENCES[(i + 1 + shift) % 16]}\t{label}" for i, label in enumerate(labels.split())
    ]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_the_command_learns_from_several_files(tmp_path: Path, said: list[str]) -> None:
    data = (
        write(tmp_path / "nli.tsv", "entailment neutral Contradiction - " * 4),
        write(tmp_path / "lcqmc.tsv", "1 0 " * 8, 1),
        write(tmp_path / "stsb.tsv", "0 1.5 2.5 3 4 5", 2),
    )
    given = recipe(
        loss="softmax",
        pooling="mean",
        dropout=0.0,
        epochs=30,
        eval_every=100,
        optimizer=replace(LOUD, learning_rate=2e-3),
    )
    config = SimCSEConfig(model=str(write_model(tmp_path / "m")), data=data, threshold=2.5, recipe=given)
    examples = read_examples(config)
    assert examples.groups == GROUPS and len(examples.sentences) == 12 + 16 + 6
    assert examples.scores[:3].tolist() == [3, 4, 2] and examples.scores[-6:].tolist() == [0, 0, 0, 1, 1, 1]
    assert said == [
        f'{data[0]}: 4 pairs labelled "-" are left out',
        f"labels 0, 1: {data[1]} (16), {data[2]} (6)",
        f"labels contradiction, entailment, neutral: {data[0]} (12)",
    ]
    tuned(given, tmp_path / "run", load_text_encoder(config.model), examples, read_task("v", [data[2]]))
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    told = [float(row.split('"accuracy": ')[1].split(",")[0].rstrip("}")) for row in rows if '"accuracy"' in row]
    assert told[-1] > 0.9 > told[0]
    program, loop = plan_of(config, make_mesh(MeshConfig()))
    assert loop.steps == 120 and jax.eval_shape(program.init).model.kernel.shape == (3 * 24, 5)


BROKEN = {
    "one label": (["1 1 1"], None, "a.tsv: all 3 labels are '1'; two are needed"),
    "one name": (["neutral - neutral"], None, "a.tsv: all 2 labels are 'neutral'"),
    "one side of the threshold": (["3 4 5"], 2.5, "a.tsv: all 3 labels are '1' at the threshold 2.5"),
    "scores": (["0 1 3"], None, "a.tsv, line 3: the label 3 is neither 0 nor 1; give --threshold"),
    "no number": (["0 1 nan"], None, "a.tsv, line 3: the label is 'nan'; mend"),
    "mixed": (["0 1 entailment 0"], None, "a.tsv, line 3: the label is 'entailment', and '0' on the last line"),
    "heading": (["像 1 0"], None, "a.tsv, line 1: the label is '像', and '0' on the last line"),
    "outside": (
        ["entailment neutral", "entailment neutral entailmnet"],
        None,
        "b.tsv, line 3: the label 'entailmnet' is not among entailment, neutral of .*a.tsv",
    ),
    "fewer": (
        ["entailment neutral contradiction", "neutral entailment"],
        None,
        "a.tsv, line 3: the label 'contradiction' is not among entailment, neutral of .*b.tsv",
    ),
    "undecided": (["- -"], None, "a.tsv: no labelled pair in it"),
    "texts": ([" ".join(map(str.__add__, "x" * 101, map(str, range(101))))], None, "line 1: 'x0' is one of 101 labels"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_labels_that_cannot_be_used_are_one_line(tmp_path: Path, kind: str) -> None:
    files, threshold, message = BROKEN[kind]
    data = [write(tmp_path / f"{name}.tsv", labels) for name, labels in zip("ab", files, strict=False)]
    with pytest.raises(DataError, match=message) as error:
        examples_of(data, "softmax", threshold=threshold)
    assert "\n" not in str(error.value)


def test_a_threshold_is_for_softmax() -> None:
    with pytest.raises(ValueError, match="threshold goes with --loss softmax, not cosent"):
        SimCSEConfig(model="m", data=("x.tsv",), threshold=2.5, recipe=recipe(loss="cosent"))
