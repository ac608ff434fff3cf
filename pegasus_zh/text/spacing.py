"""Blanks between tokens, as T5-PEGASUS's decoder sets them (`Tokenizer.decode` of https://github.com/bojone/bert4keras):
its figures are of texts that were joined so.

Chinese is written without blanks. A word of another script, a number, or a word of several Chinese characters has one
before it unless a Chinese character stands there; a mark of punctuation has none before it and one behind, but for the
Chinese ones, opening brackets and + - / = <. In "it's a" and "3.14" there is none.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_CHINESE = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)
_CLOSE = frozenset(  # what no blank follows
    "+-/={(<[＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛"
    "〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏﹑﹔·！？｡。"
)
_CLITIC = re.compile("' (re|m|s|t|ve|d|ll)(?= )")
_DECIMAL = re.compile(r"(\d\.) (\d)")


def join_tokens(tokens: Iterable[str]) -> str:
    """The text of wordpieces ("##" continues a word), none of them special."""
    parts: list[str] = []
    last = _Part("", is_word=False, is_mark=False, is_chinese=False, closes=True)
    for part in map(_part, tokens):
        if not last.closes and (last.is_mark or (part.is_word and not last.is_chinese)):
            parts.append(" ")
        parts.append(part.text)
        last = part
    text = "".join(parts)
    if "' " in text:
        text = _CLITIC.sub(r"'\1", text)
    return _DECIMAL.sub(r"\1\2", text) if ". " in text else text


class _Part(NamedTuple):
    """What a token adds to a text, and what decides the blanks beside it."""

    text: str
    is_word: bool  # before which there is a blank
    is_mark: bool  # behind which there is one
    is_chinese: bool  # by its last character
    closes: bool  # so that none follows


@lru_cache(1 << 16)  # a text has few kinds
def _part(token: str) -> _Part:
    begins = not (token.startswith("##") and len(token) > 2)
    text = token if begins else token[2:]
    alone = len(text) == 1 and begins
    is_mark = alone and _is_mark(text)
    is_word = begins and not is_mark and not (alone and is_chinese(text))
    return _Part(text, is_word, is_mark, is_chinese(text[-1]), text[-1] in _CLOSE)


def is_chinese(character: str) -> bool:
    """As BERT's basic tokenizer has it: of the blocks of CJK ideographs."""
    return _CHINESE.match(character) is not None


def _is_mark(character: str) -> bool:
    """Punctuation as BERT has it: the symbols of ASCII, too."""
    category = unicodedata.category(character)
    return category[0] == "P" or (category[0] == "S" and character.isascii())
