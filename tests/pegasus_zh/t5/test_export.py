"""Export: names, shapes and values, any mesh and any step, damaged checkpoints, tokenizer files, all or nothing."""

import dataclasses
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import sentencepiece
import tokenizers
from safetensors import numpy as safetensors

from pegasus_zh.t5.export import ExportConfig, export
from pegasus_zh.t5.huggingface import huggingface_tensors, write_folder
from pegasus_zh.t5.load import run_init
from pegasus_zh.t5.mt5 import MT5Config, init
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece
from scripts.export import main
from tests.pegasus_zh.t5.random_model import TINY, on_mesh, random_model
from training.checkpoints import Checkpoints, read_model
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.step import TrainState, init_state

LINES = (Path(__file__).parents[2] / "goldens" / "lines.txt").read_text(encoding="utf-8").split("\n")
CONFIG = replace(TINY, vocabulary=160, dropout=0.1)
MODEL = random_model(CONFIG)
TOKENIZER = PegasusTokenizer(SPECIALS + list("，。今天气不错我们"))


@jax.jit
def state_of(model, step: int) -> TrainState:
    return init_state(lambda _: model, optax.adamw(1e-3), seed=0).replace(step=step)


def save_run(folder: Path, models: dict, config: MT5Config = CONFIG, tokenizer=TOKENIZER) -> Path:
    """What a training leaves behind: its checkpoints by step, with their optimizer, and the data's tokenizer."""
    tokenizer.save(folder / "tokenizer")
    about = {"model": dataclasses.asdict(config), "tokenizer": tokenizer.fingerprint, "preset": "tiny"}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for step, model in models.items():
            checkpoints.save(state_of(model, step), about)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with checkpoints of the steps 5 and 10."""
    other = jax.tree.map(lambda x: x + 1, MODEL)
    return save_run(tmp_path_factory.mktemp("saved") / "run", {5: other, 10: MODEL})


@pytest.fixture
def run(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))


def to(run: Path, **options) -> ExportConfig:
    return ExportConfig(model=str(run), folder=str(run.parent / "out"), **options)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.load_file(folder / "model.safetensors")


def damage(run: Path, step: int) -> None:
    """One bit of the largest file of a checkpoint."""
    largest = max((run / "checkpoints" / str(step)).rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_names_shapes_and_values_of_transformers(run, said):
    out = export(to(run))
    found = weights(out)
    # Some arrays by name: [out, in] there, [in, out] here.
    c, inner = CONFIG, CONFIG.heads * CONFIG.head_size
    expected = {
        "shared.weight": ((c.vocabulary, c.width), MODEL.embedding),
        "lm_head.weight": ((c.vocabulary, c.width), MODEL.head.T),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            (c.buckets, c.heads),
            MODEL.encoder.relative_bias,
        ),
        "encoder.block.1.layer.0.SelfAttention.q.weight": (
            (inner, c.width),
            MODEL.encoder.blocks.self_attention.query[1].T,
        ),
        "encoder.block.0.layer.1.layer_norm.weight": ((c.width,), MODEL.encoder.blocks.feed_forward_norm[0]),
        "decoder.block.1.layer.1.EncDecAttention.o.weight": (
            (c.width, inner),
            MODEL.decoder.blocks.cross_attention.output[1].T,
        ),
        "decoder.block.0.layer.2.DenseReluDense.wi_0.weight": (
            (c.feed_forward, c.width),
            MODEL.decoder.blocks.feed_forward.gate[0].T,
        ),
        "decoder.final_layer_norm.weight": ((c.width,), MODEL.decoder.final_norm),
    }
    for name, (shape, values) in expected.items():
        assert found[name].shape == shape and found[name].dtype == np.float32, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    # 9 arrays an encoder layer, 14 a decoder layer, 6 outside them.
    assert len(found) == c.layers * (9 + 14) + 6
    assert sum(x.size for x in found.values()) == sum(x.size for x in jax.tree.leaves(MODEL))
    kinds = {re.sub(r"block\.\d", "block.N", name) for name in found}
    assert {k for k in kinds if "EncDec" in k} == {
        f"decoder.block.N.layer.1.EncDecAttention.{x}.weight" for x in "qkvo"
    }
    assert said[2:] == [
        "from transformers import AutoTokenizer, MT5ForConditionalGeneration",
        f"tokenizer = AutoTokenizer.from_pretrained('{out}')",
        f"model = MT5ForConditionalGeneration.from_pretrained('{out}')",
    ]
    assert [path.name for path in out.parent.iterdir() if path.name not in ("out", "run")] == []


def test_configuration(run):
    out = export(to(run / "checkpoints"))  # the checkpoints folder will do, too
    config, generation = (json.loads((out / f"{name}.json").read_text()) for name in ("config", "generation_config"))
    ids = {"decoder_start_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    assert generation == ids | {"max_length": 128, "suppress_tokens": [0]}
    assert config.items() >= ids.items()
    names = {"d_model": "width", "d_kv": "head_size", "d_ff": "feed_forward", "num_heads": "heads"}
    names |= {"num_layers": "layers", "num_decoder_layers": "layers", "vocab_size": "vocabulary"}
    names |= {"relative_attention_num_buckets": "buckets", "relative_attention_max_distance": "max_distance"}
    names |= {"dropout_rate": "dropout", "layer_norm_epsilon": "epsilon"}
    assert {name: config[name] for name in names} == {name: getattr(CONFIG, ours) for name, ours in names.items()}
    assert config["feed_forward_proj"] == "gated-gelu" and config["tie_word_embeddings"] is False


def test_bfloat16_is_rounded(run):
    found = weights(export(to(run, dtype="bfloat16")))
    for name, wanted in huggingface_tensors(MODEL):
        assert found[name].dtype == "bfloat16"
        np.testing.assert_array_equal(found[name], np.asarray(wanted).astype("bfloat16"))


def test_a_step_can_be_chosen(run):
    np.testing.assert_array_equal(weights(export(to(run, step=5)))["shared.weight"], MODEL.embedding + 1)
    with pytest.raises(DataError, match=r"no checkpoint of step 7; it has the steps \[5, 10\]"):
        read_model(run, run_init, 7)


def test_what_computed_attention_in_the_training_may_be_gone(tmp_path):
    about = {"model": dataclasses.asdict(CONFIG) | {"attention": "splash"}}
    wanted, found = (jax.eval_shape(x, jax.random.key(0)) for x in (partial(init, CONFIG), run_init(about, tmp_path)))
    assert found == wanted


def test_a_damaged_checkpoint_is_passed_over_or_refused(run, said):
    damage(run, 10)
    step, about, model = read_model(run, run_init)
    assert step == 5 and MT5Config(**about["model"]) == CONFIG
    np.testing.assert_array_equal(model.embedding, MODEL.embedding + 1)
    assert len(said) == 1 and "10: damaged checkpoint" in said[0]
    with pytest.raises(DataError, match="10: damaged checkpoint"):
        read_model(run, run_init, 10)
    damage(run, 5)
    with pytest.raises(DataError, match="no undamaged checkpoint here"):
        read_model(run, run_init)


def test_a_checkpoint_without_numbers_is_refused(tmp_path):
    broken = jax.tree.map(np.array, MODEL)
    broken.decoder.final_norm[3] = np.inf
    run = save_run(tmp_path / "run", {4: broken})
    with pytest.raises(DataError, match=r"4: 'decoder.final_norm' has 1 values that are no finite .* first at \[3\]"):
        read_model(run, run_init)


def test_a_model_cut_over_a_mesh_is_exported_without_it(tmp_path):
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])):
        run = save_run(tmp_path / "run", {1: on_mesh(MODEL, CONFIG)})
    found = weights(export(to(run)))
    for name, wanted in huggingface_tensors(MODEL):
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)


def test_reading_leaves_what_a_training_is_writing(run):
    unfinished = run / "checkpoints" / "15.orbax-checkpoint-tmp"
    shutil.copytree(run / "checkpoints" / "10", unfinished)
    before = sorted(path for path in (run / "checkpoints").rglob("*"))
    assert read_model(run, run_init)[0] == 10
    assert sorted(path for path in (run / "checkpoints").rglob("*")) == before


def test_a_folder_without_checkpoints_is_refused_and_not_made(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        read_model(tmp_path / "missing", run_init, None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no undamaged checkpoint here"):
        read_model(tmp_path, run_init, None)


def test_other_checkpoints_and_tokenizers_are_refused(run):
    PegasusTokenizer(SPECIALS).save(run / "tokenizer")
    with pytest.raises(DataError, match="not the tokenizer that the checkpoint was trained with"):
        export(to(run))
    with Checkpoints(run / "checkpoints") as checkpoints:
        state = init_state(lambda _: {"weight": np.ones(3, np.float32)}, optax.sgd(1e-3), seed=0)
        checkpoints.save(state.replace(step=state.step + 20), {"critic": {}})
    with pytest.raises(DataError, match="20: not a checkpoint of an mT5"):
        export(to(run))
    assert not (run.parent / "out").exists()


def test_only_an_earlier_export_is_replaced(run):
    out = export(to(run, step=5))
    with pytest.raises(DataError, match="exists already; add --overwrite"):
        export(to(run))
    np.testing.assert_array_equal(weights(out)["shared.weight"], MODEL.embedding + 1)
    export(to(run, overwrite=True))
    np.testing.assert_array_equal(weights(out)["shared.weight"], MODEL.embedding)
    (out / "config.json").unlink()
    with pytest.raises(DataError, match="exists and is not an export"):
        export(to(run, overwrite=True))
    assert (out / "model.safetensors").exists()


def byte_pair_model() -> SentencePieceTokenizer:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        vocab_size=900,
        hard_vocab_limit=False,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    write = partial(write_folder, tmp_path / "out", MODEL, CONFIG)
    with pytest.raises(DataError, match="not a unigram one"):
        write(byte_pair_model())
    assert list(tmp_path.iterdir()) == []
    write(TOKENIZER)
    with pytest.raises(DataError, match="not a unigram one"):
        write(byte_pair_model(), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert load_tokenizer(tmp_path / "out").fingerprint == TOKENIZER.fingerprint


def test_tokenizer_files_of_pegasus(tmp_path):
    write_folder(tmp_path / "out", MODEL, CONFIG, TOKENIZER)
    assert load_tokenizer(tmp_path / "out").fingerprint == TOKENIZER.fingerprint
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert fast.get_vocab() == {token: i for i, token in enumerate(TOKENIZER.vocabulary)}
    about = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert about["tokenizer_class"] == "RoFormerTokenizer" and about["cls_token"] == "[CLS]"


def test_tokenizer_files_of_sentencepiece(tmp_path):
    tokenizer = SentencePieceTokenizer(train_sentencepiece(LINES, 1200))
    write_folder(tmp_path / "out", MODEL, CONFIG, tokenizer)
    assert load_tokenizer(tmp_path / "out").fingerprint == tokenizer.fingerprint
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for line in [*LINES, "㊗️ 未见過的字符 \u3000 ¼", "  a   b  "]:
        ids = tokenizer.encode(line)
        assert fast.encode(line).ids == tokenizer.frame_source(ids, 1000), line
        assert fast.decode(ids) == tokenizer.decode(ids)
    about = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (about["pad_token"], about["eos_token"], about["unk_token"]) == ("<pad>", "</s>", "<unk>")


def test_the_script(run, monkeypatch, shown):
    monkeypatch.setattr(
        sys, "argv", ["export", "--model", str(run), "--folder", str(run.parent / "out"), "--step", "10"]
    )
    main()
    assert "from transformers import" in shown.readouterr().out
    with pytest.raises(DataError, match="--overwrite"):
        main()


def test_the_checkpoint_must_have_the_shapes_of_its_config(run):
    with Checkpoints(run / "checkpoints", keep=None) as checkpoints:
        other = jax.eval_shape(partial(init, replace(CONFIG, width=32)), jax.random.key(0))
        with pytest.raises(ValueError, match="another model"):
            checkpoints.restore_model(10, other)


@pytest.mark.parametrize(
    "given, said",
    [
        ({}, r"--onnx needs jax2onnx: pip install 'pegasus-zh\[onnx\]'"),
        ({"stablehlo": True}, "instead of --stablehlo"),
        ({"dtype": "bfloat16"}, "--onnx is of float32"),
        ({"onnx": (0, 8)}, "lengths of source and target, each 1 or more"),
        ({"overwrite": True}, "--onnx keeps the model as it is, in a new folder"),
    ],
    ids=str,
)
def test_onnx_is_refused_before_anything_is_read(given, said, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(DataError, match=said):
        export(ExportConfig(**{"model": "nowhere", "folder": str(tmp_path / "out"), "onnx": (16, 8)} | given))
