"""Groups of texts as ids, and the stream of pairs that is drawn of them: example n is a function of n and the seed.

Letters: G groups, B examples.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import rjieba

from pegasus_zh.text.losses import counting
from pegasus_zh.text.tokenizers import Tokenizer
from retrieval.tuning.groups import Group

# Where a text is cut in the first place, and next, as the seed cuts it.
_SEPARATORS = ("\n", "。", "！", "？", "!", "?", "；", ";", "，", ",", " ")
_STRIPPED = "；;，, "


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, one after the other: a billion ids are a few gigabytes, and no objects."""

    values: np.ndarray
    ends: np.ndarray  # int64 [rows + 1], the first 0

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.ends[row] : self.ends[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.ends)


def ragged(rows: Iterable[Iterable[int]], dtype: type) -> Ragged:
    parts, lengths, chunk = list[np.ndarray](), [0], list[int]()
    for row in rows:
        before = len(chunk)
        chunk.extend(row)
        lengths.append(len(chunk) - before)
        if len(chunk) > 1 << 20:
            parts.append(np.array(chunk, dtype))
            chunk = []
    return Ragged(np.concatenate([*parts, np.array(chunk, dtype)]), np.cumsum(lengths, dtype=np.int64))


class Words(NamedTuple):
    """Texts cut into words first: their ids, and whether each begins a word."""

    ids: Ragged
    begins: np.ndarray  # bool, of all ids


@dataclass(frozen=True)
class Questions:
    """Groups of texts that say the same, of several files."""

    texts: tuple[str, ...]  # each once
    ids: Ragged  # of each text
    words: Words | None  # of the same, where they are to be corrupted
    members: Ragged  # of each group, the numbers of its texts
    files: tuple[int, ...]  # groups of each file

    @property
    def digest(self) -> str:
        """Of all ids and groups."""
        found = hashlib.sha256(repr(self.files).encode())
        for x in (self.ids, self.members, *((self.words.ids,) if self.words else ())):
            found.update(x.values.tobytes() + x.ends.tobytes())
        return found.hexdigest()[:12]

    def part(self, chosen: np.ndarray) -> "Questions":
        """With these groups alone, bool [G]."""
        of_file = np.repeat(np.arange(len(self.files)), self.files)[chosen]
        members = ragged([self.members[g] for g in np.flatnonzero(chosen).tolist()], np.int64)
        files = tuple(np.bincount(of_file, minlength=len(self.files)).tolist())
        return replace(self, members=members, files=files)

    def split(self, fraction: float, seed: int) -> tuple["Questions", "Questions"]:
        """Without a share of each file's groups, and these."""
        draw = np.random.default_rng([seed, 2])
        chosen = np.concatenate([draw.permutation(n) < round(n * fraction) for n in self.files])
        return self.part(~chosen), self.part(chosen)


def tokenize(files: Sequence[Iterable[Group]], tokenizer: Tokenizer, longest: int, words: bool) -> Questions:
    """The groups' texts as ids, each cut to its first piece of six tenths of `longest` characters, as the seed does.

    words: also cut into words. Texts without ids are left out, and so are groups that lose all but one.
    """
    counted, lost = counting(tokenizer)
    numbers: dict[str, int] = {}  # of a piece; -1 of one without ids
    ids: list[list[int]] = []
    counts, groups = list[int](), list[list[int]]()
    for file in files:
        before = len(groups)
        for _, texts in file:
            members = dict[int, None]()  # in their order
            for text in texts:
                piece = first_piece(text, 0.6 * longest)
                if piece not in numbers:
                    found = counted.encode(piece)
                    numbers[piece] = len(ids) if found else -1
                    if found:
                        ids.append(found)
                if numbers[piece] >= 0:
                    members[numbers[piece]] = None
            if len(members) > 1:
                groups.append([*members])
        counts.append(len(groups) - before)
    texts = tuple(piece for piece, number in numbers.items() if number >= 0)
    lost().report("texts")
    cut = words_of(texts, tokenizer) if words else None
    return Questions(texts, ragged(ids, np.int32), cut, ragged(groups, np.int64), tuple(counts))


def first_piece(text: str, longest: float) -> str:
    """What comes first of a text that is cut at line ends, full stops, …, commas and blanks, each in turn, until it has
    `longest` characters at most; the whole beginning where it has no such mark."""
    return _first_piece(text, longest, _SEPARATORS)


def _first_piece(text: str, longest: float, separators: Sequence[str]) -> str:
    text = text.strip().strip(_STRIPPED)
    if len(text) <= longest or not separators:
        return text
    head, (mark, *rest) = "", separators
    for piece in text.split(mark):
        if head and piece and len(head) + len(piece) > longest - 1:
            break
        head += piece + mark
    else:
        head = head[: -len(mark)]
    return _first_piece(head, longest, rest)


def words_of(texts: Sequence[str], tokenizer: Tokenizer) -> Words:
    """Ids word by word, words being jieba's with its hidden Markov model."""
    begins: list[np.ndarray] = []

    def encode(text: str) -> list[int]:
        found = [tokenizer.encode(word) for word in rjieba.cut(text, True)]
        flags = np.zeros(sum(map(len, found)), bool)
        flags[np.cumsum([0, *map(len, filter(None, found))][:-1])] = True
        begins.append(flags)
        return [i for word in found for i in word]

    return Words(ragged(map(encode, texts), np.int32), np.concatenate([np.zeros(0, bool), *begins]))


def corrupt(
    ids: np.ndarray, begins: np.ndarray, draw: np.random.Generator, *, mask: int, size: int, percent: int = 15
) -> np.ndarray:
    """Ids with 15 % of the words hidden, each alone by chance: of these 80 % as masks, 10 % as any other ids but 0, and
    10 % as they are (RoFormer-Sim's stage 1, after BART: Lewis et al. 2020, arXiv 1910.13461)."""
    chance = draw.random(np.count_nonzero(begins))[np.cumsum(begins) - 1] / (percent / 100)
    other = draw.integers(1, size, len(ids), ids.dtype)
    return np.where(chance < 0.8, mask, np.where((chance >= 0.9) & (chance < 1), other, ids))


class Drawn(NamedTuple):
    """Examples: which two texts, and whether each is corrupted where it is the source."""

    texts: np.ndarray  # int64 [B, 2]
    corrupted: np.ndarray  # bool [B, 2]


@dataclass(frozen=True)
class Stream:
    """Examples without end: each visit of a group gives two of its texts; every pass over a file has another order."""

    questions: Questions
    order: tuple[int, ...]  # of files, an example of each in turn; (): all files as one
    corrupted: float  # the share of sources
    seed: int

    def draw(self, first: int, count: int) -> Drawn:
        """Examples `first` and on."""
        numbers = np.arange(first, first + count)
        groups = self._groups(numbers)
        members, draw = self.questions.members, np.random.default_rng([self.seed, 1, first])
        sizes = members.lengths[groups]
        one = draw.integers(0, sizes)
        two = (one + draw.integers(1, sizes)) % sizes
        texts = members.values[members.ends[groups][:, None] + np.stack([one, two], 1)]
        return Drawn(texts, draw.random((count, 2)) < self.corrupted)

    def _groups(self, numbers: np.ndarray) -> np.ndarray:
        files = self.questions.files if self.order else (sum(self.questions.files),)
        order = np.array(self.order or (0,))
        turn, place = np.divmod(numbers, len(order))
        begins, found = np.cumsum([0, *files]), np.empty(len(numbers), np.int64)
        for file in set(order.tolist()):
            mine = order == file
            here = mine[place]
            # How often the file has had its turn before.
            visits = turn[here] * mine.sum() + (np.cumsum(mine) - mine)[place[here]]
            passes, at = np.divmod(visits, files[file])
            for number in np.unique(passes):
                chosen = passes == number
                shuffled = _permutation(self.seed, file, int(number), files[file])
                found[np.flatnonzero(here)[chosen]] = begins[file] + shuffled[at[chosen]]
        return found


@lru_cache(16)
def _permutation(seed: int, file: int, number: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, file, number]).permutation(size)
