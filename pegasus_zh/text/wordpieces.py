"""Words and their pieces: a text normalised and cut by jieba, a word looked up or cut by BERT's rules."""

import re
import unicodedata

import rjieba
import tokenizers
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from pegasus_zh.text.spacing import is_chinese

UNK = "[UNK]"
LONGEST_WORD = 200  # characters; bert4keras's `word_maxlen`, beyond which a word is [UNK]
_REMEMBERED_WORDS = 1 << 18  # about 50 MB: the vocabulary, and the first 200,000 other words of a corpus

# Combining marks are rare in Chinese text, so one search decides whether to look at each character. Beyond the basic
# plane the regular expression would become slow, so every such character (an emoji, say) counts as a possible mark.
_MAY_BE_MARK = re.compile(
    "[" + "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c) == "Mn") + "\U00010000-\U0010ffff]"
)


class WordIds(dict[str, tuple[int, ...]]):
    """The ids of a word: known for the vocabulary's own, worked out and remembered for the others that are met."""

    def __init__(self, ids: dict[str, int]) -> None:
        super().__init__((token, (i,)) for token, i in ids.items())
        self._wordpiece = WordPiece(ids, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(piece.id for part in split_plain(word) for piece in self._wordpiece.tokenize(part))
        if len(self) < _REMEMBERED_WORDS and len(word) <= LONGEST_WORD:
            self[word] = ids
        return ids


def plain_bert(ids: dict[str, int], cased: bool) -> tokenizers.Tokenizer:
    """BERT's own tokenizer (Devlin et al., 2019), without special tokens."""
    made = tokenizers.Tokenizer(WordPiece(ids, unk_token=UNK))
    made.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def words(text: str) -> list[str]:
    """The words that encode looks up: jieba's without its hidden Markov model, of the normalised text."""
    return rjieba.cut(normalise(text), False)


def normalise(text: str) -> str:
    """Lower case, canonical decomposition (NFD), no combining marks (Mn)."""
    text = unicodedata.normalize("NFD", text.lower())
    if _MAY_BE_MARK.search(text):
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    return text


def split_plain(text: str) -> list[str]:
    """BERT's basic tokenizer on normalised text: words by space, Chinese characters and punctuation by themselves."""
    return "".join(map(_spell, text)).split()


def _spell(character: str) -> str:
    """What the basic tokenizer makes of one character: itself, itself between spaces, or nothing."""
    category = unicodedata.category(character)
    # The ASCII symbols that Unicode does not class as punctuation ($ + < = > ^ ` | ~) are punctuation to BERT.
    if category[0] == "P" or (character.isascii() and category[0] == "S") or is_chinese(character):
        return f" {character} "
    if character == "\ufffd" or (category in ("Cc", "Cf") and character not in "\t\n\r"):
        return ""
    return character
