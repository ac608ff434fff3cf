"""TensorFlow checkpoints in the layout of bert4keras and of Google, written by TensorFlow itself."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tensorflow = pytest.importorskip("tensorflow")

from pegasus_zh.t5.export import ExportConfig, export  # noqa: E402
from pegasus_zh.t5.huggingface import huggingface_tensors  # noqa: E402
from pegasus_zh.t5.load import SEMANTICS, load  # noqa: E402
from tests.pegasus_zh.t5.random_model import random_model  # noqa: E402
from tests.pegasus_zh.t5.test_load import CONFIG, MODEL, PEGASUS, SENTENCEPIECE, close, ours, same, theirs  # noqa: E402
from training.files.errors import DataError  # noqa: E402

ABOUT = {
    "hidden_act": "gelu",
    "hidden_size": CONFIG.width,
    "intermediate_size": CONFIG.feed_forward,
    "num_attention_heads": CONFIG.heads,
    "attention_head_size": CONFIG.head_size,
    "num_hidden_layers": CONFIG.layers,
    "vocab_size": CONFIG.vocabulary,
    "relative_attention_num_buckets": CONFIG.buckets,
    "hidden_dropout_prob": 0.2,
}
# bert4keras knows no other greatest distance than T5's.
WANTED = replace(CONFIG, max_distance=128, dropout=0.2, **SEMANTICS["bert4keras"])


def variables(model=MODEL, norm: str = "rms_norm", final: str = "rms_norm") -> dict[str, np.ndarray]:
    """By the published list of names, from those of transformers: [out, in] there, [in, out] here."""
    found = {}
    for name, x in huggingface_tensors(model):
        x, parts = np.array(x), name.split(".")
        match parts:
            case ["shared", _]:
                found["shared/embedding"] = x
            case ["lm_head", _]:
                found["decoder/logits/kernel"] = x.T
            case [stack, "final_layer_norm", _]:
                found[f"{stack}/{final}/scale"] = x
            case [stack, "block", i, "layer", j, *rest]:
                place = f"{stack}/block_{int(i):03d}/layer_{int(j):03d}"
                if rest[0] == "layer_norm":
                    found[f"{place}/{norm}/scale"] = x
                elif rest[0] == "DenseReluDense":
                    found[f"{place}/DenseReluDense/{rest[1]}/kernel"] = x.T
                else:
                    found[f"{place}/{rest[0]}/{rest[1]}"] = x.T
    return found


def save(folder: Path, found: dict, tokenizer=PEGASUS, about=ABOUT, name: str = "model.ckpt") -> Path:
    folder.mkdir(exist_ok=True)
    v1 = tensorflow.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for key, x in found.items():
            v1.get_variable(key, initializer=x)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / name), write_meta_graph=False, write_state=False)
    tokenizer.save(folder)
    if about:
        (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return save(tmp_path / "chinese_t5_pegasus", variables())


@pytest.mark.parametrize(
    "norms", [("rms_norm", "rms_norm"), ("layer_norm", "layer_norm"), ("layer_norm", "final_layer_norm")], ids=str
)
def test_t5_pegasus_is_imported_to_the_bit(tmp_path, norms):
    loaded = load(save(tmp_path / "model", variables(MODEL, *norms)))
    same(loaded.model, MODEL)
    assert loaded.config == WANTED and loaded.tokenizer.fingerprint == PEGASUS.fingerprint
    assert "TensorFlow checkpoint model.ckpt.index" in loaded.source
    assert loaded.source.endswith("gelu erf, scaled_output on, cross_bias on (vocab.txt: trained by bert4keras)")
    close(ours(loaded.model, loaded.config), theirs(MODEL, WANTED))


def test_google_checkpoints_need_no_config(tmp_path):
    config = replace(CONFIG, vocabulary=1216)
    model = random_model(config)
    found = variables(model, "layer_norm", "final_layer_norm")
    found |= {"global_step": np.int64(7), "shared/embedding_slot_vr": np.ones(3, np.float32)}
    folder = save(tmp_path / "mt5", found, SENTENCEPIECE, None, "model.ckpt-1000000")
    save(folder, variables(random_model(config, 1)), SENTENCEPIECE, None, "model.ckpt-20")
    with pytest.raises(DataError, match="2 checkpoints .*; name one by --step"):
        load(folder)
    loaded = load(folder, step=1_000_000)
    same(loaded.model, model)
    assert loaded.config == replace(config, max_distance=128, dropout=0.1)
    assert loaded.source.endswith("cross_bias off (spiece.model: Google's own weights)")
    (folder / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-20"\n')
    same(load(folder).model, random_model(config, 1))


def test_export(folder, tmp_path):
    out = export(ExportConfig(model=str(folder), folder=str(tmp_path / "out"), without_cross_bias=True))
    loaded = load(out)
    assert loaded.config == replace(WANTED, scaled_output=False, cross_bias=False)
    close(ours(loaded.model, loaded.config), theirs(MODEL, replace(WANTED, cross_bias=False)))


def cut(end: str, keep: float):
    def damage(folder: Path):
        (file,) = folder.glob(f"*{end}")
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content))])

    return damage


def saved(change):
    def damage(folder: Path):
        found = variables()
        change(found)
        save(folder, found)

    return damage


def about(**values):
    return lambda folder: (folder / "config.json").write_text(json.dumps(ABOUT | values))


QUERY = "decoder/block_001/layer_001/EncDecAttention/q"
BROKEN = {
    "cut index": (cut(".index", 0.5), "model.ckpt.index: not a whole checkpoint"),
    "cut data": (cut(".data-00000-of-00001", 0.5), r"model.ckpt.index: '.*' cannot be read"),
    "no data": (lambda folder: next(folder.glob("*.data*")).unlink(), r"model.ckpt.index: '.*' cannot be read"),
    "missing": (saved(lambda w: w.pop(QUERY)), f"model.ckpt.index: no tensor '{QUERY}'"),
    "no norm": (saved(lambda w: w.pop("encoder/rms_norm/scale")), "no tensor 'encoder/rms_norm/scale'"),
    "superfluous": (saved(lambda w: w.update(extra=w[QUERY])), "model.ckpt.index: a tensor 'extra', which"),
    "transposed": (
        saved(lambda w: w.update({QUERY: w[QUERY].T})),
        rf"'{QUERY}' has the shape \(24, 16\), and \(16, 24\)",
    ),
    "other shape": (about(intermediate_size=21), r"wi_0/kernel' has the shape \(16, 20\), and \(16, 21\)"),
    "more layers": (about(num_hidden_layers=3), "no tensor 'encoder/block_002/"),
    "dropout": (about(dropout_rate="0.1"), "config.json: the rate of dropout is '0.1'"),
    "no size": (about(hidden_size=None), "config.json: hidden_size is null"),
    "layers": (about(num_hidden_layers=10**9), "config.json: num_hidden_layers is 1000000000"),
    "buckets": (about(relative_attention_num_buckets=2), "config.json: buckets is 2: it must be 4 or more; give the"),
    "tokenizer": (lambda folder: SENTENCEPIECE.save(folder), "holds both vocab.txt and spiece.model"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_checkpoints(folder, kind):
    damage, message = BROKEN[kind]
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        export(ExportConfig(model=str(folder), folder=str(folder.parent / "out")))
    assert "\n" not in str(error.value)
    assert not (folder.parent / "out").exists()
