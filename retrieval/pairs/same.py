"""When two texts are the same to a reader, and of how many tokens they are, whatever model will read them."""

import re
import unicodedata

import rjieba

_MARKS = "，。！？；：、…—～·,.!?;:~'\"“”‘’「」『』（）()《》〈〉【】〔〕〖〗[]{}"
_UNSEEN = "\xad\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff"  # of no width, which copies bring along
# Not within a number or a word of Latin letters: 1.5 is not 15.
_UNSAID = re.compile(rf"[\s{_UNSEEN}]|(?<![0-9a-z])[{re.escape(_MARKS)}]|[{re.escape(_MARKS)}](?![0-9a-z])")
_LATIN = "a-zà-öø-ɏḁ-ỿ"  # with accents, as NFKC has them
_TOKEN = re.compile(rf"[0-9{_LATIN}]+(?:,[0-9]{{3}})*(?:\.[0-9]+)*|[^\W_]")


def one_line(text: str) -> str:
    """With a space for any white space, so that it fits into a column."""
    return " ".join(text.split())


def said(text: str) -> str:
    """What two texts share that differ in width, case, white space and punctuation alone; of marks alone the marks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _UNSAID.sub("", plain) or one_line(plain)


def tokens(text: str) -> list[str]:
    """Its characters but punctuation, a number or a Latin word being one."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def words(text: str) -> list[str]:
    """Its words by jieba (HMM off) but punctuation."""
    return [word for word in rjieba.cut(unicodedata.normalize("NFKC", text).casefold(), False) if _TOKEN.search(word)]
