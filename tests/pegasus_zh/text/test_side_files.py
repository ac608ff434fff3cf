"""What lies beside a vocabulary: added tokens by every file that names them, a target's marks, rules; and refusals."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece
from training.files.errors import DataError

TEXTS = ["今天天气很好，我们去北京大学学习机器翻译。", "Deep learning 让机器学习更好用。"] * 20
PIECES = SentencePieceTokenizer(train_sentencepiece(TEXTS, 400))
SIZE = PIECES.vocab_size
CHARACTERS = PegasusTokenizer([*SPECIALS, *"今天气很好，。", "пр", "п", "##р", "ok", "App", "app", "extra0"])
WORDS = PegasusTokenizer([*CHARACTERS.vocabulary, "天气"])
SEPARATOR, WORD = "<sep>", "新词"
FLAGS = {"special": False, "normalized": True, "lstrip": False, "rstrip": False, "single_word": False}
ENTRIES = [{"content": SEPARATOR, **FLAGS, "special": True, "normalized": False}, {"content": WORD, **FLAGS}]


def write(folder: Path, **files) -> Path:
    """JSON files by their names without suffix."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


WAYS = {
    "tokenizer.json": {"tokenizer": {"added_tokens": [{"id": SIZE + i, **entry} for i, entry in enumerate(ENTRIES)]}},
    "added_tokens_decoder": {
        "tokenizer_config": {"added_tokens_decoder": {str(SIZE + i): entry for i, entry in enumerate(ENTRIES)}}
    },
    "added_tokens.json": {
        "added_tokens": {SEPARATOR: SIZE, WORD: SIZE + 1},
        "special_tokens_map": {"eos_token": "</s>", "additional_special_tokens": [{"content": SEPARATOR}]},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_added_tokens_by_every_file_that_names_them(way, tmp_path):
    PIECES.save(write(tmp_path, **WAYS[way]))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == SIZE + 2 and tokenizer.fingerprint != PIECES.fingerprint
    text = f"今天{SEPARATOR}很好 {WORD}。learning{SEPARATOR}{WORD}ok"
    wanted = [*PIECES.encode("今天"), SIZE, *PIECES.encode("很好 "), SIZE + 1, *PIECES.encode("。learning"), SIZE]
    wanted += [SIZE + 1, *PIECES.encode("ok")]
    assert tokenizer.encode(text) == wanted
    assert tokenizer.decode([*wanted, 1, SIZE + 1]) == f"今天很好{WORD}。learning{WORD}ok"  # a special one is dropped
    assert tokenizer.encode("今天很好") == PIECES.encode("今天很好")
    tokenizer.save(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == ["spiece.model", "tokenizer_config.json"]
    for again in (load_tokenizer(tmp_path / "saved"), pickle.loads(pickle.dumps(tokenizer))):
        assert again.fingerprint == tokenizer.fingerprint and again.encode(text) == wanted


def test_sentinels_of_t5_need_no_ids(tmp_path):
    """google/t5-v1_1: their names, or their number, beside a spiece.model; the first has the last id."""
    PIECES.save(tmp_path)
    for files in (
        {"special_tokens_map": {"additional_special_tokens": [f"<extra_id_{k}>" for k in range(100)]}},
        {"special_tokens_map": {}, "tokenizer_config": {"extra_ids": 100}},
    ):
        write(tmp_path, **files)
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.vocab_size == SIZE + 100
        found = tokenizer.encode("今天<extra_id_0>很好<extra_id_99>")
        assert found == [*PIECES.encode("今天"), SIZE + 99, *PIECES.encode("很好"), SIZE]


def test_behind_an_added_token_a_word_begins_or_not(tmp_path):
    """`legacy: false`, prepend_scheme first: no mark of a word's beginning but at the text's, and behind a blank."""
    files = WAYS["added_tokens_decoder"]["tokenizer_config"]
    PIECES.save(write(tmp_path, tokenizer_config=files | {"legacy": False}))
    tokenizer = load_tokenizer(tmp_path)
    spelled = ["".join(PIECES.vocabulary[i] for i in tokenizer.encode(text)[1:]) for text in ("<sep>好", "<sep> 好")]
    assert spelled == ["好", "▁好"]


def test_added_tokens_beside_words_of_jieba(tmp_path):
    entries = {str(len(WORDS.vocabulary)): {"content": "天好", **FLAGS}, "5": {"content": "[unused5]", "special": True}}
    WORDS.save(write(tmp_path, tokenizer_config={"added_tokens_decoder": entries}))
    tokenizer = load_tokenizer(tmp_path)
    added = len(WORDS.vocabulary)
    assert tokenizer.encode("今天好天气[unused5]") == [*WORDS.encode("今"), added, *WORDS.encode("天气"), 5]
    assert tokenizer.decode([*WORDS.encode("今"), added, 5, 101, *WORDS.encode("天气")]) == "今天好天气"
    assert tokenizer.frame_source(tokenizer.encode("天好"), 9) == [101, added, 102]
    # [SEP] and the like are what frames a text, and no text makes them.
    entries["102"] = {"content": "[SEP]", "special": True}
    write(tmp_path, tokenizer_config={"added_tokens_decoder": entries, "sep_token": "[SEP]"})
    assert 102 not in load_tokenizer(tmp_path).encode("[SEP]")


def test_added_tokens_without_a_row_are_left_out_and_told(tmp_path, said):
    PIECES.save(write(tmp_path, **WAYS["tokenizer.json"], config={"vocab_size": SIZE + 1}))
    tokenizer = load_tokenizer(tmp_path)
    assert [token.content for token in tokenizer.settings.added] == [SEPARATOR] and tokenizer.vocab_size == SIZE + 1
    assert said == [
        f"{tmp_path}: 1 added tokens such as '{WORD}' are left out: the embedding has {SIZE + 1:,} rows, none for them"
    ]


def test_the_side_that_is_cut_is_told_where_it_is_another(tmp_path, said):
    PIECES.save(write(tmp_path, tokenizer_config={"truncation_side": "right", "padding_side": "left"}))
    load_tokenizer(tmp_path)
    assert said == []
    load_tokenizer(write(tmp_path, tokenizer_config={"truncation_side": "left"}))
    assert len(said) == 1 and 'tokenizer_config.json: truncation_side is "left"; here texts that are too' in said[0]


T5 = {"model_type": "mt5", "is_encoder_decoder": True, "vocab_size": 500}


def ids(tokenizer) -> tuple[int, int, int]:
    return tokenizer.start_id, tokenizer.eos_id, tokenizer.pad_id


def test_how_a_target_begins_and_ends(tmp_path):
    PIECES.save(tmp_path)
    write(tmp_path, config=T5 | {"decoder_start_token_id": 7, "eos_token_id": [9], "pad_token_id": 0})
    tokenizer = load_tokenizer(tmp_path)
    assert ids(tokenizer) == (7, 9, 0)
    assert tokenizer.frame_target([20, 21], 9) == [20, 21, 9] and tokenizer.frame_source([20, 21], 9) == [20, 21, 1]
    assert tokenizer.decode([20, 1, 21, 9, 22]) == PIECES.decode([20, 21])
    tokenizer.save(tmp_path / "saved")
    for again in (load_tokenizer(tmp_path / "saved"), pickle.loads(pickle.dumps(tokenizer))):
        assert ids(again) == (7, 9, 0) and again.fingerprint == tokenizer.fingerprint != PIECES.fingerprint
    write(tmp_path, generation_config={"eos_token_id": 11, "pad_token_id": None})  # what generate() goes by
    assert ids(load_tokenizer(tmp_path)) == (7, 11, 0)
    write(tmp_path, config=T5 | {"decoder_start_token_id": 0, "eos_token_id": 1}, generation_config={})
    assert load_tokenizer(tmp_path).fingerprint == PIECES.fingerprint
    # Those of an encoder begin and end nothing.
    write(tmp_path, config={"model_type": "bert", "eos_token_id": 7, "pad_token_id": 3})
    assert load_tokenizer(tmp_path).fingerprint == PIECES.fingerprint


def test_a_frame_is_the_vocabularys_whatever_ends_a_target(tmp_path):
    CHARACTERS.save(write(tmp_path, config=T5 | {"decoder_start_token_id": 0, "eos_token_id": 105}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.frame_source([110], 9) == [101, 110, 102] and tokenizer.frame_target([110], 9) == [110, 105]
    assert ids(tokenizer) == (0, 105, 0)


def test_a_folder_for_transformers_keeps_how_a_target_begins_and_ends(tmp_path):
    """Of an encoder too, whose config.json does not say it."""
    CHARACTERS.save(write(tmp_path, config=T5 | {"decoder_start_token_id": 0, "eos_token_id": 105}))
    PIECES.save(write(tmp_path / "pieces", config=T5 | {"decoder_start_token_id": 7, "eos_token_id": 9}))
    for place in (tmp_path, tmp_path / "pieces"):
        tokenizer = load_tokenizer(place)
        write_tokenizer(tokenizer, write(tmp_path / "out"))
        assert load_tokenizer(tmp_path / "out").fingerprint == tokenizer.fingerprint
        shutil.rmtree(tmp_path / "out")


def test_an_end_that_nobody_chose(tmp_path, said):
    """T5Config's own start 0 and end 1 beside a vocab.txt, where they are [PAD] and [unused1]."""
    for vocabulary, start in ((CHARACTERS, 0), (WORDS, 101)):
        vocabulary.save(write(tmp_path, config=T5 | {"decoder_start_token_id": 0, "eos_token_id": 1}))
        assert ids(load_tokenizer(tmp_path)) == (start, 102, 0)
    ends = "eos_token_id is 1, which is [unused1] here and not heeded: a text ends with [SEP]"
    assert said[0].endswith(ends) and said[1].endswith(f"{ends} and starts with [CLS]")
    write(tmp_path, config=T5 | {"decoder_start_token_id": 101, "eos_token_id": 1})  # as UER's
    CHARACTERS.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == CHARACTERS.fingerprint


MARKS = {
    "several ends": ({"eos_token_id": [1, 5]}, r"config.json: eos_token_id is \[1, 5\]: several, .*; write one there"),
    "no id": ({"decoder_start_token_id": "x"}, r'config.json: decoder_start_token_id is "x": no id; write one there'),
    "end and padding": ({"eos_token_id": 0}, r"eos_token_id and pad_token_id are both 0: no end"),
    "padding of texts": ({"pad_token_id": 20}, r"pad_token_id is 20, which texts hold: give the id of a token"),
}


@pytest.mark.parametrize("kind", MARKS)
def test_marks_that_cannot_be(kind, tmp_path):
    about, message = MARKS[kind]
    PIECES.save(write(tmp_path, config=T5 | about))
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


CONFLICTS = {
    "another token": (
        {"added_tokens": {"<x>": 30}},
        rf"added_tokens.json: id 30 is '<x>', and '{PIECES.vocabulary[30]}' beside it; put the files of one tokenizer",
    ),
    "two names": (
        {"added_tokens": {"<x>": SIZE}, "tokenizer_config": {"added_tokens_decoder": {str(SIZE): {"content": "<y>"}}}},
        rf"added_tokens.json: id {SIZE} is '<x>', and '<y>' beside it",
    ),
    "no id": (
        {"special_tokens_map": {"additional_special_tokens": ["<x>"]}},
        r"special_tokens_map.json: '<x>' has no id: copy added_tokens.json or tokenizer.json from",
    ),
    "no number": ({"added_tokens": {"<x>": "last"}}, r"added_tokens.json: an added token '<x>' of id 'last'; put"),
    "a name alone": (
        {"tokenizer_config": {"additional_special_tokens": "<x>"}},
        r"tokenizer_config.json: '<x>' has no id",
    ),
    "no count": ({"tokenizer_config": {"extra_ids": "x"}}, r'tokenizer_config.json: extra_ids is "x"; copy or fetch'),
    "no JSON": ({"added_tokens": ["<x>"]}, r"added_tokens.json: not a JSON object"),
    "another vocabulary": (
        {"tokenizer": {"model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<x>", 0.0]]}}},
        r"tokenizer.json: id 2 is '<x>', and '<unk>' in spiece.model; remove the file that is not the model's",
    ),
    "a shorter vocabulary": (
        {"tokenizer": {"model": {"type": "Unigram", "vocab": [["<pad>", 0.0]]}}},
        r"tokenizer.json: id 1 is nothing, and '</s>' in spiece.model",
    ),
}


@pytest.mark.parametrize("kind", CONFLICTS)
def test_files_that_disagree_are_refused_by_name(kind, tmp_path):
    files, message = CONFLICTS[kind]
    PIECES.save(write(tmp_path, **files))
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


def tokens(tokenizer: PegasusTokenizer, text: str) -> list[str]:
    return [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]


def test_berts_own_rules_where_the_model_is_a_bert(tmp_path):
    """Of three files, as transformers takes its class by model_type; a RoFormer's, and a run of ours, are jieba's."""
    CHARACTERS.save(tmp_path)
    for files in (
        {"config": {"model_type": "bert"}},
        {"config": {"model_type": "bert"}, "tokenizer_config": {}},
        {"config": {}, "tokenizer_config": {"tokenizer_class": "ElectraTokenizer"}},
        {"config": {"tokenizer_class": "BertTokenizerFast"}, "tokenizer_config": {}},
    ):
        assert tokens(load_tokenizer(write(tmp_path, **files)), "Пр App天")[0] == "пр"
    write(tmp_path, config={"model_type": "bert"}, tokenizer_config={"do_lower_case": False})
    assert tokens(load_tokenizer(tmp_path), "App天") == ["App", "天"]
    for files in (
        {"config": {"model_type": "roformer"}, "tokenizer_config": {}},
        {"config": {"model_type": "bert"}, "tokenizer_config": {"tokenizer_class": "RoFormerTokenizer"}},
    ):
        assert load_tokenizer(write(tmp_path, **files)).fingerprint == CHARACTERS.fingerprint


def test_a_case_is_true_or_false(tmp_path):
    CHARACTERS.save(write(tmp_path, tokenizer_config={"do_lower_case": "False"}))
    with pytest.raises(
        DataError, match='tokenizer_config.json: do_lower_case is "False"; write true or false, without'
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["cls_token", "sep_token", "unk_token"])
def test_other_tokens_around_a_text_are_refused(tmp_path, name):
    CHARACTERS.save(write(tmp_path, tokenizer_config={name: {"content": "[unused1]"}}))
    with pytest.raises(DataError, match=rf'tokenizer_config.json: {name} is "\[unused1\]"; only .* can be read'):
        load_tokenizer(tmp_path)


def test_half_of_a_surrogate_pair_is_refused(tmp_path):
    CHARACTERS.save(write(tmp_path, config={"model_type": "bert"}))
    for tokenizer in (PIECES, CHARACTERS, load_tokenizer(tmp_path)):
        with pytest.raises(ValueError, match="text 0 has half of a surrogate pair"):
            tokenizer.encode("今\ud800天")


def test_berts_own_rules_where_the_class_is_berts(tmp_path):
    """jieba cuts Cyrillic into letters, BERT into words; a vocabulary with words of several characters is jieba's."""
    CHARACTERS.save(tmp_path)
    assert tokens(load_tokenizer(tmp_path), "прp App天\ue000") == ["п", "[UNK]", "[UNK]", "app", "天", "[UNK]"]
    write(tmp_path, tokenizer_config={"tokenizer_class": "BertTokenizer"})
    plain = load_tokenizer(tmp_path)
    assert tokens(plain, "Пр App天\ue000extra0") == ["пр", "app", "天", "extra0"]
    assert plain.frame_source([110], 9) == [101, 110, 102] and 102 not in plain.encode("[SEP]")
    plain.save(tmp_path / "saved")
    for again in (load_tokenizer(tmp_path / "saved"), pickle.loads(pickle.dumps(plain))):
        assert again.fingerprint == plain.fingerprint != CHARACTERS.fingerprint
    write(tmp_path, tokenizer_config={"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    assert tokens(load_tokenizer(tmp_path), "App天") == ["App", "天"]
    WORDS.save(tmp_path)
    assert tokens(load_tokenizer(tmp_path), "пр天气")[1:] == ["[UNK]", "天气"]
    assert replace(plain.settings, plain=False).about() == {}
