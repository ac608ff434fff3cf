"""Blanks between tokens are those of bert4keras's decoder, rule by rule as it rewrites the text."""

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.spacing import join_tokens

FULL_WIDTH = "".join(map(chr, [*range(0xFF02, 0xFF0E), 0xFF0F, *range(0xFF1A, 0xFF1F), 0xFF20, *range(0xFF3B, 0xFF41)]))
CHINESE_MARKS = (
    FULL_WIDTH
    + "".join(
        map(chr, [*range(0xFF5B, 0xFF61), 0xFF62, 0xFF63, 0xFF64, 0x3000, 0x3001, 0x3003, *range(0x3008, 0x3012)])
    )
    + "".join(map(chr, [*range(0x3014, 0x3020), 0x3030, 0x303E, 0x303F, 0x2013, 0x2014, 0x2018, 0x2019]))
    + "\u201b\u201c\u201d\u201e\u201f\u2026\u2027\ufe4f\ufe51\ufe54\xb7\uff01\uff1f\uff61\u3002"
)


def chinese(character: str) -> bool:
    return unicodedata.name(character, "").startswith("CJK ") and "IDEOGRAPH" in unicodedata.name(character)


def mark(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def reference(tokens: list[str]) -> str:
    """First all blanks that could be, then those taken away that should not."""
    text = ""
    for token in tokens:
        if token.startswith("##"):
            text += token.removeprefix("##")
        elif len(token) == 1 and chinese(token):
            text += token
        elif len(token) == 1 and mark(token):
            text += f"{token} "
        else:
            text += token if text and chinese(text[-1]) else f" {token}"
    while "  " in text:
        text = text.replace("  ", " ")
    for clitic in ("re", "m", "s", "t", "ve", "d", "ll"):
        text = text.replace(f"' {clitic} ", f"'{clitic} ")
    for closed in [*CHINESE_MARKS, *"+-/={(<["]:
        text = text.replace(f"{closed} ", closed)
    return re.sub("([0-9][.]) ([0-9])", r"\1\2", text).strip()


PIECES = [
    "我",
    "们",
    "今天",
    "iphone",
    "it",
    "s",
    "t",
    "ve",
    "##s",
    "##们",
    "3",
    "14",
    "2020",
    "年",
    "'",
    ".",
    ",",
    "(",
    ")",
]
PIECES += [
    "%",
    "-",
    "+",
    "$",
    "：",
    "，",
    "。",
    "《",
    "》",
    "“",
    "…",
    "——",
    "℃",
    "·",
    "!",
    "?",
    "/",
    "<",
    "=",
    "c++",
    "c#",
    "a.",
    "#",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_blanks_are_the_reference(tokens: list[str]) -> None:
    assert join_tokens(tokens) == reference(tokens)


@given(st.lists(st.one_of(st.sampled_from(CHINESE_MARKS + string.punctuation), st.sampled_from(["a", "好", "好人"]))))
def test_every_mark_is_the_reference(tokens: list[str]) -> None:
    tokens = [token for token in tokens if not token.isspace()]  # which no tokenizer has for a token
    assert join_tokens(tokens) == reference(tokens)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("hello , world .", "hello, world."),
        ("it ' s a test ( of 3 . 14 % )", "it's a test(of 3.14% )"),
        ("基于 deep learning 的 方法", "基于deep learning的方法"),
        ("deep ##er 学习 2020 年 ： 好", "deeper 学习2020年：好"),
        ("p < 0 . 05 ， n = 3", "p<0.05，n=3"),
    ],
)
def test_sentences(tokens: str, text: str) -> None:
    assert join_tokens(tokens.split()) == reference(tokens.split()) == text
