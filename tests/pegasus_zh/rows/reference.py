"""The rules of T5-PEGASUS and PEGASUS written out plainly, for the tests and the benchmark to compare with.

T5-PEGASUS: https://kexue.fm/archives/8209 and `text_segmentate` of bert4keras; PEGASUS: arXiv:1912.08777, section 3.1.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction


def segment(text: str, max_length: int = 32, separators: str = "\n。") -> list[str]:
    """Strip; a longer text is split at the first separator, merged to `max_length` - 1 + a separator, and so on."""
    text = text.strip()
    if len(text) <= max_length or not separators:
        return [text]
    bodies = text.split(separators[0])
    pieces = [""]
    for number, body in enumerate(bodies):
        if pieces[-1] and body and len(pieces[-1]) + len(body) > max_length - 1:
            pieces.append("")
        is_last = number == len(bodies) - 1
        pieces[-1] += body if is_last else body + separators[0]
    return [sentence for piece in pieces for sentence in segment(piece, max_length, separators[1:])]


def group(sentences: Iterable[str], max_characters: int = 768, min_sentences: int = 3) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for sentence in sentences:
        if len("".join(groups[-1])) + len(sentence) > max_characters and len(groups[-1]) >= min_sentences:
            groups.append([])
        groups[-1].append(sentence)
    return groups if len(groups[-1]) >= min_sentences else groups[:-1]


def lcs_length(first: str, second: str) -> int:
    """The length of the longest common subsequence, by the table."""
    row = [0] * (len(second) + 1)
    for a in first:
        diagonal = 0
        for column, b in enumerate(second, start=1):
            diagonal, row[column] = row[column], diagonal + 1 if a == b else max(row[column], row[column - 1])
    return row[-1]


def pseudo_summary(
    sentences: Sequence[str], ratio: float = 0.25, lcs: Callable[[str, str], int] = lcs_length
) -> tuple[list[int], list[int]]:
    """The selection of T5-PEGASUS: every candidate of every round is scored in full."""

    def join(indices: list[int]) -> str:
        return "".join([sentences[k] for k in indices])

    def best(source: list[int], target: list[int]) -> int:
        scores = [lcs(join([k for k in source if k != i]), join(sorted([*target, i]))) for i in source]
        return source[scores.index(max(scores))]

    return _move(sentences, best, ratio)


def rouge_1(candidate: Sequence[str], reference: Sequence[str], unique: bool) -> Fraction:
    """ROUGE-1 F1 of two sequences of units, from precision and recall."""
    if unique:
        candidate, reference = sorted(set(candidate)), sorted(set(reference))
    overlap = (Counter(candidate) & Counter(reference)).total()
    if overlap == 0:
        return Fraction(0)
    precision, recall = Fraction(overlap, len(candidate)), Fraction(overlap, len(reference))
    return 2 * precision * recall / (precision + recall)


def gap_sentences(
    sentences: Sequence[str],
    *,
    sequential: bool,
    unique: bool,
    ratio: float = 0.25,
    cut: Callable[[str], Sequence[str]] = list,
) -> tuple[list[int], list[int]]:
    """The selections Ind-Orig, Ind-Uniq, Seq-Orig and Seq-Uniq of PEGASUS, with the stop rule of T5-PEGASUS."""
    units = [cut(sentence) for sentence in sentences]

    def best(source: list[int], target: list[int]) -> int:
        scores = []
        for i in source:
            chosen = [*target, i] if sequential else [i]
            rest = [k for k in range(len(units)) if k not in chosen]
            flat = [[unit for k in indices for unit in units[k]] for indices in (chosen, rest)]
            scores.append(rouge_1(*flat, unique))
        return source[scores.index(max(scores))]

    return _move(sentences, best, ratio)


def rouge_l_sentences(
    sentences: Sequence[str], ratio: float = 0.25, cut: Callable[[str], Sequence[str]] = list
) -> tuple[list[int], list[int]]:
    """The selection of Randeng-Pegasus: every candidate of every round by Rouge-L's F1 of the distinct units."""
    units = [cut(sentence) for sentence in sentences]

    def best(source: list[int], target: list[int]) -> int:
        scores = []
        for i in source:
            chosen = [unit for k in sorted([*target, i]) for unit in units[k]]
            rest = [unit for k in source if k != i for unit in units[k]]
            common = len(common_units(chosen, rest))
            scores.append(Fraction(2 * common, max(1, len(set(chosen)) + len(set(rest)))))
        return source[scores.index(max(scores))]

    return _move(sentences, best, ratio)


def common_units(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The distinct units of the longest common subsequence that `rouge` finds, by the table, backwards from its end."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    found, i, j = set(), len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.add(first[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _move(
    sentences: Sequence[str], best: Callable[[list[int], list[int]], int], ratio: float
) -> tuple[list[int], list[int]]:
    """Move the best sentence until the target is long enough; the longer of the two is the source."""
    source, target = list(range(len(sentences))), []

    def characters(indices: list[int]) -> int:
        return sum(len(sentences[k]) for k in indices)

    while len(source) > 1:
        winner = best(source, target)
        source.remove(winner)
        target = sorted([*target, winner])
        if characters(target) > ratio * characters(source):
            break
    return (target, source) if characters(source) < characters(target) else (source, target)
