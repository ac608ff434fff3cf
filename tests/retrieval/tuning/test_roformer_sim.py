"""RoFormer-Sim: [CLS] reads its own text alone; examples come as said; sharded, cached and resumed as plain."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegasus_zh.writing import Writing, write_texts
from retrieval import Embedder
from retrieval.tuning.contrastive import alike, cached_gradients, distillation, sums_of
from retrieval.tuning.groups import read_groups
from retrieval.tuning.joint_program import Objective, vectors_and_writing
from retrieval.tuning.question_batches import QuestionBatches
from retrieval.tuning.questions import Questions, Stream, corrupt, first_piece, tokenize
from retrieval.tuning.roformer_sim import JointRecipe, RoFormerSimConfig, parse, read_questions, teach
from retrieval.vectors.encoding import pack, texts_of
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from rope.decoding.search import Search
from rope.encoder import prefix_lm
from rope.encoder.prefix_decoder import PrefixDecoder
from tests.retrieval.tuning.small_questions import FILES
from tests.retrieval.vectors.test_encoding import TOKENIZER, source
from tests.rope.encoder.random_encoder import ROFORMER
from training.files.errors import DataError
from training.loop import LoopConfig, to_mesh
from training.mesh import WHOLE, MeshConfig, Share, make_mesh
from training.optimizer import OptimizerConfig

CONFIG = replace(ROFORMER, pooler="linear", types=2)
STILL = replace(CONFIG, dropout=0.0, attention_dropout=0.0)
MAX_LENGTH = 24


def questions(words: bool = True) -> Questions:
    return tokenize(FILES, TOKENIZER, MAX_LENGTH, words=words)


def recipe(**changes) -> JointRecipe:
    loop = LoopConfig(steps=4, batch_size=4, eval_every=2, save_every=2, log_every=1, seed=3)
    optimizer = OptimizerConfig(learning_rate=1e-2, weight_decay=0, warmup=1, clip=0)
    return JointRecipe(**{"max_length": MAX_LENGTH, "loop": loop, "optimizer": optimizer} | changes)


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def batches(loop: LoopConfig, mesh=None, corrupted: float = 0.5, teacher=None) -> QuestionBatches:
    stream = Stream(questions(), (), corrupted, loop.seed)
    return QuestionBatches(stream, loop, 20, MAX_LENGTH, TOKENIZER, mesh or one_device(), teacher)


def test_the_first_token_depends_on_its_own_text_alone() -> None:
    """To the bit, whatever is written after it; and no gradient of it comes from there."""
    model = source(STILL).model
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

    grads = np.abs(np.asarray(jax.grad(first)(jnp.zeros((*ids.shape, model.embeddings.word.shape[1]))))).max(-1)
    assert (grads[:, :5] > 1e-4).all() and not grads[:, 5:].any()


def sequences_of(batch: dict[str, np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """(source, target) of each direction, in the order of the examples, out of the packed rows."""
    found, texts = [], texts_of(batch["ids"].shape[1])
    for place in batch["places"].reshape(-1):
        row, number = divmod(int(place), texts)
        here = batch["segments"][row] == number + 1
        ids, types = batch["ids"][row][here], batch["types"][row][here]
        found.append((ids[types == 0].tolist(), ids[types == 1].tolist()))
    return found


def test_batches_have_both_directions_of_each_pair() -> None:
    known, loop = questions(), LoopConfig(batch_size=6, accumulate=2, seed=1)
    made = batches(loop, corrupted=0.0)
    begin, end = TOKENIZER.frame_source([], 3)
    for step in range(5):
        batch = made.batch(step, WHOLE)
        assert batch["ids"].shape == (2 * made.form.rows, made.form.length)
        # Example e went to microbatch e % 2, and row r of the batch to r % 2: undone, as training.loop.to_mesh does.
        for m in range(2):
            part = {name: x[m::2] for name, x in batch.items()}
            wanted = []
            for one, two in part["texts"]:
                a, b = known.ids[one].tolist(), known.ids[two].tolist()
                wanted += [([begin, *a, end], [*b, end]), ([begin, *b, end], [*a, end])]
            assert sequences_of(part) == wanted
            predicted = [(row, t + 1) for row, places in enumerate(part["targets"]) for t in places if t >= 0]
            assert sorted(predicted) == sorted(zip(*map(list, np.nonzero(part["types"])), strict=True))
            for (row, t), label in zip(predicted, part["labels"][part["targets"] >= 0], strict=True):
                assert part["ids"][row, t] == label


def test_what_is_too_long_is_cut_at_its_longer_side() -> None:
    made = batches(LoopConfig(batch_size=6, seed=0))
    made._max_length = 14
    for step in range(10):
        drawn = made._drawn(step)
        for group in made._microbatches(0):
            sources, targets = made._lengths(drawn, group)
            full = made._plain[drawn.texts[group]].reshape(-1)
            assert ((sources + targets) <= 14).all() and (sources >= 3).all() and (targets >= 1).all()
            for source_, target, found in zip(
                full,
                made._plain[drawn.texts[group][:, ::-1]].reshape(-1) - 1,
                zip(sources, targets, strict=True),
                strict=True,
            ):
                sides = [source_, target]
                while sum(sides) > 14:
                    sides[int(np.argmax(sides))] -= 1  # bert4keras's rule
                if not drawn.corrupted.any():
                    assert tuple(sides) == found


@pytest.mark.parametrize("order", [(), (0, 1), (0, 1, 0, 0)])
def test_every_pass_visits_each_group_once_and_files_have_their_turns(order) -> None:
    known = questions(words=False)
    stream = Stream(known, order, 0.0, seed=7)
    of_text = {
        text: file for g, file in enumerate(np.repeat([0, 1], known.files)) for text in known.members[g].tolist()
    }
    groups = {frozenset(known.members[g].tolist()): g for g in range(sum(known.files))}
    numbers = stream._groups(np.arange(240))
    np.testing.assert_array_equal(
        numbers, np.concatenate([stream._groups(np.arange(i, i + 8)) for i in range(0, 240, 8)])
    )
    files = np.repeat([0, 1], known.files)[numbers]
    if order:
        assert files.tolist() == [*order] * (240 // len(order))
    for file in (0, 1) if order else (None,):
        mine = numbers[files == file] if order else numbers
        size = known.files[file] if order else sum(known.files)
        for first in range(0, len(mine) - size, size):
            assert len({*mine[first : first + size]}) == size
    drawn = stream.draw(40, 40)
    for one, two in drawn.texts.tolist():
        assert one != two and any({one, two} <= group for group in groups)
    assert {of_text[x] for x in drawn.texts.reshape(-1).tolist()} == {0, 1}


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_words_are_hidden_whole(lengths: list[int], seed: int) -> None:
    begins = np.zeros(sum(lengths), bool)
    begins[np.cumsum([0, *lengths[:-1]])] = True
    ids = np.arange(1000, 1000 + len(begins), dtype=np.int32)
    found = corrupt(ids, begins, np.random.default_rng(seed), mask=4, size=900)
    for word in np.split(np.arange(len(ids)), np.flatnonzero(begins)[1:]):
        kinds = {"mask" if found[i] == 4 else "same" if found[i] == ids[i] else "other" for i in word}
        assert len(kinds) == 1 or kinds == {"other", "mask"}  # a random id may be that of the mask


def test_shares_of_what_is_hidden() -> None:
    begins = np.ones(200_000, bool)
    ids = np.full(len(begins), 5, np.int32)
    found = corrupt(ids, begins, np.random.default_rng(0), mask=4, size=100_000)
    shares = Counter("mask" if x == 4 else "same" if x == 5 else "other" for x in found.tolist())
    # Three standard deviations.
    for kind, share in (("mask", 0.12), ("other", 0.015), ("same", 0.865)):
        assert shares[kind] / len(ids) == pytest.approx(share, abs=3 * (share * (1 - share) / len(ids)) ** 0.5)
    assert found.min() >= 1


def gradient(loop: LoopConfig, mesh: jax.sharding.Mesh, distils: bool):
    teacher = np.random.default_rng(0).standard_normal((len(questions().texts), 7)).astype(np.float32)
    batch = batches(loop, mesh, teacher=teacher if distils else None).batch(0, WHOLE)
    embed = lambda model, rows, key: vectors_and_writing(model, rows, None, STILL)  # noqa: E731
    loss, weights = distillation if distils else alike, (0.7, 1.3)
    with jax.set_mesh(mesh):
        arrays = jax.tree.map(lambda x: jax.device_put(x, jax.NamedSharding(mesh, jax.P())), source(STILL).model)
        keys = jax.random.split(jax.random.key(0), loop.accumulate)
        sums, found = jax.jit(cached_gradients(embed, loss, weights))(
            arrays, to_mesh(batch, mesh, loop.accumulate), keys
        )
        if loop.accumulate == 1:
            again = jax.jit(sums_of(embed, loss, weights))(arrays, to_mesh(batch, mesh), None)
            assert float(again["loss"][0]) == pytest.approx(float(sums["loss"][0]), rel=1e-5)
    means = {name: float(s) / float(w) for name, (s, w) in sums.items()}
    assert means["loss"] == pytest.approx(0.7 * means["vectors"] + 1.3 * means["writing"], rel=1e-5)
    return means, jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("distils", [False, True])
def test_eight_devices_and_gradient_caching_change_nothing(distils: bool) -> None:
    loop = LoopConfig(batch_size=8, seed=2)
    wanted = gradient(loop, one_device(), distils)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted[1]))
    for changed, mesh in ((replace(loop, accumulate=4), one_device()), (loop, make_mesh(MeshConfig(data=4, fsdp=2)))):
        found = gradient(changed, mesh, distils)
        assert found[0] == pytest.approx(wanted[0], rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), found[1], wanted[1])


def taught(given: JointRecipe, folder: Path, **options):
    options = {"eval_fraction": 0.5} | options
    twice = tokenize(FILES * 2, TOKENIZER, MAX_LENGTH, words=True)
    return teach(given, source(CONFIG), twice, make_mesh(MeshConfig()), folder, **options).complete()


def test_a_run_resumes_loads_finds_and_writes(tmp_path) -> None:
    given = recipe(loop=LoopConfig(steps=4, batch_size=8, eval_every=2, save_every=2, log_every=1, seed=3))
    wanted = taught(given, tmp_path / "whole")
    taught(replace(given, loop=replace(given.loop, steps=2)), tmp_path / "half")
    found = taught(given, tmp_path / "half")
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, x.model) for x in (found, wanted)))
    loaded = load_sentence_encoder(tmp_path / "half")
    assert loaded.pooling == "pooler" and loaded.text.config.pooler == "linear"
    vectors = Embedder(tmp_path / "half").encode(["今天", "你呢"])
    assert vectors.shape == (2, CONFIG.width)
    text = loaded.text
    writing = Writing(max_source=20, max_target=6, search=Search(temperature=1.0, answers=5))
    drawn = list(write_texts(text.model, PrefixDecoder(text.config), text.tokenizer, writing, ["今天很好"]))
    assert len(drawn) == 1 and len(drawn[0]) == 5
    rows = [json.loads(line) for line in (tmp_path / "half" / "metrics.jsonl").read_text().splitlines()]
    assert {"vectors", "writing", "loss"} <= {*rows[1]} and "eval_writing" in rows[0]


def test_both_losses_fall_and_a_teacher_is_followed(tmp_path) -> None:
    loop = LoopConfig(steps=60, batch_size=8, eval_every=60, save_every=60, log_every=5, seed=3)
    still = recipe(loop=loop, dropout=0.0, corrupted=0.2, optimizer=OptimizerConfig(learning_rate=3e-3, warmup=1))
    taught(still, tmp_path / "one", eval_fraction=0.0)
    rows = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "vectors" in row]
    assert rows[-1]["vectors"] < 0.5 * rows[0]["vectors"] and rows[-1]["writing"] < 0.8 * rows[0]["writing"]
    # A teacher of another width.
    teacher = SentenceEncoder(source(replace(CONFIG, width=36, heads=3)), "teacher", "pooler")
    taught(still, tmp_path / "two", eval_fraction=0.0, teacher=teacher)
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "vectors" in row]
    assert rows[-1]["vectors"] < 0.2 * rows[0]["vectors"]


def test_hosts_pack_their_own_examples() -> None:
    """Two hosts' parts are the examples of the whole, each text as in the whole batch."""
    loop = LoopConfig(batch_size=8, seed=4)
    made = batches(loop)
    whole = sequences_of(made.batch(1, WHOLE))
    made._parts = 2
    made._rows = len(pack([MAX_LENGTH] * 8, MAX_LENGTH))
    for part in range(2):
        found = made.batch(1, Share(part, 2))
        found["places"] = found["places"] - part * made._rows * texts_of(made._room)
        assert sequences_of(found) == whole[8 * part : 8 * part + 8]


@pytest.mark.parametrize(
    ("text", "longest", "wanted"),
    [
        ("今天很好", 10, "今天很好"),
        ("今天很好。我们去公园。你呢", 11, "今天很好。我们去公园。"),
        ("今天很好，我们去公园散步吧，你呢", 9, "今天很好"),
        ("一二三四五六七八九十", 5, "一二三四五六七八九十"),  # no mark to cut at: the rows cut it
        ("；，今天，", 10, "今天"),
        ("第一行\n第二行很长很长", 5, "第一行"),
    ],
)
def test_a_long_text_is_cut_at_a_mark(text: str, longest: float, wanted: str) -> None:
    assert first_piece(text, longest) == wanted


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


def test_what_cannot_be_trained_is_one_line(tmp_path) -> None:
    headless = source(replace(CONFIG, head=False))
    with pytest.raises(DataError, match="no masked language model's head"):
        teach(recipe(), headless, questions(), one_device(), tmp_path)
    with pytest.raises(DataError, match="fewer than one batch"):
        taught(recipe(loop=LoopConfig(steps=1, batch_size=64)), tmp_path)
    with pytest.raises(ValueError, match="one of the weights"):
        Objective(vectors=0, writing=0)
    with pytest.raises(ValueError, match="file 2 has no turn"):
        config(tmp_path / "a.tsv", tmp_path / "b.tsv", order=(1, 1))
    with pytest.raises(ValueError, match="order has 3"):
        config(tmp_path / "a.tsv", order=(3,))
    assert parse(["--model", "m", "--data", "a.tsv", "--preset", "simbert"]).recipe.objective.scale == 30
