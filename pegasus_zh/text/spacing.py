"""Blanks between tokens, as T5-PEGASUS's decoder sets them (`Tokenizer.decode` of https://github.com/bojone/bert4keras):
its figures are of texts that were joined so.

Chinese is written without blanks. A word of another script, a number, or a word of several Chinese characters has one
before it unless a Chinese character stands there; a mark of punctuation has none before it and one behind, but for the
Chinese ones, opening brackets and + - / = <. In "it's a" and "3.14" there is none.
"""

import re
import unicodedata
from collections.abc import Iterable

CHINESE = re.compile(
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
    blank, last = False, ""  # is there to be one behind the last part? and its last character
    for token in tokens:
        begins = not (token.startswith("##") and len(token) > 2)
        token = token if begins else token[2:]
        alone = len(token) == 1 and begins
        is_mark = alone and _is_mark(token)
        if begins and not is_mark and not (alone and CHINESE.match(token)):
            blank = blank or not CHINESE.match(last)
        if blank and last and last not in _CLOSE:
            parts.append(" ")
        parts.append(token)
        blank, last = is_mark, token[-1]
    return _DECIMAL.sub(r"\1\2", _CLITIC.sub(r"'\1", "".join(parts)))


def _is_mark(character: str) -> bool:
    """Punctuation as BERT has it: the symbols of ASCII, too."""
    category = unicodedata.category(character)
    return category[0] == "P" or (category[0] == "S" and character.isascii())
