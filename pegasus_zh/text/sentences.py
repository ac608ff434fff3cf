"""Raw text -> sentences -> groups of sentences, the input of the pseudo-summary objective.

T5-PEGASUS (Su 2021, https://kexue.fm/archives/8209) does not cut at every end of sentence: it cuts, then merges the
pieces greedily up to 32 characters, so that a "sentence" is a unit of comparable size whatever the author's style.
"""

import re
from collections.abc import Iterable, Iterator

_LINE_END = re.compile(r"(\n)")
_FULL_STOP = re.compile(r"(。)")

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# `re` searches fastest for a leading character class, so the conditions come after it. [!-~] is visible ASCII.
_END_MARK = re.compile(
    rf"""( [。！？；…!?.]
         (?: (?<=[。！？；…])
           | (?<=[!?]) (?![!-~])
           | (?<=[{_HAN}）】》」』”’％)\]"%]\.) (?![!-~])
         )
         [”’」』）】》)\]]* )""",
    re.VERBOSE,
)


def split_sentences(text: str, *, faithful: bool, max_length: int = 32) -> list[str]:
    """The sentences of `text` in order; joined, they are the text but for whitespace at their edges.

    A text longer than `max_length` characters is cut into lines, the lines are merged greedily into pieces of at most
    `max_length`, and a piece that is still longer is cut and merged at its sentence ends in the same way. A sentence
    longer than `max_length` stays whole. A sentence end is

    - `faithful`: "。" alone, as in T5-PEGASUS, which also makes an empty sentence of a blank line between long ones;
    - otherwise: any of "。！？；…"; "!" or "?" if no visible ASCII character follows at once (as in a URL); "." after a
      Chinese character, a closing bracket or quotation mark or "%", under the same condition: so abstracts that write
      "." for "。" are cut, and "3.14", "e.g.", "U.S.", "1.总则" and "文件.txt" are not. Closing quotation marks and
      brackets after an end belong to it. Empty sentences are dropped.
    """
    sentences = _segment(text, max_length, (_LINE_END, _FULL_STOP if faithful else _END_MARK))
    return sentences if faithful else [sentence for sentence in sentences if sentence]


def _segment(text: str, max_length: int, ends: tuple[re.Pattern[str], ...]) -> list[str]:
    text = text.strip()
    if not ends or len(text) <= max_length:
        return [text]
    piece, *parts = ends[0].split(text)  # body, end, body, ..., end, body
    sentences: list[str] = []
    for end, body in zip(parts[::2], parts[1::2], strict=True):
        piece += end
        if body and len(piece) + len(body) >= max_length:  # one character is left for the end of `body`
            sentences += _segment(piece, max_length, ends[1:])
            piece = body
        else:
            piece += body
    return sentences + _segment(piece, max_length, ends[1:])


def group_sentences(
    sentences: Iterable[str], *, max_characters: int = 768, min_sentences: int = 3
) -> Iterator[list[str]]:
    """Runs of sentences of at most `max_characters` characters, one training example each.

    A run is closed before the sentence that would pass `max_characters`, but not before it has `min_sentences`; a
    last run of fewer sentences is dropped. 768 = 1.5 * 512, the characters that fill 384 + 128 tokens (T5-PEGASUS).
    A sentence of more characters than that, as of text without any mark, is cut into such of so many: its longest
    common subsequences would take the square of its length, and of what they find no more fits into the ids.
    """
    group: list[str] = []
    characters = 0
    sentences = list(sentences)
    if max(map(len, sentences), default=0) > max_characters:
        sentences = [part for sentence in sentences for part in _cut(sentence, max_characters)]
    for sentence in sentences:
        if characters + len(sentence) > max_characters and len(group) >= min_sentences:
            yield group
            group, characters = [], 0
        group.append(sentence)
        characters += len(sentence)
    if len(group) >= min_sentences:
        yield group


def _cut(sentence: str, longest: int) -> list[str]:
    return [sentence[start : start + longest] for start in range(0, len(sentence) or 1, longest)]  # an empty one stays
