"""Model, decoding and exported folders against transformers' MT5 in torch, to 1e-4 in float32."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, MT5ForConditionalGeneration

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import huggingface_tensors, write_folder
from pegasus_zh.t5.mt5 import PRESETS, MT5Config, decode, encode, logits
from pegasus_zh.t5.objective import loss
from pegasus_zh.text.documents import CORPUS, read_documents
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import train_sentencepiece
from pegasus_zh.writing import Writing, generate
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from tests.parity.reference import reference_model, reference_outputs
from tests.pegasus_zh.t5.random_model import START, TINY, random_model, random_pairs, rows, token_of_some_rows

GOLDENS = Path(__file__).parents[1] / "goldens"
SHAPES = {
    "tiny": TINY,
    "t5-pegasus-small": replace(PRESETS["t5-pegasus-small"], vocabulary=1008, layers=2),
}
# Where RoFormerTokenizer's ids are known to differ (see pegasus_zh/text/huggingface_tokenizer.py): special tokens in
# the text, and jieba's two words with punctuation in them, which the vocabulary here does not have.
DIFFERENT = ("[CLS]", "[SEP]", "C++")


@pytest.fixture(scope="module", params=SHAPES)
def case(request, tmp_path_factory):
    """(config, our model, torch's, rows padded on both sides)."""
    config = SHAPES[request.param]
    model = random_model(config, seed=3)
    reference = reference_model(model, config, tmp_path_factory.mktemp("export") / "model")
    # Longer than max_distance, so that the last bucket counts.
    longest = 2 * config.max_distance
    batch = rows([[pair] for pair in random_pairs(3, config, seed=4, source=longest, target=24)], longest, 24)
    return config, model, reference, batch


def close(found, wanted, name: str = "") -> None:
    """Equal to 1e-4 of the largest element."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert difference < 1e-4, f"{name}: {difference}"


def test_logits_and_loss(case):
    config, model, reference, batch = case

    @jax.jit
    def outputs(model, source, source_segments, target_inputs, target_segments, **_):
        encoded = encode(model, source, source_segments, config)
        hidden = decode(model, target_inputs, target_segments, encoded, source_segments, config)
        return logits(model, hidden, config)

    with torch.no_grad():
        wanted, wanted_loss = reference_outputs(reference, batch)
    real = batch["target_segments"] > 0
    close(outputs(model, **batch)[real], wanted.numpy()[real])
    total, weight = jax.jit(lambda model: loss(model, batch, None, config=config))(model)["loss"]
    np.testing.assert_allclose(total / weight, wanted_loss.item(), rtol=1e-5)


def test_gradients_of_all_parameters(case):
    config, model, reference, batch = case

    def mean_loss(model):
        total, weight = loss(model, batch, None, config=config)["loss"]
        return total / weight

    found = dict(huggingface_tensors(jax.jit(jax.grad(mean_loss))(model)))
    reference.zero_grad()
    reference_outputs(reference, batch)[1].backward()
    wanted = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    assert found.keys() == wanted.keys()
    for name in wanted:
        close(found[name], wanted[name], name)


@pytest.mark.parametrize("search", [Search(), Search(beams=4), Search(beams=3, length_penalty=0.0)], ids=str)
def test_200_outputs(case, search):
    config, model, reference, _ = case
    longest = 24
    source = rows([[pair] for pair in random_pairs(200, config, seed=5, source=40)], 40, 24)["source"]
    marks = Marks(start=START, end=-1)
    run = partial(
        write, model, source, np.zeros(200, np.uint32), decoder=MT5Decoder(config), search=search, length=longest
    )
    end = token_of_some_rows(run(marks=marks)[0])
    found = np.asarray(run(marks=replace(marks, end=end))[0])
    written = reference.generate(
        input_ids=torch.from_numpy(source).long(),
        attention_mask=torch.from_numpy(source > 0).long(),
        do_sample=False,
        num_beams=search.beams,
        length_penalty=search.length_penalty,
        max_length=longest + 1,
        decoder_start_token_id=START,
        eos_token_id=end,
        suppress_tokens=[0],
    ).numpy()[:, 1:]
    # Where the padding id is 0, transformers' beam search fills rows with the end token.
    written[np.cumsum(written == end, 1) - (written == end) > 0] = 0
    assert len(set((found != 0).sum(1))) > 1
    np.testing.assert_array_equal(found[:, : written.shape[1]], written)
    assert not found[:, written.shape[1] :].any()


def lines() -> list[str]:
    lines = (GOLDENS / "lines.txt").read_text(encoding="utf-8").split("\n")
    return [line for line in lines if not any(word in line for word in DIFFERENT)]


def pegasus() -> PegasusTokenizer:
    return PegasusTokenizer(json.loads((GOLDENS / "tokens.json").read_text(encoding="utf-8"))["vocabulary"])


def sentencepiece() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train_sentencepiece(read_documents((str(CORPUS / "train.jsonl"),)), 4000))


@pytest.mark.parametrize("make", [pegasus, sentencepiece])
def test_exported_folder(make, tmp_path):
    tokenizer = make()
    config = MT5Config(vocabulary=4000, width=32, feed_forward=48, heads=2, head_size=8, layers=2)
    model = random_model(config)
    write_folder(tmp_path / "model", model, config, tokenizer)
    reference, about = MT5ForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(about.values()), about
    loaded = reference.state_dict()
    for name, wanted in huggingface_tensors(model):
        np.testing.assert_array_equal(loaded[name].numpy(), wanted, err_msg=name)

    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    for line in lines():
        assert theirs(line)["input_ids"] == tokenizer.frame_source(tokenizer.encode(line), 10_000), line
        assert theirs.decode(theirs(line)["input_ids"], skip_special_tokens=True).replace(" ", "") == (
            tokenizer.decode(tokenizer.encode(line)).replace(" ", "")
        )
    # From text to ids as a person would, with the settings of the folder alone.
    sources = lines()[:4]
    written = reference.generate(**theirs(sources, padding=True, return_tensors="pt"))
    framed = [tokenizer.frame_source(tokenizer.encode(line), 384) for line in sources]
    ours = list(
        generate(model, MT5Decoder(config), tokenizer, framed, Writing(max_source=64, max_target=127, batch_size=4))
    )  # and the start token
    assert any(ours)
    assert [tokenizer.decode(row[1:]) for row in written.tolist()] == ours


def test_bfloat16_export(tmp_path):
    model = random_model(TINY)
    write_folder(tmp_path / "model", model, TINY, pegasus(), dtype="bfloat16")
    loaded = MT5ForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert loaded.dtype == torch.bfloat16
    for name, wanted in huggingface_tensors(model):
        wanted = torch.from_numpy(np.array(wanted)).bfloat16()
        assert torch.equal(loaded.state_dict()[name], wanted), name
