"""RoFormer-Sim: a run resumes, loads, finds and writes; both losses fall; what cannot be trained is one line."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.writing import Writing, write_texts
from retrieval import Embedder
from retrieval.tuning.groups import read_groups
from retrieval.tuning.joint_program import Objective
from retrieval.tuning.questions import tokenize
from retrieval.tuning.roformer_sim import JointRecipe, RoFormerSimConfig, parse, read_questions, teach
from retrieval.tuning.roformer_sim import taught as vectors_of
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from rope.decoding.search import Search
from rope.encoder.prefix_decoder import PrefixDecoder
from tests.retrieval.tuning.small_questions import CONFIG, FILES, MAX_LENGTH, first_device, questions
from tests.retrieval.vectors.test_encoding import TOKENIZER, source
from training.files.errors import DataError
from training.loop import LoopConfig
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests


def recipe(**changes) -> JointRecipe:
    loop = LoopConfig(steps=4, batch_size=4, eval_every=2, save_every=2, log_every=1, seed=3)
    optimizer = OptimizerConfig(learning_rate=1e-2, weight_decay=0, warmup=1, clip=0)
    return JointRecipe(**{"max_length": MAX_LENGTH, "loop": loop, "optimizer": optimizer} | changes)


def taught(given: JointRecipe, folder: Path, mesh: jax.sharding.Mesh | None = None, **options):
    options = {"eval_fraction": 0.5} | options
    twice = tokenize(FILES * 2, TOKENIZER, MAX_LENGTH, words=True)
    return teach(given, source(CONFIG), twice, mesh or make_mesh(MeshConfig()), folder, **options).complete()


@pytest.mark.slow  # the engine resumes as in test_simcse.py; batches by their step are in test_question_batches.py
def test_a_run_resumes_to_the_bit(tmp_path) -> None:
    given = recipe(loop=replace(recipe().loop, batch_size=8))
    wanted = taught(given, tmp_path / "whole")
    taught(replace(given, loop=replace(given.loop, steps=2)), tmp_path / "half")
    found = taught(given, tmp_path / "half")
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, x.model) for x in (found, wanted)))


def test_a_run_loads_finds_and_writes(tmp_path) -> None:
    wanted = taught(recipe(loop=replace(recipe().loop, batch_size=8)), tmp_path)
    loaded = load_sentence_encoder(tmp_path)
    assert loaded.pooling == "pooler" and loaded.text.config.pooler == "linear"
    jax.tree.map(np.testing.assert_array_equal, loaded.text.model, jax.tree.map(np.asarray, wanted.model))
    vectors = Embedder(tmp_path).encode(["今天", "你呢"])
    assert vectors.shape == (2, CONFIG.width)
    text = loaded.text
    writing = Writing(max_source=20, max_target=6, search=Search(temperature=1.0, answers=5))
    drawn = list(write_texts(text.model, PrefixDecoder(text.config), text.tokenizer, writing, ["今天很好"]))
    assert len(drawn) == 1 and len(drawn[0]) == 5
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"vectors", "writing", "loss"} <= {*rows[1]} and "eval_writing" in rows[0]


def test_both_losses_fall_and_a_teacher_is_followed(tmp_path) -> None:
    loop = LoopConfig(steps=60, batch_size=8, eval_every=60, save_every=60, log_every=5, seed=3)
    still = recipe(loop=loop, dropout=0.0, corrupted=0.2, optimizer=OptimizerConfig(learning_rate=3e-3, warmup=1))
    given = {"mesh": first_device(), "eval_fraction": 0.0}
    taught(still, tmp_path / "one", **given)
    rows = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "vectors" in row]
    assert rows[-1]["vectors"] < 0.5 * rows[0]["vectors"] and rows[-1]["writing"] < 0.8 * rows[0]["writing"]
    # A teacher of another width.
    teacher = SentenceEncoder(source(replace(CONFIG, width=36, heads=3)), "teacher", "pooler")
    taught(still, tmp_path / "two", teacher=teacher, **given)
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "vectors" in row]
    assert rows[-1]["vectors"] < 0.2 * rows[0]["vectors"]


def test_a_teacher_that_knows_no_text_is_told_of_and_one_of_no_numbers_refused(said: list[str]) -> None:
    given = source(CONFIG)
    strange = given._replace(tokenizer=PegasusTokenizer([*SPECIALS, "龘"]))
    vectors_of(SentenceEncoder(strange, "strange", "pooler"), questions(), first_device())
    assert any(line.startswith("strange, of the texts: 100.00% of") for line in said)
    broken = given._replace(model=jax.tree.map(lambda x: np.full_like(x, np.nan), given.model))
    with pytest.raises(DataError, match="broken, its vectors: row 1 has NaN"):
        vectors_of(SentenceEncoder(broken, "broken", "pooler"), questions(), first_device())


def config(*paths: Path, **options) -> RoFormerSimConfig:
    return RoFormerSimConfig(model="m", data=tuple(map(str, paths)), recipe=recipe(), **options)


def test_groups_of_files(tmp_path, said: list[str]) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "今天", "synonyms": ["天气", "今天"]}\n{"text": "你", "synonyms": []}\n'
    )
    (tmp_path / "b.tsv").write_text("今天\t天\t好\n我们\t你\t我\n")
    (tmp_path / "d.tsv").write_text("query\tpos\tneg\n今天\t天\t你\n我们\t你\t我\n")
    assert [group.texts for group in read_groups(str(tmp_path / "d.tsv"))] == [("今天", "天"), ("我们", "你")]
    (tmp_path / "c.csv").write_text("sentence1,sentence2,label\n今天,天,1\n我们,你,0\n")
    assert [group.texts for group in read_groups(str(tmp_path / "a.jsonl"))] == [("今天", "天气")]
    assert said[2:] == [
        f"{tmp_path / 'a.jsonl'}: 1 of the groups with one text alone, which says nothing of others, left out"
    ]
    found = read_questions(config(tmp_path / "a.jsonl", tmp_path / "b.tsv"), source(CONFIG))
    assert found.files == (1, 2)
    found = read_questions(config(tmp_path / "c.csv", labelled=True), source(CONFIG))
    assert found.files == (1,) and set(found.texts) == {"今天", "天"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"text": "今天", "synonyms": "天气"}\n', "line 1: 'synonyms' is '天气', not a list of texts"),
        (
            "a.jsonl",
            '{"text": "今天", "synonyms": ["天"]}\n{"text": "天"}\n',
            "line 2: 'synonyms' is None, not a list of texts",
        ),
        ("a.jsonl", '{"text": "今天", "synonyms": ["天", " "]}\n', "line 1: text 2 of 'synonyms' is empty"),
        ("a.jsonl", '{"text": "今天", "synonyms": [3]}\n', "line 1: text 1 of 'synonyms' is 3, not a string; mend it$"),
        ("a.jsonl", '{"synonyms": ["今天"]}\n', "line 1: 'text' is None, not a string; mend it$"),
        ("a.jsonl", '{"text": "今天", "synonyms": ["今天"]}\n', "no group of two texts"),
        ("a.tsv", "今天\t\n", "line 1: column 2 is empty"),
        ("a.tsv", "今天\t天\t1\n天\t好\t0\n", "--labelled takes the pairs"),
        ("a.tsv", "", "no group of two texts"),
    ],
)
def test_groups_that_cannot_be_used_are_one_line(tmp_path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_questions(config(tmp_path / name), source(CONFIG))


@pytest.mark.parametrize(("fraction", "told"), [(0.2, True), (0.0, False)])
def test_groups_too_few_to_be_evaluated_are_told_of(tmp_path, monkeypatch, said, fraction: float, told: bool) -> None:
    monkeypatch.setattr("retrieval.tuning.roformer_sim.train", lambda run, *_: run)
    teach(recipe(), source(CONFIG), questions(), first_device(), tmp_path, eval_fraction=fraction)
    assert any("none are evaluated" in line for line in said) == told


def test_what_cannot_be_trained_is_one_line(tmp_path) -> None:
    headless = source(replace(CONFIG, head=False))
    with pytest.raises(DataError, match="no masked language model's head"):
        teach(recipe(), headless, questions(), first_device(), tmp_path)
    with pytest.raises(DataError, match="fewer than one batch"):
        taught(recipe(loop=LoopConfig(steps=1, batch_size=64)), tmp_path, eval_fraction=0.1)
    with pytest.raises(ValueError, match="one of the weights"):
        Objective(vectors=0, writing=0)
    with pytest.raises(ValueError, match="file 2 has no turn"):
        config(tmp_path / "a.tsv", tmp_path / "b.tsv", order=(1, 1))
    with pytest.raises(ValueError, match="order has 3"):
        config(tmp_path / "a.tsv", order=(3,))
    assert parse(["--model", "m", "--data", "a.tsv", "--preset", "simbert"]).recipe.objective.scale == 30
