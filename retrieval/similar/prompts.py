"""Texts as prompts: [CLS] text [SEP], with [MASK] for what is to change."""

import re
from collections.abc import Sequence

from pegasus_zh.text.tokenizers import Tokenizer
from training.files.errors import DataError


def prompt_of(
    text: str, tokenizer: Tokenizer, length: int, change: Sequence[str] = (), mask_idxs: Sequence[int] = ()
) -> list[int]:
    """The ids of a text between [CLS] and [SEP], at most `length`, with [MASK] for each id of the words that are to
    change, wherever they stand, and at these places ([CLS] being 0).

    What is beside such a word is tokenized by itself. Raises DataError, one line, for a text without ids or of unknown
    ones alone, a word or place that it does not have, and one that is cut off.
    """
    shown = repr(text if len(text) <= 20 else text[:20] + "…")
    if absent := [word for word in change if word not in text]:
        raise DataError(f"{absent[0]!r} is to change, and {shown} does not have it: give a word as it stands there")
    parts = re.split(f"({'|'.join(map(re.escape, sorted(change, key=len, reverse=True)))})", text) if change else [text]
    ids: list[int] = []
    mask = tokenizer.mask_id
    assert mask is not None  # an encoder's tokenizer has one
    for number, part in enumerate(parts):
        found = tokenizer.encode(part)
        ids += [mask] * len(found) if number % 2 else found
    if not ids:
        raise DataError(f"{shown} has nothing that the vocabulary sees: leave it out")
    if all(i == tokenizer.unk_id for i in ids):
        raise DataError(
            f"{shown} has only characters that the vocabulary does not: leave it out, or take another model"
        )
    framed = tokenizer.frame_source(ids, length)
    if ids.count(mask) > framed.count(mask):
        raise DataError(f"{shown}: a word that is to change is beyond its first {length} ids: give a longer max_source")
    for place in mask_idxs:
        if place >= len(framed) - 1:
            raise DataError(f"mask_idxs has {place}, and {shown} has ids from 1 to {len(framed) - 2}")
        framed[place] = mask
    return framed
