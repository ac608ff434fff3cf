"""Folders of transformers' RoFormer and BERT without torch: to the bit and back, every spelling, every refusal."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rope.encoder.huggingface import Names, encoder_tensors, read_encoder, write_encoder
from rope.encoder.roformer import RoFormerConfig
from rope.positions.extension import Extension
from tests.rope.encoder.random_encoder import BERT, ROFORMER, SIZES, outputs, random_encoder, random_rows
from training.files.errors import DataError

CONFIGS = {"roformer": ROFORMER, "bert": BERT}
MODELS = {kind: random_encoder(config) for kind, config in CONFIGS.items()}


@pytest.fixture(params=CONFIGS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def folder(kind, tmp_path) -> Path:
    write_encoder(tmp_path / kind, MODELS[kind], CONFIGS[kind])
    return tmp_path / kind


def same(found, wanted) -> None:
    """Every array, to the bit."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for (path, x), y in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def edit(folder: Path, **values) -> None:
    """Sets keys of config.json; None removes one."""
    about = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({k: v for k, v in about.items() if v is not None}))


def rewrite(folder: Path, change) -> None:
    """The weights that `change` makes of their dictionary, in place."""
    weights = safetensors.load_file(folder / "model.safetensors")
    safetensors.save_file(change(weights) or weights, folder / "model.safetensors")


def renamed(old: str, new: str):
    return lambda weights: {name.replace(old, new): x for name, x in weights.items()}


@pytest.mark.parametrize("gelu", ["erf", "tanh"])
@pytest.mark.parametrize("pooler", ["none", "tanh"])
@pytest.mark.parametrize("head", [True, False])
def test_what_we_write_loads_to_the_bit(kind, gelu, pooler, head, tmp_path):
    config = replace(CONFIGS[kind], gelu=gelu, pooler=pooler, head=head, epsilon=1e-7)
    model = random_encoder(config)
    write_encoder(tmp_path / "out", model, config, write_more=lambda folder: (folder / "vocab.txt").touch())
    found, found_config = read_encoder(tmp_path / "out")
    assert found_config == config
    same(found, model)
    assert (tmp_path / "out" / "vocab.txt").exists()


def test_names_and_shapes_are_those_of_transformers(kind, folder):
    weights, model, c = safetensors.load_file(folder / "model.safetensors"), MODELS[kind], CONFIGS[kind]
    some = {
        "embeddings.word_embeddings.weight": model.embeddings.word,
        "encoder.layer.1.attention.self.query.weight": model.blocks.query.kernel[1].T,
        "encoder.layer.0.attention.output.LayerNorm.bias": model.blocks.attention_norm.bias[0],
        "encoder.layer.1.output.dense.weight": model.blocks.outer.kernel[1].T,
        "pooler.dense.bias": model.pooler.bias,
    }
    some |= (
        {"embeddings_project.weight": model.embeddings.project.kernel.T}
        if kind == "roformer"
        else {"embeddings.position_embeddings.weight": model.embeddings.position}
    )
    for name, wanted in some.items():
        np.testing.assert_array_equal(weights[f"{kind}.{name}"], wanted, err_msg=name)
    np.testing.assert_array_equal(weights["cls.predictions.transform.dense.weight"], model.head.transform.kernel.T)
    about = json.loads((folder / "config.json").read_text())
    assert about["model_type"] == kind and about["hidden_size"] == c.width and about["hidden_act"] == "gelu"
    assert about["max_position_embeddings"] == (1536 if kind == "roformer" else 40)


def test_bfloat16_is_rounded_but_for_the_sinusoids(kind, tmp_path):
    write_encoder(tmp_path / "out", MODELS[kind], CONFIGS[kind], dtype="bfloat16")
    same(
        read_encoder(tmp_path / "out")[0],
        jax.tree.map(lambda x: x.astype("bfloat16").astype(np.float32), MODELS[kind]),
    )
    if kind == "roformer":
        table = safetensors.load_file(tmp_path / "out" / "model.safetensors")["roformer.encoder.embed_positions.weight"]
        assert table.dtype == np.float32 and table.shape == (1536, 8)
        angles = 1000 / 10.0 ** np.arange(4)
        np.testing.assert_allclose(table[1000], [*np.sin(angles), *np.cos(angles)], atol=1e-6)


def test_shards(kind, folder):
    weights = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{i % 3 + 1:05d}-of-00003.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        safetensors.save_file({k: x for k, x in weights.items() if places[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    same(read_encoder(folder)[0], MODELS[kind])
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(DataError, match="model-00002-of-00003.safetensors: no such file"):
        read_encoder(folder)


SPELLINGS = [("LayerNorm.weight", "LayerNorm.gamma"), ("{kind}.", ""), ("predictions.bias", "predictions.decoder.bias")]


@pytest.mark.parametrize(("old", "new"), SPELLINGS)
def test_other_spellings(kind, folder, old, new):
    rewrite(folder, renamed(old.format(kind=kind), new))
    if "gamma" in new:
        rewrite(folder, renamed("LayerNorm.bias", "LayerNorm.beta"))
    same(read_encoder(folder)[0], MODELS[kind])


def test_what_is_passed_over(kind, folder):
    def add(w):
        w["cls.seq_relationship.weight"] = np.ones((2, SIZES["width"]), np.float32)
        w["cls.seq_relationship.bias"] = np.ones(2, np.float32)
        w[f"{kind}.embeddings.position_ids"] = np.arange(40)[None]
        w["cls.predictions.decoder.weight"] = w[f"{kind}.embeddings.word_embeddings.weight"].copy()
        w["cls.predictions.decoder.bias"] = w["cls.predictions.bias"].copy()

    rewrite(folder, add)
    same(read_encoder(folder)[0], MODELS[kind])
    rewrite(folder, lambda w: {name: x.astype("bfloat16") for name, x in w.items()})
    read_encoder(folder)  # copies are equal after rounding too
    rewrite(folder, lambda w: w["cls.predictions.decoder.bias"].__setitem__(3, 7))
    with pytest.raises(DataError, match=r"'cls.predictions.decoder.bias' is not cls.predictions.bias again"):
        read_encoder(folder)


@pytest.mark.parametrize("name", ["classifier", "classifier.dense", "qa_outputs", "sequence_summary.summary"])
def test_a_head_for_another_task_is_passed_over_and_told(kind, folder, said, name):
    """As of ForSequenceClassification of BERT and of RoFormer, ForQuestionAnswering, ForMultipleChoice."""

    def add(w):
        w[f"{name}.weight"], w[f"{name}.bias"] = np.ones((5, SIZES["width"]), np.float32), np.ones(5, np.float32)

    rewrite(folder, add)
    same(read_encoder(folder)[0], MODELS[kind])
    top = name.partition(".")[0]
    assert said == [f"{folder / 'model.safetensors'}: what is on top of the encoder is passed over: {top}"]


def test_a_config_of_the_first_years(kind, folder):
    """bert_config.json, as of chinese_roberta_wwm_ext_pytorch: without the kind, which the tensors tell."""
    edit(folder, model_type=None, architectures=None, tie_word_embeddings=None)
    (folder / "config.json").rename(folder / "bert_config.json")
    rewrite(folder, lambda w: {f"module.{name}": x for name, x in w.items()})  # and as DataParallel names them
    model, config = read_encoder(folder)
    assert config == CONFIGS[kind]
    same(model, MODELS[kind])


def test_a_kind_that_nothing_tells_is_asked_for(tmp_path):
    write_encoder(tmp_path / "m", MODELS["roformer"], ROFORMER)
    edit(tmp_path / "m", model_type=None, architectures=None)
    rewrite(tmp_path / "m", renamed("roformer.", ""))
    same(read_encoder(tmp_path / "m")[0], MODELS["roformer"])  # by its table of sinusoids
    rewrite(tmp_path / "m", lambda w: w.__delitem__("encoder.embed_positions.weight"))
    with pytest.raises(
        DataError, match='no model_type, and the tensors are neither .*: add "model_type": "roformer" if'
    ):
        read_encoder(tmp_path / "m")
    edit(tmp_path / "m", use_relative_position=True)
    with pytest.raises(DataError, match="use_relative_position is set, which is NEZHA's"):
        read_encoder(tmp_path / "m")


def test_a_roformer_v2_whose_config_does_not_say_so(tmp_path):
    write_encoder(tmp_path / "m", MODELS["roformer"], ROFORMER)
    rewrite(tmp_path / "m", lambda w: {name: x for name, x in w.items() if not name.endswith("bias")})
    with pytest.raises(DataError, match="no biases, as RoFormer-V2 has it, whose RMSNorm is not computed here"):
        read_encoder(tmp_path / "m")


def test_an_encoder_alone(kind, folder):
    rewrite(folder, lambda w: {name: x for name, x in w.items() if "cls." not in name and "pooler" not in name})
    model, config = read_encoder(folder)
    assert config == replace(CONFIGS[kind], head=False, pooler="none")
    same(model, MODELS[kind].replace(head=None, pooler=None))


def test_what_a_pooler_ends_in(kind, folder):
    def pooler(**told):
        return read_encoder(folder, **told)[1].pooler

    assert pooler() == "tanh" and pooler(pooler="linear") == "linear"
    edit(folder, pegasus_zh=None)
    assert pooler() == "tanh"
    edit(folder, pooler_activation="linear")
    assert pooler() == "linear" and pooler(pooler="tanh") == "tanh"
    edit(folder, pegasus_zh={"pooler": "tanh"})
    assert pooler() == "tanh"
    same(read_encoder(folder, pooler="none")[0], MODELS[kind].replace(pooler=None))
    rewrite(folder, lambda w: {name: x for name, x in w.items() if "pooler" not in name})
    with pytest.raises(DataError, match="the model has no pooler, and 'linear' was asked for"):
        read_encoder(folder, pooler="linear")


def test_a_linear_pooler_of_a_roformer_is_kept(tmp_path):
    config = replace(ROFORMER, pooler="linear")
    write_encoder(tmp_path / "out", MODELS["roformer"], config)
    model, found = read_encoder(tmp_path / "out")
    assert found == config
    same(model, MODELS["roformer"])


CONVERTED = {
    "half": replace(ROFORMER, layout="half"),
    "sinusoidal": replace(BERT, positions="sinusoidal", theta="1000^-t"),
    "trainable": replace(BERT, positions="trainable"),
    "none": replace(BERT, positions="none"),
}


@pytest.mark.parametrize("positions", CONVERTED)
def test_what_another_encoding_is_written_as(positions, tmp_path):
    config = CONVERTED[positions]
    model = random_encoder(config)
    write_encoder(tmp_path / "out", model, config)
    found, found_config = read_encoder(tmp_path / "out")
    kind = ROFORMER if positions == "half" else BERT
    assert found_config == replace(kind, theta=RoFormerConfig.theta, embedding=config.embedding)
    rows = random_rows(config)
    wanted, found = outputs(model, rows, config), outputs(found, rows, found_config)
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], x, atol=2e-5, err_msg=name)
    if positions == "half":  # and the order of dimensions matters
        other = outputs(model, rows, replace(config, layout="interleaved"))["hidden"]
        assert np.abs(other - wanted["hidden"]).max() > 0.01


REFUSED = {
    "norm is pre": replace(ROFORMER, norm="pre"),
    "positions are buckets": replace(BERT, positions="buckets"),
    r"theta is t\^2: there it is 10000\^-t": replace(ROFORMER, theta="t^2"),
    "extension is yarn, and there is none": replace(ROFORMER, extension=Extension(method="yarn", factor=2)),
    "positions are learned, and embeddings narrower": replace(BERT, embedding=8),
    "the pooler is linear": replace(BERT, pooler="linear"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_transformers_has_no_class_for(message, tmp_path):
    config = REFUSED[message]
    with pytest.raises(DataError, match=message) as error:
        write_encoder(tmp_path / "out", random_encoder(config), config)
    assert "\n" not in str(error.value) and str(tmp_path / "out") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left(kind, folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(DataError, match="exists already; name another folder"):
        write_encoder(folder, MODELS[kind], CONFIGS[kind])
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_failure_leaves_nothing(tmp_path):
    def fail(_):
        raise DataError("no tokenizer")

    with pytest.raises(DataError, match="no tokenizer"):
        write_encoder(tmp_path / "out", MODELS["bert"], BERT, write_more=fail)
    assert list(tmp_path.iterdir()) == []


def config_with(**values):
    return lambda folder, _: edit(folder, **values)


def weights_with(change):
    return lambda folder, kind: rewrite(folder, lambda weights: change(weights, kind))


QUERY = "{}.encoder.layer.1.attention.self.query.weight".format
WORD = "{}.embeddings.word_embeddings.weight".format
BROKEN = {
    "other model": (config_with(model_type="mt5"), 'model_type is "mt5"; only roformer and bert are read'),
    "model of no kind": (config_with(model_type=["bert"]), 'model_type is ."bert".; only'),
    "rotary values": (config_with(rotary_value=True), "rotary_value is true; only false can be read"),
    "decoder": (config_with(is_decoder=True), "is_decoder is true"),
    "cross": (config_with(add_cross_attention=True), "add_cross_attention is true"),
    "relative": (config_with(position_embedding_type="relative_key"), 'type is "relative_key"; only "absolute"'),
    "v2": (config_with(norm_type="rms_norm"), 'norm_type is "rms_norm"; only "layer_norm"'),
    "relu": (config_with(hidden_act="relu"), 'hidden_act is "relu"; only gelu, gelu_python, gelu_new'),
    "no size": (config_with(hidden_size=None), "hidden_size is null"),
    "a million layers": (config_with(num_hidden_layers=1_000_000), "num_hidden_layers is 1000000"),
    "size in words": (config_with(num_hidden_layers="two"), 'num_hidden_layers is "two"'),
    "no dropout": (config_with(hidden_dropout_prob=1.5), "dropout is 1.5: it must be at least 0 and below 1; give"),
    "heads": (config_with(num_attention_heads=5), "width is 24: it must be a multiple of heads, 5; give the config"),
    "pooler": (config_with(pegasus_zh={"pooler": "relu"}), 'the pooler is {"pooler": "relu"}; it may be'),
    "untied": (config_with(tie_word_embeddings=False), "tie_word_embeddings is false, and there is no 'cls"),
    "more layers": (config_with(num_hidden_layers=1), "layer.1.* and 15 more, which a .* of this config does not"),
    "fewer layers": (config_with(num_hidden_layers=3), "no tensor '.*encoder.layer.2.* and 15 more"),
    "wrong shape": (config_with(intermediate_size=21), r"has the shape \(20, 24\), and \(21, 24\) by its config"),
    "missing": (weights_with(lambda w, kind: w.__delitem__(QUERY(kind))), "no tensor '.*1.attention.self.query"),
    "part of a head": (weights_with(lambda w, kind: w.__delitem__("cls.predictions.bias")), "'cls.predictions.bias'"),
    "superfluous": (weights_with(lambda w, kind: w.update(bias=w[QUERY(kind)])), "a tensor 'bias', which a"),
    "integers": (
        weights_with(lambda w, kind: w.update({QUERY(kind): w[QUERY(kind)].astype(np.int8)})),
        "query.weight' is I8; only float32",
    ),
    "another decoder": (
        weights_with(lambda w, kind: w.update({"cls.predictions.decoder.weight": w[WORD(kind)] + 1})),
        "'cls.predictions.decoder.weight' is not the embedding again; only models with a tied head are read",
    ),
    "truncated": (
        lambda folder, _: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:5000]
        ),
        "model.safetensors: not a whole .safetensors file",
    ),
    "no file": (lambda folder, _: (folder / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "no config": (
        lambda folder, _: (folder / "config.json").unlink(),
        "neither config.json nor bert_config.json; add the one that belongs to the weights, with vocab_size",
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_broken_folders(kind, folder, damage):
    change, message = BROKEN[damage]
    change(folder, kind)
    with pytest.raises(DataError, match=message) as error:
        read_encoder(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda x: x[:, ::-1].copy(), lambda x: x[:, :6].copy(), lambda x: x[0], lambda x: x + np.nan]
)
def test_a_roformer_of_other_frequencies(damage, tmp_path):
    write_encoder(tmp_path / "out", MODELS["roformer"], ROFORMER)
    table = "roformer.encoder.embed_positions.weight"
    rewrite(tmp_path / "out", lambda w: w.update({table: damage(w[table])}))
    with pytest.raises(DataError, match=rf"'{table}' is not the table of 10000\^-t for heads of 8"):
        read_encoder(tmp_path / "out")


def test_heads_of_an_odd_size(tmp_path):
    write_encoder(tmp_path / "out", MODELS["roformer"], ROFORMER)
    edit(tmp_path / "out", num_attention_heads=8)
    with pytest.raises(DataError, match="width / heads is 3: rotary positions need an even head size"):
        read_encoder(tmp_path / "out")


def test_names_follow_gradients_too():
    names = dict(encoder_tensors(jax.tree.map(np.zeros_like, MODELS["bert"]), Names(prefix="bert.")))
    assert len(names) == 5 + 16 * 2 + 2 + 5


def test_memory_is_that_of_the_model_and_its_largest_tensor(tmp_path):
    config = replace(BERT, vocabulary=5000, width=192, feed_forward=600, heads=4, layers=4)
    model = random_encoder(config)
    write_encoder(tmp_path / "out", model, config)
    rewrite(
        tmp_path / "out",
        lambda w: w.update({"cls.predictions.decoder.weight": w["bert.embeddings.word_embeddings.weight"].copy()}),
    )
    size, largest = sum(x.nbytes for x in jax.tree.leaves(model)), model.embeddings.word.nbytes
    read_encoder(tmp_path / "out")  # what is imported and traced once
    tracemalloc.start()
    try:
        read_encoder(tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size + 1.5 * largest + 1e6, (peak, size, largest)
