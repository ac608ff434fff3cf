"""Loading: switches against a plain reference, every source and type of weights, every kind of broken folder."""

import json
import shutil
import sys
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from pegasus_zh.t5.export import ExportConfig, export
from pegasus_zh.t5.huggingface import huggingface_tensors, write_folder
from pegasus_zh.t5.load import SEMANTICS, load
from pegasus_zh.t5.mt5 import MT5Config, decode, encode, init, logits
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece
from tests.pegasus_zh.t5.random_model import TINY, random_model, random_pairs, rows
from tests.pegasus_zh.t5.reference_t5 import reference_logits
from tests.pegasus_zh.t5.test_export import save_run
from training.files.errors import DataError
from training.files.weights import hollow

CONFIG = replace(TINY, vocabulary=128)
MODEL = random_model(CONFIG, seed=5)
PEGASUS = PegasusTokenizer([*SPECIALS, *"，。今天气不错我们", "今天"])
LINES = (Path(__file__).parents[2] / "goldens" / "lines.txt").read_text(encoding="utf-8").split("\n")
SENTENCEPIECE = SentencePieceTokenizer(train_sentencepiece(LINES, 1200))
PAIRS = random_pairs(3, CONFIG, seed=6, source=24, target=16)


@partial(jax.jit, static_argnames="config")
def compute(model, batch, config: MT5Config):
    encoded = encode(model, batch["source"], batch["source_segments"], config)
    hidden = decode(model, batch["target_inputs"], batch["target_segments"], encoded, batch["source_segments"], config)
    return logits(model, hidden, config)


def ours(model, config: MT5Config) -> list[np.ndarray]:
    """The logits of each pair, from rows with padding on both sides."""
    found = np.asarray(compute(model, rows([[pair] for pair in PAIRS], 28, 20), config=config))
    return [x[: len(target)] for x, (_, target) in zip(found, PAIRS, strict=True)]


def theirs(model, config: MT5Config) -> list[np.ndarray]:
    weights, batch = dict(huggingface_tensors(model)), rows([[pair] for pair in PAIRS], 28, 20)
    return [
        reference_logits(weights, config, source.tolist(), inputs[: len(target)].tolist())
        for (source, target), inputs in zip(PAIRS, batch["target_inputs"], strict=True)
    ]


def close(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for x, y in zip(found, wanted, strict=True):
        assert np.abs(x - y).max() < 5e-6 * np.abs(y).max()


def same(found, wanted) -> None:
    """Every array, to the bit."""
    for (name, x), (_, y) in zip(huggingface_tensors(found), huggingface_tensors(wanted), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.fixture
def folder(tmp_path) -> Path:
    write_folder(tmp_path / "model", MODEL, CONFIG, PEGASUS)
    return tmp_path / "model"


LENGTH = "; generation_config.json has max_length 128, which only flags set here)"  # of our own it is not told


def edit(folder: Path, **values) -> None:
    """Sets keys of config.json; None removes one."""
    about = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({k: v for k, v in about.items() if v is not None}))


def rewrite(folder: Path, change) -> None:
    """The weights after `change` of their dictionary, in place."""
    weights = safetensors.load_file(folder / "model.safetensors")
    change(weights)
    safetensors.save_file(weights, folder / "model.safetensors")


def shard(folder: Path) -> None:
    """Three files and an index instead of one, as transformers writes large models."""
    weights = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{i % 3 + 1:05d}-of-00003.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        safetensors.save_file({k: x for k, x in weights.items() if places[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize(
    "switches",
    [SEMANTICS["mt5"], SEMANTICS["bert4keras"], {"gelu": "erf"}, {"scaled_output": True}, {"cross_bias": True}],
    ids=str,
)
def test_the_switches_are_what_bert4keras_computes(switches):
    config = replace(CONFIG, **switches)
    wanted = theirs(MODEL, config)
    close(ours(MODEL, config), wanted)
    if config != CONFIG:  # and each of them matters, the kind of GELU least
        for x, y in zip(ours(MODEL, CONFIG), wanted, strict=True):
            assert np.abs(x - y).max() > 2e-5 * np.abs(y).max()


def test_what_we_write_loads_to_the_bit(folder):
    loaded = load(folder)
    same(loaded.model, MODEL)
    assert loaded.config == CONFIG and loaded.tokenizer.fingerprint == PEGASUS.fingerprint
    assert loaded.source == (
        f"{folder}: mt5 in float32 of model.safetensors, 0.0M parameters; gelu tanh, scaled_output off, cross_bias off "
        "(by pegasus_zh in config.json)"
    )


@pytest.mark.parametrize("switches", [{"gelu": "erf", "scaled_output": True}, {"scaled_output": True}], ids=str)
def test_what_transformers_has_no_switch_for_is_in_the_weights(tmp_path, switches):
    config = replace(CONFIG, **switches)
    write_folder(tmp_path / "model", MODEL, config, PEGASUS)
    loaded = load(tmp_path / "model")
    assert loaded.config == replace(config, scaled_output=False)
    close(ours(loaded.model, loaded.config), theirs(MODEL, config))


@pytest.mark.parametrize(("layers", "decoder_layers"), [(1, 3), (3, 1)])
def test_stacks_of_unequal_depth(tmp_path, layers, decoder_layers):
    config = replace(CONFIG, layers=layers, decoder_layers=decoder_layers)
    model = random_model(config, seed=9)
    close(ours(model, config), theirs(model, config))
    write_folder(tmp_path / "model", model, config, PEGASUS)
    loaded = load(tmp_path / "model")
    same(loaded.model, model)
    assert loaded.config == config
    run = save_run(tmp_path / "run", {1: model}, config, PEGASUS)
    assert load(run).config == config


def test_what_a_target_begins_and_ends_with_is_read_told_kept_and_exported(folder):
    edit(folder, decoder_start_token_id=5, eos_token_id=103)
    (folder / "generation_config.json").unlink()
    loaded = load(folder)
    assert (loaded.tokenizer.start_id, loaded.tokenizer.eos_id, loaded.tokenizer.pad_id) == (5, 103, 0)
    assert loaded.source.endswith("(by pegasus_zh in config.json; starts with 5, ends with 103, pads with 0)")
    run = save_run(folder.parent / "run", {1: loaded.model}, loaded.config, loaded.tokenizer)
    for source in (folder, run):
        out = export(ExportConfig(model=str(source), folder=str(folder.parent / f"out {source.name}")))
        assert load(out).tokenizer.fingerprint == loaded.tokenizer.fingerprint
        for name in ("config.json", "generation_config.json"):
            about = json.loads((out / name).read_text())
            assert (about["decoder_start_token_id"], about["eos_token_id"], about["pad_token_id"]) == (5, 103, 0)


def test_a_cross_bias_is_given_up_only_when_asked(tmp_path, said):
    config = replace(CONFIG, **SEMANTICS["bert4keras"])
    run = save_run(tmp_path / "run", {1: MODEL}, config, PEGASUS)
    with pytest.raises(DataError, match="--without-cross-bias"):
        export(ExportConfig(model=str(run), folder=str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    said.clear()
    out = export(ExportConfig(model=str(run), folder=str(tmp_path / "out"), without_cross_bias=True))
    assert "cross_bias on (as it was trained)" in said[0]
    assert "the scale of the output is in lm_head; the cross-attention's bias is left out" in said[1]
    loaded = load(out)
    assert loaded.config == replace(CONFIG, gelu="erf")
    close(ours(loaded.model, loaded.config), theirs(MODEL, replace(config, cross_bias=False)))
    # An export is a source like any other, to the bit.
    again = export(ExportConfig(model=str(out), folder=str(tmp_path / "again")))
    same(load(again).model, loaded.model)
    assert (again / "config.json").read_text() == (out / "config.json").read_text()


def test_a_port_of_t5_pegasus_is_known_by_its_vocabulary(folder):
    edit(folder, pegasus_zh=None)
    loaded = load(folder)
    assert loaded.config == replace(CONFIG, **SEMANTICS["bert4keras"])
    assert loaded.source.endswith(f"on (vocab.txt has words of jieba such as 今天: a port of T5-PEGASUS{LENGTH}")
    assert load(folder, semantics="mt5").config == CONFIG
    edit(folder, pegasus_zh={"cross_bias": True})
    assert load(folder).config == replace(CONFIG, cross_bias=True)
    assert load(folder, semantics="bert4keras").source.endswith("(as asked for: bert4keras)")


def test_a_vocabulary_of_characters_is_uers_or_is_asked_about(folder):
    """Of the same layout of files as T5-PEGASUS's ports, with the arithmetic of mT5."""
    edit(folder, pegasus_zh=None)
    (folder / "tokenizer.json").unlink()
    characters = [*SPECIALS, *"，。今天气不错我们"]
    for vocabulary in (["extra0" if token == "[unused1]" else token for token in characters], [*characters, "extra0"]):
        PegasusTokenizer(vocabulary).save(folder)
        loaded = load(folder)
        assert loaded.config == CONFIG and loaded.source.endswith(
            f"(by config.json; vocab.txt has extra0: UER's T5{LENGTH}"
        )
        assert load(folder, semantics="bert4keras").config == replace(CONFIG, **SEMANTICS["bert4keras"])
    for vocabulary, said in ((characters, "neither words"), ([*characters, "今天", "extra0"], "both words")):
        PegasusTokenizer(vocabulary).save(folder)
        with pytest.raises(DataError, match=rf"vocab.txt: {said} .* UER's T5 has: say .*: --semantics mt5 or bert4"):
            load(folder)
        assert load(folder, semantics="mt5").config == CONFIG
        edit(folder, pegasus_zh={"cross_bias": True})
        assert load(folder).config == replace(CONFIG, cross_bias=True)
        edit(folder, pegasus_zh=None)


def test_google_models_are_as_their_config_says(tmp_path):
    config = replace(CONFIG, vocabulary=1216)
    write_folder(tmp_path, random_model(config), config, SENTENCEPIECE)
    edit(tmp_path, pegasus_zh=None)
    assert load(tmp_path).config == config and load(tmp_path).source.endswith(f"(by config.json{LENGTH}")
    # transformers 5 writes tie_word_embeddings: true for mT5 and for T5 v1.1, whatever they are.
    edit(tmp_path, tie_word_embeddings=True, dense_act_fn="gelu_new")
    assert load(tmp_path).config == config
    edit(tmp_path, dense_act_fn=None, feed_forward_proj="gated-gelu_python")
    assert load(tmp_path).config == replace(config, gelu="erf")
    edit(tmp_path, dense_act_fn="gelu_new")  # which transformers prefers
    assert load(tmp_path).config == config
    edit(tmp_path, feed_forward_proj="gated-gelu")
    edit(tmp_path, model_type="t5", scale_decoder_outputs=False)
    assert load(tmp_path).config == config
    edit(tmp_path, scale_decoder_outputs=None)
    assert load(tmp_path).config == replace(config, scaled_output=True)
    edit(tmp_path, tie_word_embeddings=False, relative_attention_max_distance=None, dense_act_fn=None)
    assert load(tmp_path).config == replace(config, max_distance=128)


def test_a_tied_head_is_the_embedding(tmp_path):
    """As transformers 5 makes an mT5 anew: one array for both, and no word of a head."""
    config = replace(CONFIG, vocabulary=1216)
    write_folder(tmp_path, random_model(config), config, SENTENCEPIECE)
    edit(tmp_path, pegasus_zh=None, tie_word_embeddings=True)
    rewrite(tmp_path, lambda w: w.pop("lm_head.weight"))
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.model.head, loaded.model.embedding.T)
    assert "mt5, its head the embedding, in float32" in loaded.source
    edit(tmp_path, tie_word_embeddings=None)  # and mT5's own default, of transformers 4, is two arrays
    with pytest.raises(DataError, match="no tensor 'lm_head.weight'"):
        load(tmp_path)
    edit(tmp_path, model_type="t5")  # T5's is one
    assert load(tmp_path).config == replace(config, scaled_output=True)


def test_a_config_without_model_type_is_understood_by_class_or_tensors(folder):
    edit(folder, model_type=None, architectures=None)
    assert load(folder).config == CONFIG
    rewrite(folder, lambda w: w.pop("lm_head.weight"))
    with pytest.raises(DataError, match='config.json: no model_type, .* add "model_type": "mt5" or "t5"'):
        load(folder)
    edit(folder, architectures=["MT5ForConditionalGeneration"], tie_word_embeddings=True)
    assert load(folder).config == CONFIG
    edit(folder, architectures=["T5ForConditionalGeneration"], feed_forward_proj="gated-gelu", pegasus_zh=None)
    assert load(folder, semantics="mt5").config == CONFIG
    edit(folder, architectures=None, feed_forward_proj=None)
    rewrite(folder, lambda w: [w.pop(name) for name in list(w) if "wi_" in name])
    with pytest.raises(DataError, match="feed_forward_proj is 'relu', a T5 before v1.1"):
        load(folder)
    rewrite(folder, lambda w: w.pop("shared.weight"))
    with pytest.raises(DataError, match="no model_type, and no tensor 'shared.weight', which every T5 has"):
        load(folder)


def test_names_of_a_wrapped_model(folder):
    def wrap(weights):
        for name in list(weights):
            weights[f"module.{name}"] = weights.pop(name)

    rewrite(folder, wrap)
    same(load(folder).model, MODEL)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_types_of_weights(folder, dtype):
    rounded = jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(np.float32), MODEL)
    rewrite(folder, lambda w: w.update({name: x.astype(dtype) for name, x in w.items()}))
    loaded = load(folder)
    same(loaded.model, rounded)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(loaded.model)) and f"in {dtype} of" in loaded.source


def test_shards(folder):
    shard(folder)
    loaded = load(folder)
    same(loaded.model, MODEL)
    assert "of model.safetensors.index.json" in loaded.source


def test_copies_of_the_embedding_and_an_unused_array_are_passed_over(folder):
    def add(weights):
        weights["encoder.embed_tokens.weight"] = weights["shared.weight"].copy()
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        weights[unused] = np.ones((CONFIG.buckets, CONFIG.heads), np.float32)

    rewrite(folder, add)
    same(load(folder).model, MODEL)
    rewrite(folder, lambda w: w["encoder.embed_tokens.weight"].__setitem__((3, 4), 7))
    with pytest.raises(DataError, match=r"'encoder.embed_tokens.weight' is not shared.weight again"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("relative_attention_max_distance", 2, "max_distance is 2: it must be above half of the .* buckets"),
        ("dropout_rate", 2.0, "dropout is 2.0: it must be"),
    ],
)
def test_a_config_that_cannot_be_is_named(folder, key, value, message):
    edit(folder, **{key: value})
    with pytest.raises(DataError, match=f"config.json: {message}.*; give the config.json that belongs to"):
        load(folder)


def test_a_search_that_a_folder_asks_for_is_told(folder):
    file = folder / "generation_config.json"
    about = json.loads(file.read_text())
    usual = {"num_beams": 1, "length_penalty": 1.0, "do_sample": False, "bad_words_ids": None}
    file.write_text(json.dumps(about | usual))
    assert load(folder).source.endswith(")") and "generation_config" not in load(folder).source
    file.write_text(json.dumps(about | usual | {"num_beams": 4, "length_penalty": 0.6, "do_sample": True}))
    told = "generation_config.json has num_beams 4, do_sample true, length_penalty 0.6, which only flags set here)"
    assert load(folder).source.endswith(told)
    file.write_text(
        json.dumps(about | usual | {"max_length": 84, "forced_eos_token_id": 1, "sequence_bias": [[[5], 9]]})
    )
    told = "generation_config.json has max_length 84, forced_eos_token_id 1, sequence_bias [[[5], 9]], which only flags"
    assert told in load(folder).source
    file.unlink()  # as folders of earlier releases have it, which transformers heeds too
    edit(folder, num_beams=4, suppress_tokens=[0, 7])
    loaded = load(folder)
    assert "config.json has num_beams 4, which only flags set here" in loaded.source and loaded.suppressed == (7,)


def test_an_encoder_alone_is_named(folder):
    edit(folder, architectures=["T5EncoderModel"])

    def cut(weights):
        for name in [name for name in weights if not name.startswith(("shared.", "encoder."))]:
            del weights[name]

    rewrite(folder, cut)
    with pytest.raises(DataError, match=r"model.safetensors: an encoder alone .T5EncoderModel.: no decoder"):
        load(folder)


def test_weights_that_are_not_read_are_named(folder):
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")
    with pytest.raises(DataError, match="weights in flax_model.msgpack, but neither model.safetensors nor"):
        load(folder)


def test_weights_of_keras_are_named(folder):
    (folder / "model.safetensors").rename(folder / "best_model.weights")
    with pytest.raises(DataError, match="weights of Keras in best_model.weights, which are read of encoders alone"):
        load(folder)


def test_ids_that_are_never_written(folder, tmp_path):
    assert load(folder).suppressed == ()
    write_folder(tmp_path / "tuned", MODEL, CONFIG, PEGASUS, suppressed=(7, 9))
    assert load(tmp_path / "tuned").suppressed == (7, 9)
    export(ExportConfig(model=str(tmp_path / "tuned"), folder=str(tmp_path / "again"), semantics="mt5"))
    file = tmp_path / "again" / "generation_config.json"
    about = json.loads(file.read_text())
    assert about["suppress_tokens"] == [0, 7, 9]
    for wrong in ([128], ["7"], 7, [True]):
        file.write_text(json.dumps(about | {"suppress_tokens": wrong}))
        with pytest.raises(
            DataError, match="generation_config.json: suppress_tokens is .*: give a list of ids below 128"
        ):
            load(tmp_path / "again")
    for none in (None, []):
        file.write_text(json.dumps(about | {"suppress_tokens": none}))
        assert load(tmp_path / "again").suppressed == ()
    file.unlink()
    assert load(tmp_path / "again").suppressed == ()


def test_a_run(tmp_path):
    run = save_run(tmp_path / "run", {1: jax.tree.map(lambda x: x + 1, MODEL), 2: MODEL}, CONFIG, PEGASUS)
    loaded = load(run)
    same(loaded.model, MODEL)
    assert loaded.config == CONFIG and "step 2 of a run" in loaded.source
    same(load(run / "checkpoints", step=1).model, jax.tree.map(lambda x: x + 1, MODEL))
    assert load(run, semantics="bert4keras").config == replace(CONFIG, **SEMANTICS["bert4keras"])


def test_memory_is_that_of_the_model_and_its_largest_tensor(tmp_path):
    config = MT5Config(vocabulary=4000, width=192, feed_forward=512, heads=4, head_size=32, layers=6)
    model = jax.tree.map(lambda x: np.arange(x.size, dtype=np.float32).reshape(x.shape), hollow(partial(init, config)))
    tokenizer = PegasusTokenizer([*SPECIALS, *map(chr, range(0x4E00, 0x4E00 + 3890))])
    write_folder(tmp_path / "model", model, config, tokenizer)
    size, largest = sum(x.nbytes for x in jax.tree.leaves(model)), model.embedding.nbytes
    load(tmp_path / "model")  # what is imported and traced once
    tracemalloc.start()
    try:
        loaded = load(tmp_path / "model")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    same(loaded.model, model)
    assert peak < size + 1.5 * largest + 2e6, (peak, size, largest)  # 2 MB: the tokenizer


def cut(name: str, keep: float):
    """Leaves the first part of a file."""

    def damage(folder: Path):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return damage


def weights_with(change):
    return lambda folder: rewrite(folder, change)


def config_with(**values):
    return lambda folder: edit(folder, **values)


def without(pattern: str):
    """Shards the weights, then removes what matches."""

    def damage(folder: Path):
        shard(folder)
        for file in folder.glob(pattern):
            file.unlink()

    return damage


def stray_index(folder: Path):
    shard(folder)
    index = folder / "model.safetensors.index.json"
    about = json.loads(index.read_text())
    about["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(about))


def lying_index(folder: Path):
    shard(folder)
    shutil.copy(folder / "model-00002-of-00003.safetensors", folder / "model-00001-of-00003.safetensors")


def other_tokenizer(count: int):
    def change(folder: Path):
        (folder / "tokenizer.json").unlink()
        PegasusTokenizer([*SPECIALS, *map(chr, range(0x4E00, 0x4E00 + count))]).save(folder)

    return change


QUERY = "decoder.block.1.layer.1.EncDecAttention.q.weight"
BROKEN = {
    "no file": (lambda folder: (folder / "model.safetensors").unlink(), "no model here"),
    "no folder": (shutil.rmtree, "no such folder"),
    "truncated": (cut("model.safetensors", 0.6), r"model.safetensors: not a whole .safetensors file"),
    "empty": (cut("model.safetensors", 0), r"model.safetensors: not a whole .safetensors file"),
    "truncated header": (cut("model.safetensors", 0.01), r"model.safetensors: not a whole .safetensors file"),
    "missing": (weights_with(lambda w: w.pop(QUERY)), rf"model.safetensors: no tensor '{QUERY}'; the checkpoint"),
    "tied": (weights_with(lambda w: w.pop("lm_head.weight")), r"no tensor 'lm_head.weight'"),
    "no number": (
        weights_with(lambda w: w[QUERY].__setitem__((3, 5), np.nan)),
        rf"model.safetensors: '{QUERY}' has 1 values that are no finite numbers, the first at \[3, 5\]; its",
    ),
    "superfluous": (weights_with(lambda w: w.update(bias=w[QUERY])), r"model.safetensors: a tensor 'bias', which"),
    "more layers": (config_with(num_layers=1, num_decoder_layers=1), r"block.1.* and 22 more, which an mT5"),
    "fewer layers": (config_with(num_layers=3, num_decoder_layers=3), r"no tensor 'encoder.block.2.* and 22 more"),
    "wrong shape": (config_with(d_ff=21), r"wi_0.weight' has the shape \(20, 16\), and \(21, 16\) by its config"),
    "transposed": (
        weights_with(lambda w: w.update({QUERY: w[QUERY].T.copy()})),
        rf"'{QUERY}' has the shape \(16, 24\)",
    ),
    "integers": (
        weights_with(lambda w: w.update({QUERY: w[QUERY].astype(np.int8)})),
        rf"'{QUERY}' is I8; only float32",
    ),
    "fewer rows": (other_tokenizer(40), r"the embedding has 128 rows and the tokenizer 146 tokens"),
    "no tokenizer": (
        lambda folder: [(folder / name).unlink() for name in ("vocab.txt", "tokenizer.json")],
        r"holds neither vocab.txt nor spiece.model",
    ),
    "another tokenizer.json": (
        lambda folder: (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("天", "夭")),
        r"tokenizer.json: id \d+ is '天', and '夭' in vocab.txt",
    ),
    "a start without a row": (
        lambda folder: (folder / "generation_config.json").write_text('{"decoder_start_token_id": 128}'),
        r"start_token_id is 128, and the embedding has 128 rows",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config.json: no such file"),
    "cut config": (cut("config.json", 0.5), r"config.json: not JSON"),
    "config not an object": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json: not a JSON object",
    ),
    "other model": (config_with(model_type="umt5"), r"config.json: model_type is 'umt5'; only mt5 and t5"),
    "not gated": (config_with(feed_forward_proj="relu"), r"config.json: feed_forward_proj is 'relu'"),
    "other gate": (config_with(feed_forward_proj="gated-silu"), r"feed_forward_proj is 'gated-silu'"),
    "a shallower decoder": (config_with(num_decoder_layers=1), r"tensor 'decoder.block.1.* and 13 more, which an mT5"),
    "a million layers": (config_with(num_layers=1_000_000), "config.json: num_layers is 1000000; give the"),
    "depth in words": (config_with(num_decoder_layers="1"), r'config.json: num_decoder_layers is "1"'),
    "no size": (config_with(d_model=None), r"config.json: d_model is null"),
    "size in words": (config_with(num_heads="two"), r'config.json: num_heads is "two"'),
    "own key": (config_with(pegasus_zh={"gelu": "relu"}), r'pegasus_zh is {"gelu": "relu"}; it may hold gelu: "tanh"'),
    "no shard": (without("model-00002*"), r"model-00002-of-00003.safetensors: no such file"),
    "shard elsewhere": (stray_index, r"index.json: no weight_map from tensors to the names of files beside it"),
    "other shard": (lying_index, r"model-00001-of-00003.safetensors: no tensor"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_folders(folder, kind):
    damage, message = BROKEN[kind]
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        export(ExportConfig(model=str(folder), folder=str(folder.parent / "out")))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert not (folder.parent / "out").exists()


def test_a_larger_vocabulary_than_its_tokenizers_by_padding_alone(tmp_path):
    config = replace(CONFIG, vocabulary=480)
    write_folder(tmp_path / "model", random_model(config), config, PEGASUS)
    with pytest.raises(DataError, match="480 rows and the tokenizer 116 tokens"):
        load(tmp_path / "model")


def test_a_step_is_of_runs_and_tensorflow(folder):
    with pytest.raises(DataError, match="leave out --step"):
        load(folder, step=3)


@pytest.mark.parametrize(("name", "file"), [("torch", "pytorch_model.bin"), ("tensorflow", "model.ckpt.index")])
def test_libraries_that_are_not_there(folder, monkeypatch, name, file):
    (folder / "model.safetensors").replace(folder / file)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=f"{file}: .*pip install {name}"):
        load(folder)
