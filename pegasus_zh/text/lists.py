"""Lists of texts, as a caller gives them: a text is itself an iterable of texts, of one character each."""

from collections.abc import Iterable


def many(texts: Iterable[str]) -> Iterable[str]:
    """The texts as they are. Raises ValueError for one text where a list of them belongs."""
    if isinstance(texts, (str, bytes)):
        raise ValueError(f"{texts[:20]!r} is one text: give a list of texts, [text]")
    if not isinstance(texts, Iterable):
        raise ValueError(f"texts is {texts!r:.40}: give a list of texts")
    return texts


def listed(texts: Iterable[str]) -> list[str]:
    """One text or more. Raises ValueError for none, for one that is not in a list, and for what is no text."""
    found = list(many(texts))
    if not found:
        raise ValueError("no texts: give one or more")
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is {text!r:.40}, not a str: leave it out, or decode it")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"text {number} has half of a surrogate pair: leave it out, or decode it again") from None
    return found
