"""Pseudo-summaries: which sentences of a text become the target, and which stay as the source.

"lcs" is the rule of T5-PEGASUS (Su 2021, https://kexue.fm/archives/8209), "rouge-l" that of Randeng-Pegasus (in
Fengshenbang-LM, Zhang et al. 2022, arXiv:2209.02970); the others are the gap-sentence selections of PEGASUS (Zhang et
al. 2020, arXiv:1912.08777, section 3.1).
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
import rjieba
from rapidfuzz.distance import LCSseq

from pegasus_zh.text.overlap import longest_common
from training.files.errors import DataError

Unit = Literal["character", "word"]
Selector = Callable[
    [Sequence[str], Unit, int], Iterator[int]
]  # (sentences, unit, seed) -> sentence indices, best first


def pseudo_summary(
    sentences: Sequence[str],
    *,
    selector: str = "lcs",
    ratio: float = 0.25,
    kept: float = 0.0,
    unit: Unit = "character",
    seed: int = 0,
) -> tuple[list[int], list[int]]:
    """Split `sentences` into the source and the target (the pseudo-summary), each a sorted list of sentence indices.

    Sentences move from the source to the target in the selector's order until the target has more than `ratio` times
    the characters of the source, or one sentence is left. Should the target then be the longer, the two are swapped.
    Fewer than two sentences give an empty target.

    selector: a key of `SELECTORS`. kept: each of the target's sentences stays in the source too with this probability,
    which teaches to copy: 0.2 in PEGASUS (section 6.2), 0.1 in Randeng-Pegasus. unit: what is compared, characters or
    jieba's words. seed: of "random" and of what is kept.
    Raises DataError for an unknown selector or unit.
    """
    if selector not in SELECTORS:
        raise DataError(f"unknown selector {selector!r}: use one of {', '.join(SELECTORS)}")
    if unit not in ("character", "word"):
        raise DataError(f"unknown unit {unit!r}: use character or word")
    source, target = set(range(len(sentences))), set()
    source_length, target_length = sum(map(len, sentences)), 0
    order = SELECTORS[selector](sentences, unit, seed)
    while len(source) > 1 and target_length <= ratio * source_length:
        index = next(order)
        source.remove(index)
        target.add(index)
        source_length -= len(sentences[index])
        target_length += len(sentences[index])
    if source_length < target_length:
        source, target = target, source
    if kept:
        drawn = _random_of(sentences, seed).random(len(target)) < kept
        source |= {index for index, stays in zip(sorted(target), drawn, strict=True) if stays}
    return sorted(source), sorted(target)


def _lcs(sentences: Sequence[str], unit: Unit, seed: int) -> Iterator[int]:
    """Greedy: move the sentence that makes the longest common subsequence of source and target longest; the first of
    equals.

    The choice is exact; an upper bound spares about half of the work. With X the source without sentence s and T the
    target, LCS(X, T with s) <= LCS(X, T) + LCS(X, s). Both terms can only shrink as X does: so the first is at most the
    last winner's score, and the second at most what s scored against all other sentences in the first round, or its
    length where it was not scored. Candidates come in order of that bound, until it falls below the best score.
    """
    texts = _matchable_texts(sentences, unit)
    gain = list(map(len, texts))
    candidates, last_score = list(range(len(texts))), 0
    source, target = texts.copy(), [""] * len(texts)  # the text of each sentence, empty where it is not
    while candidates:
        source_text, target_text = "".join(source), "".join(target)
        source_start = list(accumulate(map(len, source), initial=0))
        target_start = list(accumulate(map(len, target), initial=0))
        best, winner = -1, len(texts)
        for k in sorted(candidates, key=gain.__getitem__, reverse=True):
            bound = last_score + gain[k]
            if bound < best:
                break
            if bound == best and k > winner:
                continue
            rest = source_text[: source_start[k]] + source_text[source_start[k + 1] :]
            chosen = target_text[: target_start[k]] + texts[k] + target_text[target_start[k] :]
            score = LCSseq.similarity(chosen, rest)
            if not target_text:
                gain[k] = score
            if score > best or (score == best and k < winner):
                best, winner = score, k
        yield winner
        candidates.remove(winner)
        source[winner], target[winner] = "", texts[winner]
        last_score = best


def _matchable_texts(sentences: Sequence[str], unit: Unit) -> list[str]:
    """Each sentence without the units that no other sentence has, one character a unit.

    A sentence is never in the source and in the target at once, so a unit of one sentence alone matches nothing and no
    common subsequence changes. About two thirds of a text stay, of few enough kinds (mostly below 256) for rapidfuzz to
    find them in a table.
    """
    ids, sentence = _unit_ids(sentences, unit)
    first, last = np.empty((2, int(ids.max(initial=-1)) + 1), dtype=np.int64)
    last[ids] = sentence  # where an index is repeated, numpy keeps the last assignment
    first[ids[::-1]] = sentence[::-1]
    shared = first != last
    kept = shared[ids]
    characters = shared.cumsum()[ids[kept]].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.bincount(sentence[kept], minlength=len(sentences)).cumsum().tolist()
    return [characters[start:end] for start, end in pairwise([0, *ends])]


def _unit_ids(sentences: Sequence[str], unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """The kind of every unit, numbered from 0 without gaps, and the index of the sentence that it stands in."""
    if unit == "word":
        # rjieba takes no lone surrogates, which JSON can hold.
        cuts = [rjieba.cut(sentence.encode("utf-8", "replace").decode("utf-8"), False) for sentence in sentences]
        number: dict[str, int] = {}
        ids = np.array([number.setdefault(word, len(number)) for words in cuts for word in words], dtype=np.int64)
        return ids, np.arange(len(cuts)).repeat(list(map(len, cuts)))
    codes = np.frombuffer("".join(sentences).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    if codes.max(initial=0) < 2**16:
        codes = codes.astype(np.uint16)  # sorted by radix; the whole is twice as fast as numpy.unique
    order = codes.argsort(kind="stable")
    ordered = codes[order]
    numbers = np.zeros(len(codes), dtype=np.int64)
    np.cumsum(ordered[1:] != ordered[:-1], out=numbers[1:])
    ids = np.empty(len(codes), dtype=np.int64)
    ids[order] = numbers
    return ids, np.arange(len(sentences)).repeat(list(map(len, sentences)))


def _random(sentences: Sequence[str], unit: Unit, seed: int) -> Iterator[int]:
    """Uniformly at random."""
    yield from _random_of(sentences, seed).permutation(len(sentences)).tolist()


def _random_of(sentences: Sequence[str], seed: int) -> np.random.Generator:
    """By the seed and the text alone: the same in any process and any order of documents."""
    text = "\0".join(sentences).encode("utf-8", "surrogatepass")
    return np.random.default_rng([seed, zlib.crc32(text)])


def _lead(sentences: Sequence[str], unit: Unit, seed: int) -> Iterator[int]:
    """The first sentences."""
    yield from range(len(sentences))


def _rouge_l(sentences: Sequence[str], unit: Unit, seed: int) -> Iterator[int]:
    """Greedy: the sentence that makes Rouge-L's F1 of all chosen against the rest highest, the first of equals.

    Rouge-L is that of the package `rouge`, which counts distinct units. By all units F1 would have a fixed denominator,
    the length of the text, and the order would be "lcs"'s. Randeng-Pegasus also leaves out stop words, by a list that
    is not published.
    """
    ids, sentence = _unit_ids(sentences, unit)
    units = [ids[sentence == number].tolist() for number in range(len(sentences))]
    source, target = list(range(len(units))), list[int]()

    def score(moved: int) -> float:
        chosen = [i for k in sorted([*target, moved]) for i in units[k]]
        rest = [i for k in source if k != moved for i in units[k]]
        return 2 * len(longest_common(chosen, rest)) / max(len(set(chosen)) + len(set(rest)), 1)

    while source:
        winner = max(source, key=score)
        yield winner
        source.remove(winner)
        target.append(winner)


def _independent(sentences: Sequence[str], unit: Unit, seed: int, *, unique: bool) -> Iterator[int]:
    """By ROUGE-1 F1 of each sentence against the rest of the text, the first of equals first."""
    counts = _unit_counts(sentences, unit)
    yield from np.argsort(-_rouge_1(counts, counts.sum(0), unique), kind="stable").tolist()


def _sequential(sentences: Sequence[str], unit: Unit, seed: int, *, unique: bool) -> Iterator[int]:
    """Greedy: the sentence that makes ROUGE-1 F1 of all chosen against the rest highest, the first of equals."""
    counts = _unit_counts(sentences, unit)
    total, chosen, candidates = counts.sum(0), np.zeros_like(counts[0]), list(range(len(counts)))
    while candidates:
        scores = _rouge_1(chosen + counts[candidates], total, unique)
        winner = candidates.pop(int(scores.argmax()))
        chosen += counts[winner]
        yield winner


def _unit_counts(sentences: Sequence[str], unit: Unit) -> np.ndarray:
    """How often each sentence has each kind of unit: (sentences, kinds)."""
    ids, sentence = _unit_ids(sentences, unit)
    kinds = int(ids.max(initial=-1)) + 1
    counts = np.bincount(sentence * kinds + ids, minlength=len(sentences) * kinds)
    return counts.reshape(len(sentences), kinds)


def _rouge_1(chosen: np.ndarray, total: np.ndarray, unique: bool) -> np.ndarray:
    """ROUGE-1 F1 (Lin 2004) of each row of `chosen` (counts, kinds last) against what it leaves of `total`.

    A unit counts as often as it occurs, the overlap clipped ("Orig" in PEGASUS), or once if `unique` ("Uniq").
    """
    rest = total - chosen
    if unique:
        chosen, rest = np.minimum(chosen, 1), np.minimum(rest, 1)
    overlap = np.minimum(chosen, rest).sum(-1)
    # 2PR / (P + R) with P = overlap / |chosen| and R = overlap / |rest|
    return 2 * overlap / np.maximum(chosen.sum(-1) + rest.sum(-1), 1)


SELECTORS: dict[str, Selector] = {
    "lcs": _lcs,
    "random": _random,
    "lead": _lead,
    "ind-orig": partial(_independent, unique=False),
    "ind-uniq": partial(_independent, unique=True),
    "seq-orig": partial(_sequential, unique=False),
    "seq-uniq": partial(_sequential, unique=True),
    "rouge-l": _rouge_l,
}
