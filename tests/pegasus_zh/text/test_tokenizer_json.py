"""Folders that have a tokenizer.json alone: the same ids as of the file that it was made from, or a refusal by name."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.side_files import Settings
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer
from tests.pegasus_zh.text.test_side_files import CHARACTERS, ENTRIES, PIECES, SIZE, WORDS
from training.files.errors import DataError

LINES = (Path(__file__).parents[2] / "goldens" / "lines.txt").read_text(encoding="utf-8").split("\n")
PLAIN = PegasusTokenizer(CHARACTERS.vocabulary, settings=Settings(plain=True))
CASED = PegasusTokenizer(WORDS.vocabulary, settings=Settings(cased=True))


@pytest.mark.parametrize("tokenizer", [WORDS, CASED, PLAIN, PIECES], ids=["words", "cased", "BERT's", "sentencepiece"])
def test_ours_without_its_own_file(tokenizer, tmp_path):
    write_tokenizer(tokenizer, tmp_path)
    for name in ("vocab.txt", "spiece.model"):
        (tmp_path / name).unlink(missing_ok=True)
    found = load_tokenizer(tmp_path)
    assert type(found) is type(tokenizer) and found.vocab_size == tokenizer.vocab_size
    for line in [*LINES, "哈哈哈哈哈哈哈…………——！！！！！", "Пр App app  a\tb\u3000c ", ""]:
        ids = tokenizer.encode(line)
        assert found.encode(line) == ids and found.decode(ids) == tokenizer.decode(ids)
        assert found.frame_source(ids, 99) == tokenizer.frame_source(ids, 99)
    found.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == found.fingerprint


@given(st.lists(st.sampled_from(["今天", "很好", "学习", " ", "\n", "\u3000", "deep", "，", "龘"])).map("".join))
def test_pieces_without_a_normaliser_as_the_library_cuts_them(tmp_path_factory, text):
    """As a T5Tokenizer made of pieces alone: every kind of blank parts words, and nothing else is changed."""
    folder = tmp_path_factory.mktemp("plain")
    pieces = [(piece, -float(i)) for i, piece in enumerate(PIECES.vocabulary) if not piece.startswith("<0x")]
    fast = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    cuts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always", split=True)]
    fast.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    fast.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "mt5"}')
    assert load_tokenizer(folder).encode(text) == fast.encode(text, add_special_tokens=False).ids


def test_added_tokens_at_the_end_of_the_pieces(tmp_path):
    """T5Tokenizer of transformers 5 keeps its sentinels there."""
    write_tokenizer(PIECES, tmp_path)
    (tmp_path / "spiece.model").unlink()
    fast = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    fast["added_tokens"] = [{"id": SIZE + i, **entry} for i, entry in enumerate(ENTRIES)]
    fast["model"]["vocab"] += [[entry["content"], 0.0] for entry in ENTRIES]
    (tmp_path / "tokenizer.json").write_text(json.dumps(fast), encoding="utf-8")
    found = load_tokenizer(tmp_path)
    assert found.vocab_size == SIZE + 2 and found.encode("很好<sep>") == [*PIECES.encode("很好"), SIZE]


def written(folder: Path, model, **parts) -> None:
    fast = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(fast, name, part)
    fast.save(str(folder / "tokenizer.json"))


THREE = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁天", -1.0)]
WORDPIECES = {token: i for i, token in enumerate(CHARACTERS.vocabulary)}
SPACES = {"pre_tokenizer": pre_tokenizers.Metaspace()}
BERT = {"normalizer": normalizers.BertNormalizer(), "pre_tokenizer": pre_tokenizers.BertPreTokenizer()}
FRAME = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
SQUEEZED = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
REFUSED = {
    "BPE": (
        models.BPE(),
        {},
        "a BPE model; only WordPiece, as BERT's, and Unigram, .*: copy vocab.txt or spiece.model",
    ),
    "a hole": (
        models.WordPiece({"[PAD]": 0, "[UNK]": 2}, unk_token="[UNK]"),
        {},
        "the ids of its vocabulary have holes",
    ),
    "another mark": (
        models.WordPiece(WORDPIECES, unk_token="[UNK]", continuing_subword_prefix="@@"),
        {},
        "wordpieces marked by '@@', not ##",
    ),
    "another layout": (
        models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"),
        BERT | {"post_processor": FRAME},
        r":101: nothing where \[",
    ),
    "another <unk>": (models.Unigram(THREE, unk_id=3), SPACES, "<unk> has the id 3, not mT5's 2"),
    "no Metaspace": (models.Unigram(THREE, unk_id=2), {}, "no Metaspace is not mT5's way to cut a text"),
    "lower case": (
        models.Unigram(THREE, unk_id=2),
        SPACES | {"normalizer": normalizers.Lowercase()},
        "Lowercase is not mT5's way to cut a text; copy vocab.txt or spiece.model",
    ),
    "another replacement": (
        models.Unigram(THREE, unk_id=2),
        SPACES | {"normalizer": normalizers.Replace("a", "b")},
        "Replace of 'a' by 'b' is not mT5's way",
    ),
    "another content": (
        models.Unigram(THREE, unk_id=2),
        SPACES | {"normalizer": normalizers.Replace(tokenizers.Regex(" {2,}"), "X")},
        r"Replace of ' \{2,}' by 'X' is not mT5's way",
    ),
    "Strip alone": (
        models.Unigram(THREE, unk_id=2),
        SPACES | {"normalizer": normalizers.Strip()},
        "Strip alone is not mT5's way",
    ),
    "no Strip": (
        models.Unigram(THREE, unk_id=2),
        SPACES | {"normalizer": SQUEEZED},
        "Replace of blanks, and no Strip,",
    ),
    "another blank": (
        models.Unigram(THREE, unk_id=2),
        {"pre_tokenizer": pre_tokenizers.Metaspace(replacement="_")},
        "Metaspace of '_' is not mT5's way",
    ),
    "no end": (
        models.Unigram(THREE, unk_id=2),
        SPACES,
        r'frames a text as \[null\], not by </s> behind it; .*"tokenizer_class": "T5Tokenizer"',
    ),
    "BERT's in a sequence": (
        models.WordPiece(WORDPIECES, unk_token="[UNK]"),
        {"normalizer": normalizers.Sequence([normalizers.Replace("a", "b"), normalizers.BertNormalizer()])},
        'its normalizer is Replace, BertNormalizer, not BertNormalizer; .*"tokenizer_class": "BertTokenizer"',
    ),
    "blanks alone": (
        models.WordPiece(WORDPIECES, unk_token="[UNK]"),
        {"pre_tokenizer": pre_tokenizers.WhitespaceSplit()},
        "its normalizer is null",
    ),
    "short words": (
        models.WordPiece(WORDPIECES, unk_token="[UNK]", max_input_chars_per_word=3),
        BERT,
        "max_input_chars_per_word is 3, not 100",
    ),
    "no frame": (models.WordPiece(WORDPIECES, unk_token="[UNK]"), BERT, r"frames a text as \[null\], not by \[CLS\]"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_by_name(kind, tmp_path):
    model, parts, message = REFUSED[kind]
    written(tmp_path, model, **parts)
    with pytest.raises(DataError, match=rf"tokenizer.json.*{message}") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_berts_rules_by_name_of_no_class(tmp_path):
    """As PreTrainedTokenizerFast has them, in the one way that is BERT's."""
    written(tmp_path, models.WordPiece(WORDPIECES, unk_token="[UNK]"), **BERT, post_processor=FRAME)
    assert load_tokenizer(tmp_path).fingerprint == PLAIN.fingerprint


BROKEN = [
    {"normalizer": {}},
    {"added_tokens": True},
    {"added_tokens": [None]},
    {"model": "x"},
    {"model": {"type": "Unigram", "vocab": [1]}},
    {"model": {"type": "Unigram", "vocab": ["a"]}},
    {"normalizer": {"type": "Precompiled", "precompiled_charsmap": None}},
    {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "x"}},
    {"post_processor": [1]},
]


@pytest.mark.parametrize("part", BROKEN, ids=str)
def test_what_is_of_another_form_is_one_line(tmp_path, part):
    write_tokenizer(PIECES, tmp_path)
    (tmp_path / "spiece.model").unlink()
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | part), encoding="utf-8")
    with pytest.raises(
        DataError, match="tokenizer.json: not of the form of a tokenizer.json .*; copy or fetch it again"
    ):
        load_tokenizer(tmp_path)


def test_blanks_of_each_line_stay(tmp_path):
    """They are dropped at the text's ends alone, by sentencepiece and by what is written for the library."""
    write_tokenizer(PIECES, tmp_path)
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("  今天。\n  很好。  \n好 ", "a \nb", "\n 好\n"):
        assert fast.encode(text, add_special_tokens=False).ids == PIECES.encode(text)
