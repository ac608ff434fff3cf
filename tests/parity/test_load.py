"""Loading what transformers and torch write, and transformers loading what we write: the same logits both ways."""

import json
import pickle
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
from transformers.activations import GELUActivation

from pegasus_zh.t5.huggingface import huggingface_tensors, write_folder
from pegasus_zh.t5.load import SEMANTICS, Loaded, load
from pegasus_zh.t5.mt5 import decode, encode, logits
from tests.parity.reference import reference_outputs
from tests.pegasus_zh.t5.random_model import SHAPE, random_pairs, rows
from tests.pegasus_zh.t5.test_load import CONFIG, MODEL, PEGASUS, SENTENCEPIECE, close, theirs
from tests.pegasus_zh.t5.test_load import ours as ours_by_pair
from training.files.errors import DataError
from training.files.weights import open_weights

SIZES = {
    "vocab_size": 1216,
    "d_model": 16,
    "d_kv": 12,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}


@pytest.fixture(scope="module", params=["mt5", "t5 v1.1", "scaled t5"])
def saved(request, tmp_path_factory):
    """(torch's model with an untied head, random as a trained one is, its folder)."""
    torch.manual_seed(7)
    if request.param == "mt5":
        model = MT5ForConditionalGeneration(MT5Config(**SIZES))
    else:
        tied = None if request.param == "scaled t5" else False
        config = T5Config(
            **SIZES, feed_forward_proj="gated-gelu", **({} if tied is None else {"tie_word_embeddings": tied})
        )
        model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(1216, 16))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.mul_(torch.exp(0.3 * torch.randn_like(parameter)))
        elif "Attention" in name or "wi_0" in name:
            parameter.data.copy_(torch.randn_like(parameter) / 3)
    folder = tmp_path_factory.mktemp("saved")
    model.eval().save_pretrained(folder)
    SENTENCEPIECE.save(folder)
    return model, folder


def ours(loaded: Loaded, batch: dict) -> np.ndarray:
    c = loaded.config

    @jax.jit
    def compute(model, source, source_segments, target_inputs, target_segments, **_):
        encoded = encode(model, source, source_segments, c)
        return logits(model, decode(model, target_inputs, target_segments, encoded, source_segments, c), c)

    return np.asarray(compute(loaded.model, **batch))


def agree(loaded: Loaded, reference, tolerance: float = 1e-4) -> None:
    batch = rows([[pair] for pair in random_pairs(4, loaded.config, seed=8, source=40, target=30)], *SHAPE)
    real = batch["target_segments"] > 0
    with torch.no_grad():
        wanted = reference_outputs(reference, batch)[0].float().numpy()[real]
    assert np.abs(ours(loaded, batch)[real] - wanted).max() < tolerance * np.abs(wanted).max()


def identical(loaded: Loaded, reference) -> None:
    weights = reference.state_dict()
    for name, found in huggingface_tensors(loaded.model):
        np.testing.assert_array_equal(found, weights[name].float().numpy(), err_msg=name)


def test_safetensors(saved):
    model, folder = saved
    loaded = load(folder)
    identical(loaded, model)
    agree(loaded, model)
    assert loaded.config.scaled_output == getattr(model.config, "scale_decoder_outputs", False)


@pytest.mark.parametrize(
    ("kind", "settings"), [(MT5ForConditionalGeneration, MT5Config), (T5ForConditionalGeneration, T5Config)]
)
def test_a_tied_head(kind, settings, tmp_path):
    torch.manual_seed(8)
    model = kind(settings(**SIZES, feed_forward_proj="gated-gelu")).eval()
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in open_weights(tmp_path)[0]
    SENTENCEPIECE.save(tmp_path)
    agree(load(tmp_path), model)


def test_shards(saved, tmp_path):
    model, _ = saved
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    SENTENCEPIECE.save(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    identical(load(tmp_path), model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("shards", [1, 3])
def test_torch_files(saved, tmp_path, dtype, is_zip, shards):
    model, folder = saved
    weights = {name: x.to(dtype) for name, x in model.state_dict().items()}  # with its copies of the embedding
    assert "decoder.embed_tokens.weight" in weights
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    SENTENCEPIECE.save(tmp_path)
    files = (
        [f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin" for i in range(shards)]
        if shards > 1
        else ["pytorch_model.bin"]
    )
    places = {name: files[i % shards] for i, name in enumerate(weights)}
    for file in files:
        part = {name: x for name, x in weights.items() if places[name] == file}
        torch.save(part, tmp_path / file, _use_new_zipfile_serialization=is_zip)
    if shards > 1:
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = load(tmp_path)
    rounded = {name: x.float() for name, x in weights.items()}
    for name, found in huggingface_tensors(loaded.model):
        np.testing.assert_array_equal(found, rounded[name].numpy(), err_msg=name)
    for file in files:
        content = (tmp_path / file).read_bytes()
        for kept in (0, len(content) // 3, len(content) - 100):
            (tmp_path / file).write_bytes(content[:kept])
            with pytest.raises(DataError, match=f"{file}: (not a whole file of torch weights|'.*' cannot be read)"):
                load(tmp_path)
        (tmp_path / file).write_bytes(content)


class Surprise:
    def __reduce__(self):
        return print, ("code of a checkpoint has run",)


def test_a_pickle_that_holds_code_is_not_run(tmp_path, capsys):
    write_folder(tmp_path, MODEL, CONFIG, PEGASUS)
    (tmp_path / "model.safetensors").unlink()
    for content in ({"weight": Surprise()}, [torch.ones(2)], {"step": 3}):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(DataError, match="pytorch_model.bin: not a "):
            load(tmp_path)
    assert "has run" not in capsys.readouterr().out
    torch.save(MT5ForConditionalGeneration(MT5Config(**SIZES)), tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"bin: not a state dict but a pickle of .*MT5For\w+, which .*save_pretrained$"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Surprise()}))
    with pytest.raises(DataError, match="bin: not a state dict but a pickle of .*, which .* with save_pretrained$"):
        load(tmp_path)
    assert "has run" not in capsys.readouterr().out


def test_weights_that_were_saved_as_parameters(tmp_path):
    write_folder(tmp_path, MODEL, CONFIG, PEGASUS)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save({name: torch.nn.Parameter(x) for name, x in weights.items()}, tmp_path / "pytorch_model.bin")
    assert np.array_equal(load(tmp_path).model.embedding, MODEL.embedding)


@pytest.mark.parametrize(
    "switches", [{"gelu": "erf"}, {"scaled_output": True}, {"gelu": "erf", "scaled_output": True}], ids=str
)
def test_what_bert4keras_computes_is_what_transformers_computes_after_export(tmp_path, switches):
    config = replace(CONFIG, **switches)
    write_folder(tmp_path / "out", MODEL, config, PEGASUS)
    reference = MT5ForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    activation = reference.decoder.block[1].layer[2].DenseReluDense.act
    assert isinstance(activation, GELUActivation) == (config.gelu == "erf")
    batch = rows([[pair] for pair in random_pairs(3, CONFIG, seed=6, source=24, target=16)], 28, 20)
    with torch.no_grad():
        found = reference_outputs(reference, batch)[0].numpy()
    wanted = theirs(MODEL, config)
    close([x[: len(y)] for x, y in zip(found, wanted, strict=True)], wanted)
    # transformers keeps our key, so what it saves after fine-tuning is read rightly.
    reference.save_pretrained(tmp_path / "tuned")
    PEGASUS.save(tmp_path / "tuned")
    loaded = load(tmp_path / "tuned")
    assert loaded.config == replace(config, scaled_output=False)
    identical(loaded, reference)
    close(ours_by_pair(loaded.model, loaded.config), wanted)


def test_a_port_of_t5_pegasus(tmp_path):
    """mT5 of transformers beside a vocab.txt, as T5-PEGASUS is found: what bert4keras computes, not transformers."""
    write_folder(tmp_path / "out", MODEL, CONFIG, PEGASUS)
    reference = MT5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    del reference.config.pegasus_zh
    reference.save_pretrained(tmp_path / "port")
    PEGASUS.save(tmp_path / "port")
    loaded = load(tmp_path / "port")
    identical(loaded, reference)
    wanted = theirs(MODEL, replace(CONFIG, **SEMANTICS["bert4keras"]))
    close(ours_by_pair(loaded.model, loaded.config), wanted)
    agree(load(tmp_path / "port", semantics="mt5"), reference.eval())
