"""From text to an encoder, out to transformers' folder, and on from there."""

import json
import shutil
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from pegasus_zh.rows.plain_text import TextConfig, vocabulary_of
from pegasus_zh.text.documents import DocumentsConfig
from pegasus_zh.text.model_tokenizer import tokenizer_folder
from pegasus_zh.text.tokenizers import PegasusTokenizer, Tokenizer
from pegasus_zh.text.vocabulary import SPECIALS, TokenizerConfig, train_sentencepiece
from pegasus_zh.text_encoder import (
    TextEncoder,
    TextEncoderConfig,
    load_text_encoder,
    pretrain,
    rows_of_texts,
)
from retrieval.export import ExportEncoderConfig, export_encoder
from rope.encoder.pretrain import EncoderConfig, defaults
from rope.encoder.roformer import RoFormerConfig, init
from tests.rope.encoder.random_encoder import one_layer_preset
from training.files.errors import DataError
from training.files.weights import hollow

TEXTS = ["今天天气很好，我们去公园散步。", "他每天读书写字。", "山水花草，风雨雪月。"]


@pytest.fixture(scope="module", autouse=True)
def one_layer():
    with one_layer_preset():
        yield


@pytest.fixture(scope="module")
def run(one_layer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    documents = folder / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": f"{n}{t}"}) + "\n" for t in TEXTS for n in range(9)), "utf-8")
    documents = DocumentsConfig(data=(str(documents),), workers=1)
    text = TextConfig(documents=documents, tokens=TokenizerConfig(vocabulary=300))
    basis = defaults("tiny").recipe
    recipe = replace(basis, length=16, loop=replace(basis.loop, steps=1, batch_size=8))
    config = EncoderConfig(recipe=recipe, folder=str(folder / "run"))
    pretrain(TextEncoderConfig(text=text, encoder=config))
    return config, text, folder


def test_a_run_goes_out_to_transformers_and_comes_back(run, said):
    config, _, folder = run
    export_encoder(ExportEncoderConfig(model=config.folder, folder=str(folder / "out")))
    assert "RoFormerForMaskedLM" in said[-1]
    ours, theirs = (load_text_encoder(path) for path in (config.folder, folder / "out"))
    jax.tree.map(np.testing.assert_array_equal, ours.model, theirs.model)
    assert theirs.tokenizer.fingerprint == ours.tokenizer.fingerprint
    assert theirs.tokenizer.encode("今天天气") == ours.tokenizer.encode("今天天气")
    for path in (config.folder, f"{config.folder}/checkpoints"):
        assert tokenizer_folder(path) == folder / "run" / "tokenizer"
    assert tokenizer_folder(folder / "out") == folder / "out"
    with pytest.raises(DataError, match="exists already"):
        export_encoder(ExportEncoderConfig(model=config.folder, folder=str(folder / "out")))


@pytest.mark.parametrize(("attention", "wanted"), [("auto", "16dd810bf0f8"), ("xla", "09c290f16612")])
def test_a_fingerprint_is_that_of_version_0_1(attention, wanted):
    """By which the indexes of that version know their models."""
    config = RoFormerConfig(vocabulary=50, width=24, feed_forward=20, heads=3, layers=1)
    model = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), hollow(partial(init, config)))
    found = TextEncoder(model, config, PegasusTokenizer([*SPECIALS, "今"]), attention=attention)
    assert found.fingerprint == wanted


def test_what_computed_attention_is_of_the_fingerprint_alone(run):
    """Else a run could not be loaded where that is not legal, or an index of it not be read."""
    config, text, folder = run
    recipe = replace(config.recipe, computation=replace(config.recipe.computation, attention="xla"))
    pretrain(TextEncoderConfig(text=text, encoder=replace(config, recipe=recipe, folder=str(folder / "xla"))))
    found = load_text_encoder(folder / "xla")
    assert found.config == load_text_encoder(config.folder).config and found.config.attention == "auto"
    saved = replace(found.config, attention="xla")
    assert found.fingerprint == TextEncoder(found.model, saved, found.tokenizer, attention="xla").fingerprint
    assert found.fingerprint != found._replace(attention="auto").fingerprint


def test_a_run_starts_from_an_encoder(run):
    """A learning rate of 0 keeps the weights that it started with."""
    config, text, folder = run
    first = load_text_encoder(config.folder)
    still = replace(config.recipe.optimizer, learning_rate=0.0)
    recipe = replace(config.recipe, positions="learned", optimizer=still)
    again = replace(config, start=config.folder, recipe=recipe, folder=str(folder / "again"))
    pretrain(TextEncoderConfig(text=text, encoder=again))
    model, found = load_text_encoder(folder / "again")[:2]
    assert found.positions == "rotary"
    jax.tree.map(np.testing.assert_array_equal, model, first.model)


def test_what_a_run_cannot_start_from(run):
    config, first = run[0], load_text_encoder(run[0].folder)
    with pytest.raises(DataError, match="no masked language model's head to train"):
        config.recipe.model_from(replace(first.config, head=False), 300, config.folder)
    with pytest.raises(DataError, match=r"rows in its embedding, fewer than 9,000 tokens"):
        config.recipe.model_from(first.config, 9000, config.folder)


def test_a_tokenizer_of_another_model(run, tmp_path):
    config, _, folder = run
    out = tmp_path / "out"
    export_encoder(ExportEncoderConfig(model=config.folder, folder=str(out)))
    (out / "tokenizer.json").unlink()
    with (out / "vocab.txt").open("a") as file:
        file.writelines(f"token{n}\n" for n in range(100))
    with pytest.raises(DataError, match="put the vocab.txt there that belongs to the model"):
        load_text_encoder(out)


def test_a_tokenizer_without_a_mask(run, tmp_path):
    """An encoder's is any with a [MASK], by what it says of itself, and no other."""
    out = tmp_path / "out"
    export_encoder(ExportEncoderConfig(model=run[0].folder, folder=str(out)))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (out / name).unlink()
    (out / "spiece.model").write_bytes(train_sentencepiece(TEXTS, 300))
    with pytest.raises(DataError, match="a sentencepiece model; an encoder's tokenizer is its vocab.txt"):
        load_text_encoder(out)


class Numbers(Tokenizer):
    """Anonymised ids: a text is numbers with spaces between."""

    kind, vocab_size, fingerprint = "numbers", 50, "numbers"
    pad_id, unk_id, start_id, eos_id, mask_id, specials = 0, 1, 2, 3, 4, 5

    def encode(self, text):
        return [int(number) + self.specials for number in text.split()]

    def frame_source(self, ids, max_length):
        return [self.start_id, *ids[: max_length - 2], self.eos_id]


def test_a_vocabulary_of_numbers():
    assert vocabulary_of(Numbers()) == (50, 4, 5)
    assert rows_of_texts(Numbers(), ["7 30", "1"], 8)[0].tolist() == [[2, 12, 35, 3], [2, 6, 3, 0]]


def test_refused_before_anything_is_made(run, tmp_path):
    config, text, _ = run
    fresh = replace(config, start=config.folder, folder=str(tmp_path / "fresh"))
    with pytest.raises(DataError, match="--start has its own tokenizer"):
        pretrain(TextEncoderConfig(text=replace(text, tokens=TokenizerConfig(tokenizer=config.folder)), encoder=fresh))
    with pytest.raises(ValueError, match="cannot be cut into 3 microbatches"):
        pretrain(
            TextEncoderConfig(
                text=text,
                encoder=replace(fresh, recipe=replace(config.recipe, loop=replace(config.recipe.loop, accumulate=3))),
            )
        )
    assert not (tmp_path / "fresh" / "tokenizer").exists()


def test_a_runs_own_tokenizer_is_kept(run, tmp_path):
    """Not overwritten by one made of the documents, and not taken for another."""
    config, text, folder = run
    kept = tmp_path / "run"
    shutil.copytree(config.folder, kept)
    (kept / "tokenizer" / "made.json").unlink()
    with pytest.raises(DataError, match="the run there has another tokenizer"):
        pretrain(
            TextEncoderConfig(
                text=replace(text, tokens=TokenizerConfig(vocabulary=220)), encoder=replace(config, folder=str(kept))
            )
        )
    assert load_text_encoder(kept).tokenizer.vocab_size > 220
    (kept / "tokenizer" / "vocab.txt").write_text(
        (kept / "tokenizer" / "vocab.txt").read_text("utf-8") + "新\n", "utf-8"
    )
    with pytest.raises(DataError, match="not the tokenizer that the checkpoint was trained with"):
        load_text_encoder(kept)
    with pytest.raises(DataError, match="exported: no such folder"):
        tokenizer_folder(kept / "exported")


def test_rows_of_texts(run):
    encoder = load_text_encoder(run[0].folder)
    ids, segments = rows_of_texts(encoder.tokenizer, [TEXTS[0], "", TEXTS[1] * 9], 16)
    assert ids.shape == segments.shape == (3, 16)
    assert segments.sum(1).tolist() == [2 + len(encoder.tokenizer.encode(TEXTS[0])), 2, 16]
    assert (
        (ids[segments == 0] == 0).all()
        and (ids[:, 0] == 101).all()
        and (ids[np.arange(3), segments.sum(1) - 1] == 102).all()
    )
    with pytest.raises(ValueError, match="0 texts in rows of 16"):
        rows_of_texts(encoder.tokenizer, [], 16)
