"""Folders of mT5 and T5 in the layouts that people have, made by transformers with random weights: the peer's own ids,
logits and texts; and ours, exported and saved again by transformers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.export import ExportConfig, export
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.load import load
from pegasus_zh.text.added_tokens import Added
from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.side_files import Settings
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer, Tokenizer
from pegasus_zh.writing import Writing, write_texts
from rope.decoding.search import Search
from tests.parity.test_load import SIZES, agree, identical
from tests.pegasus_zh.t5.random_model import random_model
from tests.pegasus_zh.t5.test_load import CONFIG, LINES, PEGASUS, SENTENCEPIECE
from training.files.weights import open_weights

SPECIAL_WORDS = ("[CLS]", "[SEP]", "C++")  # written out in a text they are one token there, and plain text here
SENTINELS = [f"extra{i}" for i in range(100)]
CHARACTERS = PegasusTokenizer(
    [*dict.fromkeys([*PEGASUS.vocabulary[:106], *SENTINELS, *"".join(LINES).replace(" ", "").lower(), "при", "##вет"])]
)


def no_bytes() -> SentencePieceTokenizer:
    """Pieces without the fallback to bytes, which transformers' T5Tokenizer does not have."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(SENTENCEPIECE._model)
    proto.trainer_spec.byte_fallback = False
    for piece in proto.pieces:
        if piece.type == piece.BYTE:
            piece.type = piece.NORMAL
    rules = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")  # as mT5's; ours leave characters as they are
    proto.normalizer_spec.precompiled_charsmap = sentencepiece_model_pb2.NormalizerSpec.FromString(
        rules.serialized_normalizer_spec()
    ).precompiled_charsmap
    return SentencePieceTokenizer(proto.SerializeToString())


PIECES = no_bytes()


def make(kind=MT5ForConditionalGeneration, **settings):
    """A model of transformers whose head is as loud as a trained one's; the head is its own unless it is tied."""
    torch.manual_seed(11)
    config = MT5Config if kind is MT5ForConditionalGeneration else T5Config
    tied = settings.pop("tie_word_embeddings", False)
    model = kind(config(**SIZES | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": tied} | settings))
    for name, parameter in model.named_parameters():
        if "Attention" in name or "wi_0" in name:
            parameter.data.copy_(torch.randn_like(parameter) / 3)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model.eval()


def same_ids(tokenizer: Tokenizer, folder: Path, lines: list[str]) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    for line in lines:
        assert tokenizer.frame_source(tokenizer.encode(line), 10_000) == theirs(line)["input_ids"], line


def same_texts(folder: Path, model, search: Search = Search()) -> None:  # noqa: B008
    """What both write for texts, by the settings of the folder alone: ids up to the end."""
    loaded, theirs = load(folder), AutoTokenizer.from_pretrained(folder)
    texts = [line for line in LINES if 5 < len(line) and not any(word in line for word in SPECIAL_WORDS)][:12]
    batch = {name: x for name, x in theirs(texts, padding=True, return_tensors="pt").items() if "type" not in name}
    pad = loaded.tokenizer.pad_id
    with torch.no_grad():
        written = model.generate(
            **batch,
            max_new_tokens=15,
            num_beams=search.beams,
            length_penalty=search.length_penalty,
            do_sample=False,
            suppress_tokens=[pad],
            use_cache=False,  # transformers 5.23 makes a cache for as many layers as the encoder has
        )
    assert written[0, 0] == loaded.tokenizer.start_id
    writing = Writing(max_source=1024, max_target=15, search=search)
    answers = write_texts(loaded.model, MT5Decoder(loaded.config), loaded.tokenizer, writing, texts)
    found = [text for (text,) in answers]
    assert any(found) and found == [loaded.tokenizer.decode(row[1:]) for row in written.tolist()]


def spiece_beside(folder: Path) -> None:
    """As transformers 4 saves: spiece.model, and what its class was given."""
    PIECES.save(folder)
    about = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": None}
    about |= {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({k: v for k, v in about.items() if k.endswith("_token")})
    )


def json_alone(folder: Path, **added) -> None:
    """As transformers 5 saves: what it makes of the former."""
    spiece_beside(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(added.get("words", []))
    tokenizer.add_special_tokens({"additional_special_tokens": added.get("special", [])})
    for name in ("spiece.model", "special_tokens_map.json"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    assert not (folder / "spiece.model").exists() and (folder / "tokenizer.json").exists()


def test_mt5_of_transformers_4(tmp_path):
    model = make(tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    spiece_beside(tmp_path)
    loaded = load(tmp_path)
    identical(loaded, model)
    agree(loaded, model)
    same_ids(loaded.tokenizer, tmp_path, LINES)
    same_texts(tmp_path, model)
    same_texts(tmp_path, model, Search(beams=3))


def test_mt5_of_transformers_5(tmp_path):
    """tokenizer.json alone and a tied head."""
    model = make(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in open_weights(tmp_path)[0]
    json_alone(tmp_path)
    loaded = load(tmp_path)
    agree(loaded, model)
    same_ids(loaded.tokenizer, tmp_path, [*LINES, "a  b\n c\td\u3000e ", "哈哈哈哈哈哈……！！！！！！"])
    same_texts(tmp_path, model)


def test_sentinels_that_have_no_rows(tmp_path, said):
    """A T5Tokenizer that is not told otherwise adds 100 to any mT5, more than its spare rows."""
    model = make(vocab_size=SENTENCEPIECE.vocab_size + 12)
    model.save_pretrained(tmp_path)
    PIECES.save(tmp_path)
    T5Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    (tmp_path / "spiece.model").unlink()
    loaded = load(tmp_path)
    assert "88 added tokens such as '<extra_id_87>' are left out" in "\n".join(said)
    agree(loaded, model)
    same_ids(loaded.tokenizer, tmp_path, [*LINES, "今天<extra_id_99>天气"])


def test_t5_with_its_sentinels(tmp_path):
    model = make(T5ForConditionalGeneration, decoder_start_token_id=0)
    model.save_pretrained(tmp_path)
    PIECES.save(tmp_path)
    tokenizer = T5Tokenizer.from_pretrained(tmp_path)
    lines = ["<extra_id_0>天气<extra_id_1> 很好 <extra_id_99>。", "<extra_id_100>", *LINES]
    wanted = [tokenizer(line)["input_ids"] for line in lines]
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)]})
    )
    loaded = load(tmp_path)
    assert [loaded.tokenizer.frame_source(loaded.tokenizer.encode(line), 10_000) for line in lines] == wanted
    tokenizer.save_pretrained(tmp_path)  # and now beside a tokenizer.json
    same_ids(load(tmp_path).tokenizer, tmp_path, lines)
    agree(loaded, model)
    same_texts(tmp_path, model)


def test_added_tokens(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    json_alone(tmp_path, words=["新词", "Abc"], special=["<sep>"])
    loaded = load(tmp_path)
    assert loaded.tokenizer.vocab_size == PIECES.vocab_size + 3
    lines = ["今天新词<sep>Abc abc", "<sep>新词新词 <sep> 好", "新", *LINES]
    same_ids(loaded.tokenizer, tmp_path, lines)
    agree(loaded, model)
    same_texts(tmp_path, model)
    out = export(ExportConfig(model=str(tmp_path), folder=str(tmp_path / "out")))
    same_ids(loaded.tokenizer, out, lines)


def test_another_start_and_end(tmp_path):
    model = make(decoder_start_token_id=7, eos_token_id=9)
    model.save_pretrained(tmp_path)
    spiece_beside(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.tokenizer.start_id, loaded.tokenizer.eos_id) == (7, 9)
    agree(loaded, model)
    same_texts(tmp_path, model)
    with torch.no_grad():
        end = int(
            model.generate(torch.tensor([[20, 21, 1]]), max_new_tokens=4, do_sample=False, suppress_tokens=[0])[0, 3]
        )
    model.generation_config.eos_token_id = end  # one that is written
    model.save_pretrained(tmp_path)
    assert load(tmp_path).tokenizer.eos_id == end
    same_texts(tmp_path, model)


@pytest.mark.parametrize(("layers", "decoder_layers"), [(1, 3), (3, 1)])
def test_unequal_depths(tmp_path, layers, decoder_layers):
    model = make(num_layers=layers, num_decoder_layers=decoder_layers)
    model.save_pretrained(tmp_path)
    spiece_beside(tmp_path)
    loaded = load(tmp_path)
    identical(loaded, model)
    agree(loaded, model)
    same_texts(tmp_path, model)
    out = export(ExportConfig(model=str(tmp_path), folder=str(tmp_path / "out")))
    again = MT5ForConditionalGeneration.from_pretrained(out)
    identical(loaded, again)
    assert again.config.num_decoder_layers == decoder_layers


@pytest.mark.parametrize("layout", ["safetensors in shards", "bin", "bin of a wrapped model"])
def test_bfloat16(tmp_path, layout):
    model = make().bfloat16()
    if "bin" in layout:
        prefix = "module." if "wrapped" in layout else ""
        torch.save({prefix + name: x for name, x in model.state_dict().items()}, tmp_path / "pytorch_model.bin")
        model.config.save_pretrained(tmp_path)
    else:
        model.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    spiece_beside(tmp_path)
    loaded = load(tmp_path)
    assert " in bfloat16 of " in loaded.source
    identical(loaded, model.float())
    agree(loaded, model)


@pytest.mark.parametrize("has_model_type", [True, False])
def test_uers_layout(tmp_path, has_model_type):
    """BERT's tokenizer over characters with extra0 to extra99, mT5's arithmetic, [CLS] to start with."""
    model = make(vocab_size=CHARACTERS.vocab_size, decoder_start_token_id=101)
    model.save_pretrained(tmp_path)
    if not has_model_type:
        about = json.loads((tmp_path / "config.json").read_text())
        del about["model_type"], about["architectures"]
        (tmp_path / "config.json").write_text(json.dumps(about))
    CHARACTERS.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    loaded = load(tmp_path)
    assert "vocab.txt has extra0: UER's T5" in loaded.source and loaded.tokenizer.eos_id == 102
    agree(loaded, model)
    theirs = BertTokenizer.from_pretrained(tmp_path)
    for line in ["中国的首都是extra0京", "Привет こんにちは 한국 straße", *LINES]:
        if not any(word in line for word in SPECIAL_WORDS[:2]):
            ours = loaded.tokenizer.frame_source(loaded.tokenizer.encode(line), 10_000)
            assert ours == theirs(line)["input_ids"], line
    if has_model_type:
        same_texts(tmp_path, model)


ADDED = (Added(PEGASUS.vocab_size, "新词"), Added(PEGASUS.vocab_size + 1, "<sep>", special=True))
ROUND_TRIP = {
    "words": PEGASUS,
    "words, cased": PegasusTokenizer(PEGASUS.vocabulary, settings=Settings(cased=True)),
    "words, another start and end": PegasusTokenizer(PEGASUS.vocabulary, settings=Settings(start=5, end=103)),
    "words and added tokens": PegasusTokenizer(PEGASUS.vocabulary, settings=Settings(added=ADDED)),
    "characters": PegasusTokenizer(CHARACTERS.vocabulary, settings=Settings(plain=True)),
    "pieces": SENTENCEPIECE,
    "pieces and added tokens": SentencePieceTokenizer(
        SENTENCEPIECE._model, settings=Settings(added=(Added(SENTENCEPIECE.vocab_size, "新词"),), end=9)
    ),
}


@pytest.mark.parametrize("kind", ROUND_TRIP)
def test_ours_saved_again_by_transformers(kind, tmp_path):
    tokenizer = ROUND_TRIP[kind]
    config = replace(CONFIG, vocabulary=-(-tokenizer.vocab_size // 16) * 16, layers=1, decoder_layers=2)
    model = random_model(config, seed=12)
    write_folder(tmp_path / "ours", model, config, tokenizer)
    AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    reference = MT5ForConditionalGeneration.from_pretrained(tmp_path / "ours")
    reference.save_pretrained(tmp_path / "theirs")
    assert not {"vocab.txt", "spiece.model"} & {file.name for file in (tmp_path / "theirs").iterdir()}
    loaded = load(tmp_path / "theirs")
    assert loaded.config == config and type(loaded.tokenizer) is type(tokenizer)
    identical(loaded, reference)
    agree(loaded, reference)
    ids = [(t.start_id, t.eos_id, t.pad_id, t.vocab_size) for t in (loaded.tokenizer, tokenizer)]
    assert ids[0] == ids[1]
    for line in [*LINES, "今天新词<sep>OK ok", "哈哈哈哈哈哈哈…………！！！！！", "我\ue000们"]:
        assert loaded.tokenizer.encode(line) == tokenizer.encode(line), line
        np.testing.assert_array_equal(loaded.tokenizer.frame_target([9], 9), tokenizer.frame_target([9], 9))


THREE_FILES = {
    "two files": None,
    "nothing said": {},
    "cased": {"do_lower_case": False},
    "Electra's": {"tokenizer_class": "ElectraTokenizer"},
}


@pytest.mark.parametrize("said", THREE_FILES)
def test_a_chinese_bert_as_it_is_downloaded(tmp_path, said):
    """config.json and vocab.txt beside the weights: BERT's rules, by model_type, for texts of other scripts too."""
    letters = "ありがとうприветÉéAapl"
    vocabulary = [*CHARACTERS.vocabulary, *letters, *(f"##{c}" for c in letters), "пр"]
    (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if THREE_FILES[said] is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(THREE_FILES[said]))
    lines = [line for line in LINES if not any(word in line for word in SPECIAL_WORDS)]
    same_ids(load_tokenizer(tmp_path), tmp_path, [*lines, "ありがとう", "привет Apple", "e\u0301 É", "a" * 101])
    write_tokenizer(load_tokenizer(tmp_path), tmp_path / "out")
    same_ids(load_tokenizer(tmp_path), tmp_path / "out", ["ありがとう", "привет Apple", "e\u0301 É"])


def test_blanks_within_the_lines_of_a_text(tmp_path):
    """Of our own pieces exported: dropped at the text's ends alone."""
    write_tokenizer(SENTENCEPIECE, tmp_path)
    same_ids(SENTENCEPIECE, tmp_path, ["第一段。\n  第二段。", " a \nb ", "a\n  b\n"])
