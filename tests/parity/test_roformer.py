"""RoFormer and BERT against transformers' in torch, from our folders and from theirs, to 1e-4 in float32."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import optax
import pytest
import torch
import transformers

from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from rope.encoder.huggingface import Names, encoder_tensors, read_encoder, write_encoder
from rope.encoder.roformer import encode, logits
from tests.rope.encoder.random_encoder import BERT, ROFORMER, outputs, random_encoder, random_rows

CASES = {
    "roformer": ROFORMER,
    "roformer unprojected, tanh": replace(ROFORMER, embedding=None, gelu="tanh", epsilon=1e-5),
    "bert": BERT,
    "bert, tanh": replace(BERT, gelu="tanh", epsilon=1e-5),
}
CLASSES = {
    "rotary": (transformers.RoFormerForMaskedLM, transformers.RoFormerModel),
    "learned": (transformers.BertForMaskedLM, transformers.BertModel),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(config, our model, its folder)."""
    config = CASES[request.param]
    model = random_encoder(config, seed=3)
    folder = tmp_path_factory.mktemp("export") / "model"
    write_encoder(folder, model, config)
    return config, model, folder


def close(found, wanted, rows, name: str = "") -> None:
    """Equal to 1e-4 of the largest element, where tokens are: padding sees other tokens there and none here."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if rows is not None and found.ndim == 3:
        found, wanted = (x[rows["segments"] > 0] for x in (found, wanted))
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert difference < 1e-4, f"{name}: {difference}"


def inputs(rows) -> dict[str, torch.Tensor]:
    names = {"input_ids": "ids", "attention_mask": "segments", "token_type_ids": "types"}
    return {theirs: torch.from_numpy(rows[ours]).long() for theirs, ours in names.items()}


def compare(found: dict, masked, plain, rows) -> None:
    with torch.no_grad():
        wanted = masked(**inputs(rows), output_hidden_states=True)
        close(found["logits"], wanted.logits, rows, "logits")
        close(found["hidden"], wanted.hidden_states[-1], rows, "hidden")
        close(found["first"], wanted.hidden_states[1], rows, "first")
        wanted = plain(**inputs(rows))
        close(found["hidden"], wanted.last_hidden_state, rows, "hidden of the plain model")
        if "pooled" in found and hasattr(wanted, "pooler_output"):
            close(found["pooled"], wanted.pooler_output, rows, "pooled")


def test_transformers_reads_what_we_write(case):
    config, model, folder = case
    masked, plain = CLASSES[config.positions]
    masked, about = masked.from_pretrained(folder, output_loading_info=True)
    passed_over = {f"{masked.base_model_prefix}.pooler.dense.{end}" for end in ("weight", "bias")}
    assert about.pop("unexpected_keys") == passed_over
    assert not any(about.values()), about
    loaded = masked.state_dict()
    for name, wanted in encoder_tensors(model, Names(prefix=f"{masked.base_model_prefix}.")):
        if name not in passed_over:
            np.testing.assert_array_equal(loaded[name].numpy(), wanted, err_msg=name)
    rows = random_rows(config)
    compare(outputs(model, rows, config), masked.eval(), plain.from_pretrained(folder).eval(), rows)


def test_a_model_without_a_head(case, tmp_path):
    config, model, _ = case
    config, model = replace(config, head=False), model.replace(head=None)
    write_encoder(tmp_path / "model", model, config)
    loaded, about = transformers.AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert type(loaded) is CLASSES[config.positions][1] and not about["missing_keys"]
    rows = random_rows(config)
    with torch.no_grad():
        wanted = loaded.eval()(**inputs(rows))
    found = outputs(model, rows, config)
    close(found["hidden"], wanted.last_hidden_state, rows, "hidden")
    if config.positions == "learned":
        close(found["pooled"], wanted.pooler_output, rows, "pooled")


def saved(kind: str, folder, **options):
    """torch's own models of random weights, in a folder of theirs."""
    torch.manual_seed(7)
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 20, "type_vocab_size": 3, "max_position_embeddings": 40}
    if kind == "roformer":
        model = transformers.RoFormerForMaskedLM(transformers.RoFormerConfig(**sizes, embedding_size=10))
    else:
        model = transformers.BertForPreTraining(transformers.BertConfig(**sizes))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.add_((0.3 if "bias" in name or "Norm" in name else 0.2) * torch.randn_like(parameter))
    model.eval().save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("kind", ["roformer", "bert"])
@pytest.mark.parametrize("file", ["model.safetensors", "shards", "pytorch_model.bin"])
def test_we_read_what_transformers_writes(kind, file, tmp_path):
    model = saved(kind, tmp_path, **({"max_shard_size": "4KB"} if file == "shards" else {}))
    if file == "shards":
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    elif file == "pytorch_model.bin":  # with copies of what is tied
        (tmp_path / "model.safetensors").unlink()
        assert "cls.predictions.decoder.weight" in model.state_dict()
        torch.save(model.state_dict(), tmp_path / file)
    ours, config = read_encoder(tmp_path)
    assert config == replace(
        ROFORMER if kind == "roformer" else BERT,
        dropout=0.1,
        attention_dropout=0.1,
        max_positions=40,
        pooler="none" if kind == "roformer" else "tanh",
    )
    weights = model.state_dict()
    for name, found in encoder_tensors(ours, Names(prefix=f"{kind}.")):
        np.testing.assert_array_equal(found, weights[name].numpy(), err_msg=name)
    rows = random_rows(config)
    masked, plain = CLASSES[config.positions]
    compare(
        outputs(ours, rows, config),
        masked.from_pretrained(tmp_path).eval(),
        plain.from_pretrained(tmp_path).eval(),
        rows,
    )


def test_what_was_fine_tuned_there_is_read_again(case, tmp_path):
    """transformers keeps our key and drops the pooler of a masked language model."""
    config, model, folder = case
    CLASSES[config.positions][0].from_pretrained(folder).save_pretrained(tmp_path)
    found, found_config = read_encoder(tmp_path)
    assert found_config == replace(config, pooler="none")
    jax.tree.map(np.testing.assert_array_equal, found, model.replace(pooler=None))


@pytest.mark.parametrize("positions", ["half", "sinusoidal", "trainable", "none"])
def test_what_is_converted(positions, tmp_path):
    config = replace(ROFORMER, layout="half") if positions == "half" else replace(BERT, positions=positions)
    model = random_encoder(config)
    write_encoder(tmp_path / "model", model, config)
    masked, plain = CLASSES["rotary" if positions == "half" else "learned"]
    rows = random_rows(config)
    compare(
        outputs(model, rows, config),
        masked.from_pretrained(tmp_path / "model").eval(),
        plain.from_pretrained(tmp_path / "model").eval(),
        rows,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_export(dtype, tmp_path):
    model = random_encoder(ROFORMER)
    write_encoder(tmp_path / "model", model, ROFORMER, dtype="bfloat16")
    loaded = transformers.RoFormerForMaskedLM.from_pretrained(tmp_path / "model", dtype=dtype)
    table = loaded.roformer.encoder.embed_positions
    assert torch.equal(table.weight, table.create_weight().to(dtype))
    for name, wanted in encoder_tensors(model, Names(prefix="roformer.")):
        if "pooler" not in name:
            assert torch.equal(loaded.state_dict()[name], torch.from_numpy(np.array(wanted)).bfloat16().to(dtype)), name


def test_gradients_of_the_masked_language_model(case):
    config, model, folder = case
    rows = random_rows(config)
    labels = np.where((np.arange(17)[None] % 3 == 0) & (rows["segments"] > 0), rows["ids"], -100)

    def loss(model):
        hidden = encode(model, rows["ids"], rows["segments"], config, types=rows["types"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(model, hidden, config), np.maximum(labels, 0))
        return (losses * (labels >= 0)).sum() / (labels >= 0).sum()

    value, found = jax.jit(jax.value_and_grad(loss))(model)
    reference = CLASSES[config.positions][0].from_pretrained(folder).eval()
    wanted = reference(**inputs(rows), labels=torch.from_numpy(labels).long()).loss
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-5)
    found = dict(encoder_tensors(found.replace(pooler=None), Names(prefix=f"{reference.base_model_prefix}.")))
    wanted = {name: x.grad for name, x in reference.named_parameters() if x.grad is not None}
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        if name.endswith("key.bias") and config.positions == "learned":
            assert np.abs(found[name]).max() < 1e-6  # it moves all scores of a query alike: nothing but rounding
        else:
            close(found[name], x, None, name)


@pytest.mark.parametrize("basis", [ROFORMER, BERT])
def test_an_exported_folder_is_all_that_transformers_needs(basis, tmp_path):
    """Text in, logits out, by the Auto classes alone: the same ids and numbers as here."""
    texts = ["今天天气很好，我们去公园散步。", "他每天读书 3 小时，也写 JAX 程序。", "山水花草，风雨雪月"]
    tokenizer = PegasusTokenizer(train_pegasus_vocabulary(texts, 400))
    config = replace(basis, vocabulary=tokenizer.vocab_size)
    model = random_encoder(config)
    write_encoder(tmp_path / "model", model, config, write_more=partial(write_tokenizer, tokenizer))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    masked = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()
    assert any(len(token) > 1 and not token.isascii() for token in theirs.tokenize(texts[0])), "words, not characters"
    for text in texts:
        ids = tokenizer.frame_source(tokenizer.encode(text), 64)
        assert theirs(text).input_ids == ids
        row = np.array([ids])
        found = logits(model, encode(model, row, np.ones_like(row), config), config)
        with torch.no_grad():
            close(found, masked(**theirs(text, return_tensors="pt")).logits, None)
