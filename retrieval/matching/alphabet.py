"""The numbers of anonymised text as a vocabulary: a number is a word of it whose letters are digits.

So all that is done with a vocab.txt is done with anonymised text too: pretraining, vectors, export. Words of the two
labels, and of numbers that are too rare to be learned, are tokens that Chinese BERT leaves unused.
"""

from collections import Counter
from collections.abc import Iterable

from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer, Tokenizer
from training.files.errors import DataError

LEAST = 5  # occurrences of a number that is learned
NO, YES = 1, 2  # ids of the labels' words: [unused1], [unused2]
RARE = range(3, 100)  # ids of the numbers that are rare, by their order within a pair: [unused3] …


def count_numbers(texts: Iterable[str]) -> Counter[str]:
    """How often each number comes in texts of numbers between blanks."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.split())
    return counts


def make_alphabet(counts: Counter[str], least: int = LEAST) -> PegasusTokenizer:
    """The numbers of `numbers_of` after Chinese BERT's special tokens."""
    return PegasusTokenizer([*SPECIALS, *numbers_of(counts, least)], "alphabet")


def numbers_of(counts: Counter[str], least: int = LEAST) -> list[str]:
    """Those that come `least` times or more, the commonest first. Raises DataError where there is none."""
    kept = sorted(
        (n for n, count in counts.items() if count >= least), key=lambda n: (-counts[n], len(n.lstrip("0")), n)
    )
    if not kept:
        raise DataError(f"no number comes {least} times or more among {counts.total():,}; give more text, or --least")
    return kept


def is_alphabet(tokenizer: Tokenizer) -> bool:
    """Are its words numbers?"""
    return isinstance(tokenizer, PegasusTokenizer) and all(map(is_number, tokenizer.vocabulary[len(SPECIALS) :]))


def is_number(word: str) -> bool:
    """Of ASCII digits alone; Python takes others for digits, too."""
    return word.isascii() and word.isdigit()
