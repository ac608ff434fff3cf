"""Tokens that were added beside a vocabulary: each is one id, wherever it stands in a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import models, normalizers


@dataclass(frozen=True)
class Added:
    """One of them, in the words of transformers' AddedToken."""

    id: int
    content: str
    special: bool = False  # decoding leaves it out
    normalized: bool = False  # it is sought in the text as normalised, else as written
    lstrip: bool = False  # it takes the blanks before it
    rstrip: bool = False  # and those behind it
    single_word: bool = False  # not within a word


class AddedTokens:
    """Finds them as transformers does: by the library that it uses, as the tokens of a vocabulary that has no other."""

    def __init__(self, tokens: Sequence[Added], normalizer: normalizers.Normalizer | None) -> None:
        self._finder = tokenizers.Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        if normalizer is not None:
            self._finder.normalizer = normalizer
        self._finder.add_tokens([library_token(token) for token in tokens])
        self._ids = {self._finder.token_to_id(token.content): token.id for token in tokens}

    def split(self, text: str) -> Iterator[int | str]:
        """The ids of those found, and the text between them as it is, in order."""
        found = self._finder.encode(text, add_special_tokens=False)
        for i, (start, end) in zip(found.ids, found.offsets, strict=True):
            yield self._ids[i] if i else text[start:end]


def library_token(token: Added) -> tokenizers.AddedToken:
    """As the tokenizers library has it."""
    return tokenizers.AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )
