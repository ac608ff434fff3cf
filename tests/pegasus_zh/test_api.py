"""What others call of pegasus_zh: the same as the commands and functions below, and refusals in one line."""

import shutil

import jax
import numpy as np
import pytest

from pegasus_zh import Encoder, Search, Writer, load_encoder, load_writer, pretrain_encoder, pretrain_t5
from pegasus_zh.pretrain import defaults
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.load import Loaded
from pegasus_zh.text.documents import CORPUS
from pegasus_zh.text_encoder import rows_of_texts
from pegasus_zh.writing import Writing, generate, write_texts
from rope.encoder.roformer import encode_layers
from tests.pegasus_zh.test_writing import CONFIG, MODEL, TEXTS, TOKENIZER
from tests.retrieval.vectors import test_encoding as encoders
from tests.rope.encoder.random_encoder import BERT, ROFORMER, one_layer_preset
from training.files.errors import DataError
from training.flags import changed
from training.launch import LaunchConfig
from training.mesh import MeshConfig, make_mesh

LENGTHS = {"max_source": 12, "max_target": 10}


@pytest.fixture(scope="module")
def write() -> Writer:
    return Writer(Loaded(jax.tree.map(np.asarray, MODEL), CONFIG, TOKENIZER, "here"))


@pytest.fixture(scope="module", params=[ROFORMER, BERT], ids=["rotary", "learned"])
def source(request):
    return encoders.source(request.param)


def by_hand(search: Search, seed: int = 0) -> list[str]:
    framed = [TOKENIZER.frame_source(TOKENIZER.encode(text), 12) for text in TEXTS]
    return list(generate(MODEL, MT5Decoder(CONFIG), TOKENIZER, framed, Writing(**LENGTHS, search=search, seed=seed)))


def test_a_writer_writes_what_the_command_does(write):
    assert write(TEXTS, **LENGTHS) == by_hand(Search()) and len({*write(TEXTS, **LENGTHS)}) > 2
    assert write(iter(TEXTS), "beams", **LENGTHS, batch_size=4) == by_hand(Search(beams=4))
    assert write(TEXTS, "draws", **LENGTHS, seed=3) == by_hand(Search(temperature=1.0), 3)
    assert write(TEXTS, Search(beams=2), **LENGTHS) == by_hand(Search(beams=2))
    assert write(TEXTS[:1], **LENGTHS) == by_hand(Search())[:1] and write([""]) == [""]


def test_several_answers_and_what_they_are_to_be_like(write):
    search, free = Search(beams=4, answers=3), write(TEXTS, **LENGTHS)
    several = write.several(TEXTS, search, **LENGTHS)
    assert [len(each) for each in several] == [3] * len(TEXTS)
    assert [each[0] for each in several] == write(TEXTS, search, **LENGTHS) == by_hand(Search(beams=4))
    word = free[0][:1]
    begin = next(text[:2] for text in TEXTS if word not in text[:2])
    found = write(TEXTS, **LENGTHS, forbid=[word], begin=begin)
    assert all(word not in text and text.startswith(begin) for text in found)
    with pytest.raises(ValueError, match="is one text: give a list"):
        write(TEXTS, forbid=word)
    with pytest.raises(DataError, match="begin is '龙': the model's vocabulary cannot write it"):
        write(TEXTS, begin="龙")


def test_a_writer_is_loaded_from_any_source(write, tmp_path):
    write_folder(tmp_path / "m", MODEL, CONFIG, TOKENIZER)
    given = load_writer(tmp_path / "m", mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    assert given(TEXTS, **LENGTHS) == write(TEXTS, **LENGTHS) and str(tmp_path) in given.source
    with pytest.raises(DataError, match="no such folder"):
        load_writer(tmp_path / "nothing")


def test_a_writer_refuses(write):
    for given in ("带老人看病", b"x"):
        with pytest.raises(ValueError, match=r"is one text: give a list of texts, \[text\]"):
            write(given)
    with pytest.raises(ValueError, match="'带老人看病' is one text"):
        write_texts(MODEL, MT5Decoder(CONFIG), TOKENIZER, Writing(), "带老人看病")
    with pytest.raises(ValueError, match="no texts: give one or more"):
        write([])
    with pytest.raises(ValueError, match="text 1 is None, not a str"):
        write(["带", None])
    with pytest.raises(ValueError, match="text 1 has half of a surrogate pair"):
        write(["带", "\ud800"])
    with pytest.raises(ValueError, match="texts is None: give a list of texts"):
        write(None)
    with pytest.raises(ValueError, match="search is 'beam': it must be greedy, beams, draws, or a Search"):
        write(TEXTS, "beam")
    with pytest.raises(ValueError, match=r"search is \['beams'\]: it must be greedy"):
        write(TEXTS, ["beams"])
    for name, value in [
        ("batch_size", 0),
        ("batch_size", "2"),
        ("max_source", 10.5),
        ("max_target", "4"),
        ("seed", 1.5),
    ]:
        with pytest.raises(ValueError, match=f"{name} is {value!r}: it must be"):
            write(TEXTS, **{name: value})
    for path in (None, "", b"x"):
        with pytest.raises(DataError, match="the model is .*: give a path"):
            load_writer(path)
    with pytest.raises(ValueError, match="semantics is 't5': it must be auto, mt5, bert4keras"):
        load_writer("m", semantics="t5")
    with pytest.raises(ValueError, match="dtype is 'f32': it must be one of float32, bfloat16"):
        Writer(write._loaded, dtype="f32")
    with pytest.raises(ValueError, match="give a mesh of training.mesh.make_mesh, or a MeshConfig"):
        Writer(write._loaded, mesh=jax.make_mesh((8,), ("x",)))


def test_states_are_those_of_each_layer(source):
    encoder, texts, c = Encoder(source), encoders.TEXTS, source.config
    ids, segments = rows_of_texts(encoders.TOKENIZER, texts, 40)
    every = encode_layers(source.model, ids, segments, c, outputs=range(c.layers))
    for layer in (-1, *range(-c.layers, c.layers)):
        found = encoder.states(texts, layer, batch_size=3)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.mask, segments == 1)
        wanted = np.asarray(every[layer])
        np.testing.assert_allclose(found.states[found.mask], wanted[found.mask], atol=2e-5)
    assert encoder.states(texts[:1]).states.shape == (1, 7, c.width)
    assert encoder.states([texts[3]], max_length=10).mask.shape == (1, 10)


def test_an_encoder_refuses(source):
    encoder = Encoder(source)
    with pytest.raises(ValueError, match="is one text"):
        encoder.states("今天")
    with pytest.raises(ValueError, match="layer is 2: the model has 2, 0 to 1, or from the end -1 to -2"):
        encoder.states(["今天"], 2)
    for name, value in [("batch_size", 0), ("batch_size", 1.5), ("max_length", 9.5), ("layer", "0")]:
        with pytest.raises(ValueError, match=f"{name} is {value!r}: it must be"):
            encoder.states(["今天"], **{name: value})
    for path in (None, "", b"x"):
        with pytest.raises(DataError, match="the model is .*: give a path"):
            load_encoder(path)
    if source.config.positions == "learned":
        with pytest.raises(DataError, match="max_length is 41: the model has 40 learned positions"):
            encoder.states(["今天"], max_length=41)


def test_pretraining_is_one_call(tmp_path, monkeypatch):
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)  # for which less is compiled
    monkeypatch.setitem(mt5.PRESETS, "tiny", mt5.MT5Config(width=16, feed_forward=16, heads=2, head_size=8, layers=1))
    documents = tmp_path / "documents.txt"
    documents.write_text(
        "".join(f"今天天气很好{n}。\n我们去公园散步{n}。\n他每天读书写字{n}。\n\n" for n in range(30)), "utf-8"
    )
    few = {"steps": 1, "batch_size": 8, "vocabulary": 300}
    with one_layer_preset():
        run = pretrain_encoder(documents, folder=tmp_path / "encoder", length=16, eval_fraction=0.3, **few)
        assert run.finished and run.metrics["step"] == 1 and np.isfinite(run.metrics["eval_loss"])
        assert load_encoder(run.folder).states(["今天"]).states.shape == (1, 4, 32)
    few |= {"max_source": 64, "max_target": 32, "row_source": 64, "row_target": 32, "samples": 0}
    run = pretrain_t5([CORPUS / "heldout.jsonl"], folder=tmp_path / "t5", **few)
    assert run.finished and run.folder == tmp_path / "t5" and np.isfinite(run.metrics["loss"])
    assert len(load_writer(run.folder)(["今天天气很好。"], max_target=4)) == 1


def test_sets_of_another_format_are_named_together_before_any_is_made(tmp_path):
    for name in ("data", "heldout"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text('{"format": 1}')
    given = {"data": CORPUS / "heldout.jsonl", "eval_data": (str(CORPUS / "heldout.jsonl"),), "folder": tmp_path}
    with pytest.raises(DataError, match=r"data, \S*heldout hold sets of format 1, .* 2: delete those folders and run"):
        pretrain_t5(**given)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match=r"^\S*heldout holds a set of format 1, .* 2: delete that folder and run"):
        pretrain_t5(**given)
    assert not (tmp_path / "data").exists() and not (tmp_path / "tokenizer").exists()


def test_pretraining_refuses(tmp_path):
    for train in (pretrain_t5, pretrain_encoder):
        with pytest.raises(ValueError, match="preset is 'huge': it must be one of tiny"):
            train(preset="huge")
        with pytest.raises(ValueError, match=r"preset is \['tiny'\]: it must be one of tiny"):
            train(preset=["tiny"])
        with pytest.raises(ValueError, match="no setting 'batchsize': it must be one of accumulate, alert, attention"):
            train(folder=tmp_path, batchsize=3)
        with pytest.raises(ValueError, match="steps is '20': it must be int"):
            train(folder=tmp_path, steps="20")
        with pytest.raises(ValueError, match="optimizer is 'adam': it must be one of adamw, adafactor"):
            train(folder=tmp_path, optimizer="adam")
        for data in ([], "", iter(())):
            with pytest.raises(DataError, match="data is empty"):
                train(data, folder=tmp_path)
        with pytest.raises(ValueError, match=r"data is \(3,\): it must be tuple\[str"):
            train(3, folder=tmp_path)
        with pytest.raises(DataError, match="folder is '': give a path"):
            train(folder="")
        with pytest.raises(ValueError, match="no setting 'launch': it must be one of"):
            train(folder=tmp_path, steps=1, launch=LaunchConfig())
    with pytest.raises(ValueError, match="eval_data is 'x': it must be tuple"):
        pretrain_t5(folder=tmp_path, eval_data="x")
    for part in ("recipe", "loop", "prepare", "examples"):
        with pytest.raises(ValueError, match=f"no setting '{part}'"):
            pretrain_t5(folder=tmp_path, steps=1, **{part: 3})
    assert not [*tmp_path.iterdir()]


def test_settings_are_the_flags_of_the_command():
    given = {"batch_size": 16, "learning_rate": 1, "dropout": 0.1, "selector": "lead", "dtype": "bfloat16"}
    config = changed(defaults("tiny"), given | {"data": ["a", "b"], "mesh": MeshConfig(fsdp=2)})
    recipe = config.recipe
    assert (recipe.loop.batch_size, recipe.optimizer.learning_rate, recipe.dropout) == (16, 1, 0.1)
    assert (recipe.examples.selector, config.prepare.data, config.launch.mesh.fsdp) == ("lead", ("a", "b"), 2)
    assert recipe.computation.dtype == "bfloat16" and config.folder == "runs/tiny"
    assert config.tokens.vocabulary == 4000


def test_the_mesh_that_is_set_holds(source):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:2])):
        encoder = Encoder(source)
    assert encoder._mesh.size == 2 and Encoder(source)._mesh.size == 8
