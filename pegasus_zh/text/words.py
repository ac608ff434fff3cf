"""The ids of words that a text is to begin with, or never to have."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice

from pegasus_zh.text.spacing import is_chinese
from pegasus_zh.text.tokenizers import Tokenizer
from training.files.errors import DataError

_MOST = 1000  # ways to write a word
# What stands for masked spans in T5's own objective: mT5's, and UER's in a vocab.txt.
_SENTINEL = re.compile(r"<extra_id_\d+>|extra\d+")


def opening(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The ids of what every text begins with. Raises DataError where the vocabulary cannot write it."""
    ids = tokenizer.encode(text)
    if tokenizer.unk_id in ids:
        raise DataError(f"begin is {text!r}: the model's vocabulary cannot write it; give other words")
    return tuple(ids)


def spellings(tokenizer: Tokenizer, word: str) -> tuple[tuple[int, ...], ...]:
    """All ways in which the vocabulary writes a word: as a token or within one, or as several tokens in a row. None
    where it cannot.

    Of a character that is a token of its own, its bytes are among them, which no text needs. A word that begins or ends
    within a token among several is not found. Raises DataError for a word with too many.
    """
    ids, pieces, parted, of_text = (
        tokenizer.encode(word),
        tokenizer.pieces(),
        tokenizer.parted(),
        defaultdict[str, list[int]](list),
    )
    for i, piece in enumerate(pieces):
        of_text[piece].append(i)

    def is_own(character: str) -> bool:
        return any(not parted[i] for i in of_text.get(character, ()))

    def ways(rest: str, before: str = "") -> Iterator[tuple[int, ...]]:
        """Of what is left of a word, after this character; a blank between letters is where the word has one."""
        if not rest:
            yield ()
            return
        blank = {True} if rest[0] == " " else {False} if _is_letter(before) and _is_letter(rest[0]) else {True, False}
        rest = rest.lstrip()
        for end in range(1, len(rest) + 1):
            for i in of_text.get(rest[:end], ()):
                if parted[i] in blank:
                    yield from ((i, *others) for others in ways(rest[end:], rest[end - 1]))
        if not is_own(rest[0]) and (own := tokenizer.byte_ids(rest[0])):
            yield from ((*own, *others) for others in ways(rest[1:], rest[0]))

    texts = {_closed(tokenizer.normalise(word))}
    if tokenizer.unk_id not in ids:  # as a sentencepiece model normalises
        texts.add(_closed(tokenizer.decode(ids)))
    texts.discard("")  # which is in all of them
    found: set[tuple[int, ...]] = {(i,) for i, piece in enumerate(pieces) if any(text in piece for text in texts)}
    found |= {*islice(chain.from_iterable(map(ways, texts)), _MOST)}
    if len(found) >= _MOST:
        raise DataError(
            f"forbid has {word!r}, which the vocabulary writes in {_MOST:,} ways or more: give a longer word, or a part"
        )
    if found:
        found |= {tokenizer.byte_ids(character) for text in texts for character in text if is_own(character)} - {()}
    return tuple(sorted(found))


def _closed(text: str) -> str:
    """With blanks between letters of words alone, and one there."""
    closed = ""
    for part in text.split():
        closed += " " * (_is_letter(closed[-1:]) and _is_letter(part[0])) + part
    return closed


def _is_letter(character: str) -> bool:
    """Of a word that has no blank within, unlike Chinese."""
    return character.isalnum() and not is_chinese(character)


def sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of `<extra_id_0>`, …, which an mT5 has learned to begin with, and no text of a pair has."""
    added = {token.id: token.content for token in tokenizer.settings.added}  # of special ones no piece is left
    names = dict(enumerate(tokenizer.pieces())) | added
    return tuple(i for i, name in names.items() if _SENTINEL.fullmatch(name))
