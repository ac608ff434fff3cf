"""Tokenizers: bert4keras's ids, the definition written a second time, framing, decoding, files."""

import io
import pickle
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import rjieba
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from pegasus_zh.text import wordpieces
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece
from pegasus_zh.text.wordpieces import normalise, split_plain, words
from training.files.errors import DataError

TOKENS = """， 。 ！ # + - . / % $ 今天 天气 天 气 今 很 好 我 们 我们 的 北 京 北京 大 学 大学 机器 学习 机 器 习
卡 拉 卡拉 恤 t ok c c++ ios ip ##hone ##ho ##ne 12 1 2 ##2 3 ##3 ##4 a ##b ##c ##o e cafe か 한 р 😀 ％ ①""".split()
VOCABULARY = SPECIALS + TOKENS
TOKENIZER = PegasusTokenizer(VOCABULARY)

# What bert4keras 0.10 with jieba 0.42.1 (HMM off) makes of these texts over VOCABULARY.
BERT4KERAS = [
    (
        "今天天气很好，我们的北京大学！",
        "今 天 天 气 很 好 ， 我们 的 北 京 大 学 ！",
    ),  # words that are not tokens fall apart
    ("今天天氣很好", "今天 天 [UNK] 很 好"),
    ("卡拉OK的T恤", "卡拉 ok 的 t 恤"),  # lower case before cutting: 卡拉OK is a word of jieba, 卡拉ok is not
    ("CAFÉ 12％ 好", "cafe 12 ％ 好"),
    ("e\u0301e", "[UNK]"),
    ("iPhone12 iPhone 12 ip3", "[UNK] ip ##hone 12 ip ##3"),
    ("c++ C# 1+1", "c++ c # 1 + 1"),
    ("abc aBo abz", "a ##b ##c a ##b ##o [UNK]"),
    ("$1.2/3-4", "$ 1 . 2 / 3 - [UNK]"),
    ("我\u200b们\x00的\ufffd好", "我 们 的 好"),
    ("我\u3000们\u2028的\x85好\t天\n气", "我 们 的 好 天 气"),
    (
        "がカ한국 Пр",
        "か [UNK] [UNK] [UNK] [UNK] [UNK] [UNK] [UNK] [UNK] р",
    ),  # NFD: か without its mark, Hangul as letters
    ("😀🚗①㈠", "😀 [UNK] ① [UNK]"),
    ("１２ ＡＢ", "[UNK] [UNK] [UNK] [UNK]"),
    ("İ ΑΣ ß", "[UNK] [UNK] [UNK] [UNK]"),
    ("\u9fff\U00020000天\uf900好", "[UNK] [UNK] 天 [UNK] 好"),
    ("机器学习ok", "机器 学习 ok"),
    ("[CLS]今[MASK]<S>", "[UNK] [UNK] [UNK] 今 [UNK] [UNK] [UNK] [UNK] [UNK] [UNK]"),
    ("a" + "b" * 199, "a" + " ##b" * 199),
    ("a" + "b" * 200, "[UNK]"),
    (" \n", ""),
]
JIEBA = [
    "结婚 的 和 尚未 结婚 的",
    "研究 生命 起源",
    "南京市 长江大桥",
    "iphone12 发布会 5g 手机",
    "乒乓球 拍卖 完 了",
    "他 来到 了 网易 杭 研 大厦",  # with the hidden Markov model 杭研 would be a word
]

ODD = "\x00\x01\t\r\n \x7f\x85\xa0\xad\u0300\u0301\u0345\u0391\u03a3\u03c2\u0130\u1e9e\u200b\u200d\u2028\u2029\u3000"
ODD += (
    "\u3099\uf900\ufe0f\uff21\uff0c\ufffd\ue000\u0378\uac00\U0001f600\U0001f468\U00020000\U0002ebe0\U0002f800\U000e0100"
)
ODD += "\u3007$+^`~_[]#"
some_text = st.lists(
    st.one_of(
        st.sampled_from(TOKENS),
        st.sampled_from(sorted(ODD)),
        st.text("abcxyzABC0189", min_size=1, max_size=6),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
).map("".join)


def reference(text: str) -> list[str]:
    """Section by section from the description of bert4keras's tokenizer, character by character, nothing remembered."""
    tokens = []
    for word in rjieba.cut(lower(text), False):
        tokens += [word] if word in VOCABULARY else plain(word)
    return tokens


def lower(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.lower())
    return "".join(filter(lambda c: unicodedata.category(c) != "Mn", decomposed))


def plain(text: str) -> list[str]:
    return [piece for word in basic(text) for piece in longest_first(word, "")]


def basic(text: str) -> list[str]:
    spaced = ""
    for c in lower(text):
        code, category = ord(c), unicodedata.category(c)
        ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
        chinese = 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2A6DF
        chinese |= 0x2A700 <= code <= 0x2CEAF or 0xF900 <= code <= 0xFAFF or 0x2F800 <= code <= 0x2FA1F
        if ascii_mark or chinese or category.startswith("P"):
            spaced += " " + c + " "
        elif c in " \t\n\r" or category == "Zs":
            spaced += " "
        elif code not in (0, 0xFFFD) and category not in ("Cc", "Cf"):
            spaced += c
    return spaced.split()


def longest_first(word: str, mark: str) -> list[str]:
    if not word:
        return []
    for end in range(len(word), 0, -1):
        if mark + word[:end] in VOCABULARY:
            rest = longest_first(word[end:], "##")
            return ["[UNK]"] if rest == ["[UNK]"] else [mark + word[:end], *rest]
    return ["[UNK]"]


def ids_of(tokens: list[str]) -> list[int]:
    return [VOCABULARY.index(token) for token in tokens]


@pytest.mark.parametrize(("text", "tokens"), BERT4KERAS)
def test_encode_gives_the_tokens_of_bert4keras(text, tokens):
    assert [VOCABULARY[i] for i in TOKENIZER.encode(text)] == tokens.split()


@given(some_text)
@example("ΑΣ\u0345")
@example("a\u0315\u0300b")
def test_encode_equals_the_definition(text):
    expected = ids_of(reference(text))
    assert TOKENIZER.encode(text) == expected
    assert TOKENIZER.encode(text) == expected  # now remembered


@given(some_text)
@example("a$b\tc\xa0d\u3000e\U0002a700f\u200bg")
def test_split_plain_equals_the_definition(text):
    assert split_plain(lower(text)) == basic(text)


@given(some_text)
def test_text_never_becomes_a_special_token(text):
    for special in ("[CLS]", "[SEP]", "<S>", "[unused1]"):
        assert set(TOKENIZER.encode(special + text + special)).isdisjoint(set(range(106)) - {TOKENIZER.unk_id})


@pytest.mark.parametrize("expected", JIEBA)
def test_words_are_those_of_jieba(expected):
    assert words(expected.replace(" ", "").upper()) == expected.split()


def test_words_equal_jieba_on_glued_dictionary_words():
    jieba = pytest.importorskip("jieba", reason="jieba comes with the parity extra")
    jieba.setLogLevel(60)
    jieba.initialize()
    dice, dictionary = random.Random(0), list(jieba.dt.FREQ)
    for _ in range(2000):
        text = normalise("".join(dice.choices(dictionary, k=8)) + chr(dice.randrange(0xD800)))
        assert words(text) == list(jieba.cut(text, HMM=False))


def test_remembered_words_are_bounded(monkeypatch):
    monkeypatch.setattr(wordpieces, "_REMEMBERED_WORDS", len(VOCABULARY) + 5)
    tokenizer = PegasusTokenizer(VOCABULARY)
    text = " ".join(f"a{'b' * n}" for n in range(1, 50))
    assert tokenizer.encode(text) == ids_of(reference(text))
    assert len(tokenizer._word_ids) == len(VOCABULARY) + 5


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    return train_sentencepiece(
        ["今天天气很好，我们去北京大学学习机器翻译。", "Deep learning 让机器学习更好用。"] * 20, 400
    )


@pytest.mark.parametrize("kind", ["pegasus", "sentencepiece"])
@pytest.mark.parametrize("max_length", [3, 5, 9, 10, 11, 12, 50])
def test_frames_keep_the_specials_within_the_length(kind, max_length, sentencepiece_model):
    tokenizer = TOKENIZER if kind == "pegasus" else SentencePieceTokenizer(sentencepiece_model)
    ids = list(range(200, 210))
    source, target = tokenizer.frame_source(ids, max_length), tokenizer.frame_target(ids, max_length)
    first = [101] if kind == "pegasus" else []
    assert source == first + ids[: max_length - 1 - len(first)] + [tokenizer.eos_id]
    cut = len(ids) > max_length - 2  # then no end token: it would teach to end within a sentence
    assert target == (ids[: max_length - 1] if cut else [*ids, tokenizer.eos_id])
    assert len(source) <= max_length and len(target) < max_length
    assert (tokenizer.start_id, tokenizer.eos_id) == ((101, 102) if kind == "pegasus" else (0, 1))
    assert ids == list(range(200, 210))


def test_frames_without_room_are_refused():
    with pytest.raises(DataError, match="at least 3"):
        TOKENIZER.frame_target([200], 2)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("[CLS] 我们 的 ip ##hone 12 很 好 ！ [SEP] 今天", "我们的iphone 12很好！"),
        ("a ##b ok c ， ok 好 ok", "ab ok c，ok好ok"),
        ("3 . 12 % ok - c # 1", "3.12% ok-c# 1"),
        ("[PAD] [UNK] [MASK] 天 <S> [unused7] 气 <T>", "天气"),
        ("##hone ip", "hone ip"),
        ("", ""),
    ],
)
def test_decode_joins_as_the_seed_does(tokens, text):
    ids = ids_of(tokens.split())
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode(np.array(ids, np.int32)) == text
    assert TOKENIZER.decode([-100, -1, len(VOCABULARY), *ids]) == text


@given(st.lists(st.sampled_from(["今", "天", "我们", "ip", "iphone", "ab", "，", "！", "12", " "])).map("".join))
def test_decode_undoes_encode_but_for_spaces(text):
    ids = TOKENIZER.encode(text)
    if TOKENIZER.unk_id not in ids:
        assert "".join(TOKENIZER.decode(ids).split()) == "".join(text.split())


def test_pegasus_saves_and_loads(tmp_path):
    tokenizer = PegasusTokenizer([*VOCABULARY, "\u2028", "##\u2028"])  # both are in Chinese BERT's own vocabulary
    tokenizer.save(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["vocab.txt"]
    for path in (tmp_path / "new", tmp_path / "new/vocab.txt", str(tmp_path / "new")):
        loaded = load_tokenizer(path)
        assert loaded.vocabulary == tokenizer.vocabulary and loaded.vocab_size == len(VOCABULARY) + 2
        assert loaded.fingerprint == tokenizer.fingerprint != TOKENIZER.fingerprint
    (tmp_path / "crlf.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(VOCABULARY).encode())  # as Windows writes it
    assert load_tokenizer(tmp_path / "crlf.txt").fingerprint == TOKENIZER.fingerprint


def test_sentencepiece_saves_and_loads(tmp_path, sentencepiece_model):
    tokenizer = SentencePieceTokenizer(sentencepiece_model)
    tokenizer.save(tmp_path)
    assert (tmp_path / "spiece.model").read_bytes() == sentencepiece_model
    loaded = load_tokenizer(tmp_path)
    assert loaded.kind == "sentencepiece" and loaded.fingerprint == tokenizer.fingerprint != TOKENIZER.fingerprint
    assert loaded.encode("今天很好") == tokenizer.encode("今天很好")


@pytest.mark.parametrize("kind", ["pegasus", "sentencepiece"])
def test_pickled_tokenizer_gives_the_same_ids(kind, sentencepiece_model):
    tokenizer = TOKENIZER if kind == "pegasus" else SentencePieceTokenizer(sentencepiece_model)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("今天我们学习abc机器") == tokenizer.encode("今天我们学习abc机器")
    assert copy.fingerprint == tokenizer.fingerprint


@given(st.text("今天天气很好去北京大学机器翻译龘😀abcXYZ,。12 ", max_size=30))
def test_sentencepiece_decode_undoes_encode(sentencepiece_model, text):
    tokenizer = SentencePieceTokenizer(sentencepiece_model)
    ids = tokenizer.encode(text)
    assert all(tokenizer.unk_id < i < tokenizer.vocab_size for i in ids)  # bytes stand in for unknown characters
    assert tokenizer.decode([0, 2, *ids, tokenizer.vocab_size, 1, *ids]) == " ".join(text.split())


def changed(line: int, token: str) -> bytes:
    lines = list(VOCABULARY)
    lines[line - 1] = token
    return "\n".join(lines).encode()


def test_blanks_beside_a_token_are_not_of_it(tmp_path):
    """As in bert4keras; a token that is a blank stays one."""
    words = [*VOCABULARY, "没有", "\u3000", "\u2028"]
    blanks = [f"{word} " if n % 3 else f"\t{word}" for n, word in enumerate(words)]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*blanks, " "]).encode())
    assert load_tokenizer(tmp_path).vocabulary == [*words, " "]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(5, ""), "vocab.txt:5: empty line"),
        (changed(120, "天气"), r"vocab.txt:\d+: '天气' is already on line \d+"),
        (changed(101, "[unk]"), r"vocab.txt:101: '\[unk\]' where \[UNK\] must be"),
        ("\n".join(VOCABULARY[:100]).encode(), r"vocab.txt:101: nothing where \[UNK\] must be"),
        (b"", r"vocab.txt:1: nothing where \[PAD\] must be"),
        (
            "\n".join(VOCABULARY).encode("gb18030", "ignore"),
            "vocab.txt, line 107: byte 0x.. is not UTF-8; .*iconv -f gb18030",
        ),
        ("\r".join(VOCABULARY).encode(), "vocab.txt: its lines end in CR alone; convert it, as by tr"),
        ("\n".join(VOCABULARY).encode("utf-16"), "vocab.txt: UTF-16, by its first two bytes; .* iconv -f utf-16"),
    ],
)
def test_bad_vocabulary_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_bad_folders_and_models_are_named(tmp_path, sentencepiece_model):
    def error(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            load_tokenizer(path)
        assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in error(tmp_path / "absent")
    assert "holds neither vocab.txt nor spiece.model" in error(tmp_path)
    for broken in (b"", b"not a model", sentencepiece_model[:-9]):
        (tmp_path / "spiece.model").write_bytes(broken)
        assert "spiece.model: not a sentencepiece model" in error(tmp_path)
    TOKENIZER.save(tmp_path)
    assert "holds both vocab.txt and spiece.model" in error(tmp_path)


def test_sentencepiece_with_other_ids_is_refused():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["今天天气很好"]),
        model_writer=model,
        vocab_size=12,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(DataError, match=r"\(-1, 2, 0\), not mT5's \(0, 1, 2\)"):
        SentencePieceTokenizer(model.getvalue())


def test_capitals_are_kept_where_the_folder_says_so(tmp_path):
    """do_lower_case of tokenizer_config.json; saved, sent to workers and told apart by the fingerprint."""
    vocabulary = [*SPECIALS, "天", "app", "App", "é", "e"]
    PegasusTokenizer(vocabulary).save(tmp_path)
    lower = load_tokenizer(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"do_lower_case": false, "strip_accents": null}')
    cased = load_tokenizer(tmp_path)
    pieces = {name: [vocabulary[i] for i in t.encode("App天é")] for name, t in (("lower", lower), ("cased", cased))}
    assert pieces == {"lower": ["app", "天", "e"], "cased": ["App", "天", "é"]}
    assert cased.fingerprint != lower.fingerprint
    cased.save(saved := tmp_path / "saved")
    for again in (load_tokenizer(saved), pickle.loads(pickle.dumps(cased))):
        assert again.fingerprint == cased.fingerprint and again.encode("App天é") == cased.encode("App天é")
    for wrong in ('{"do_lower_case": false, "strip_accents": true}', '{"tokenize_chinese_chars": false}'):
        settings.write_text(wrong)
        with pytest.raises(DataError, match="tokenizer_config.json: .*; "):
            load_tokenizer(tmp_path)


def test_the_line_separator_that_an_editor_emptied(tmp_path):
    """Chinese BERT has U+2028 as a token, between ‧ and ‰: the ids after it stay right. An empty line elsewhere does
    not say which token it was, and two in its place have moved the ids."""
    whole = "\n".join([*SPECIALS, "‧", "\u2028", "‰", "天"]) + "\n"
    file = tmp_path / "vocab.txt"
    file.write_text(whole)
    wanted = load_tokenizer(file)
    file.write_text(whole.replace("\u2028", ""))
    assert load_tokenizer(file).fingerprint == wanted.fingerprint
    for text in (whole.replace("\u2028", "\n"), whole.replace("\u2028\n", "").replace("天", "\n天")):
        file.write_text(text)
        with pytest.raises(DataError, match="empty line; to keep the ids"):
            load_tokenizer(file)
