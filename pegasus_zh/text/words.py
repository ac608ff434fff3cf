"""The ids of words that a text is to begin with, or never to have."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice

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

    A word that begins or ends within a token among several is not found. Raises DataError for a word with too many.
    """
    ids, pieces, of_text = tokenizer.encode(word), tokenizer.pieces(), defaultdict[str, list[int]](list)
    for i, piece in enumerate(pieces):
        of_text[piece].append(i)

    def ways(rest: str) -> Iterator[tuple[int, ...]]:
        if not rest:
            yield ()
        for end in range(1, len(rest) + 1):
            for i in of_text.get(rest[:end], ()):
                yield from ((i, *others) for others in ways(rest[end:]))

    texts = {"".join(tokenizer.normalise(word).split())}
    if tokenizer.unk_id not in ids:  # as a sentencepiece model normalises
        texts.add("".join(pieces[i] for i in ids))
    texts.discard("")  # which is in all of them
    found: set[tuple[int, ...]] = {(i,) for i, piece in enumerate(pieces) if any(text in piece for text in texts)}
    found |= {*islice(chain.from_iterable(map(ways, texts)), _MOST)}
    if len(found) >= _MOST:
        raise DataError(
            f"forbid has {word!r}, which the vocabulary writes in {_MOST:,} ways or more: give a longer word, or a part"
        )
    return tuple(sorted(found))


def sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of `<extra_id_0>`, …, which an mT5 has learned to begin with, and no text of a pair has."""
    added = {token.id: token.content for token in tokenizer.settings.added}  # of special ones no piece is left
    names = dict(enumerate(tokenizer.pieces())) | added
    return tuple(i for i, name in names.items() if _SENTINEL.fullmatch(name))
