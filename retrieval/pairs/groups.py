"""Groups of texts that are alike: synonymous questions, merged where they share one; answers to one question."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pegasus_zh.text.lines import is_blank
from pegasus_zh.text.lists import listed
from pegasus_zh.text.pairs import located_pairs
from retrieval.pairs.same import one_line, said, tokens
from retrieval.pairs.tally import Tally
from retrieval.texts import read_columns, scored
from retrieval.tuning.groups import all_groups
from training.files.errors import DataError

TEXT, SYNONYMS = "text", "synonyms"


class Alike(NamedTuple):
    """Texts of which all are alike, or of label 0 the two that are not."""

    texts: tuple[str, ...]
    label: int = 1


def read_groups(path: str, labelled: bool = False) -> Iterator[Alike]:
    """The groups of a file: JSON of {text, synonyms: [...]}, as RoFormer-Sim has them; else rows whose columns are all
    alike, or `labelled` a, b and 0 or 1. Raises DataError, with file, line and remedy."""
    if labelled:
        for row in read_columns(path):
            first, second, label = scored(row)
            if label not in (0, 1):
                raise DataError(f"{row.place}: the label {label:g} is neither 0 nor 1; keep the pairs that are alike")
            yield Alike((first, second), int(label))
    else:
        yield from (Alike(group.texts) for group in all_groups(path))


def merged(groups: Iterable[Alike], tally: Tally) -> list[list[str]]:
    """What is alike by transitive closure over the groups of label 1, in order of the first text: groups that share a
    text, whatever its case and punctuation, are one.

    Texts of one token, which join nothing, and groups of one are left out. Pairs of label 0 join nothing; how many of
    them lie within a group is told, as people and closure disagree there.
    """
    numbers: dict[str, int] = {}  # of texts, by what they say
    texts: list[str] = []
    edges: list[tuple[int, int]] = []
    apart: list[tuple[str, ...]] = []
    short = set[str]()
    rows = empty = 0
    for group in groups:
        rows += 1
        keys = tuple(map(said, group.texts))
        if not group.label:
            apart.append(keys)
            continue
        long = list[int]()
        for key, text in zip(keys, group.texts, strict=True):
            if len(tokens(text)) < 2:
                short.add(key)
                continue
            if key not in numbers:
                numbers[key] = len(texts)
                texts.append(one_line(text))
            long.append(numbers[key])
        empty += not long
        edges += [(long[0], other) for other in long]
    names = _closed(len(texts), edges)
    groups_of = dict[int, list[str]]()
    for text, name in zip(texts, names, strict=True):
        groups_of.setdefault(name, []).append(text)
    found = [group for group in groups_of.values() if len(group) > 1]
    tally.dropped["texts of one token"] += len(short)
    tally.dropped["groups of one text or none"] += len(groups_of) - len(found) + empty
    tally.read += f": {rows:,} rows"
    if apart:
        within = sum(a in numbers and b in numbers and names[numbers[a]] == names[numbers[b]] for a, b in apart)
        tally.read += f", {len(apart):,} of them labelled 0, {within:,} of which lie within a group of the others"
    if found:
        tally.read += (
            f"; {len(found):,} groups of {sum(map(len, found)):,} texts, the largest of {max(map(len, found))}"
        )
    return found


def _closed(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The number of each text's group."""
    if not count:
        return []
    one, other = np.array(edges).T
    joined = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    return connected_components(joined, directed=False)[1].tolist()


class Answer(NamedTuple):
    question: str
    text: str


def read_answers(path: str, question_field: str = "question", answer_field: str = "answer") -> Iterator[Answer]:
    """Question and answer of each record: of a .tsv question TAB answer, of JSON and named columns the two fields.
    Raises DataError, with file, line and remedy, for an empty side too."""
    flags = ("--answer-field", "--question-field")
    for place, pair in located_pairs(path, answer_field, question_field, flags):
        for side, text in (("question", pair.reference), ("answer", pair.source)):
            if text is None or is_blank(text):
                raise DataError(f"{place}: the {side} is empty; a line is question TAB answer: mend or remove it")
        yield Answer(pair.reference or "", pair.source)


def answered(answers: Iterable[Answer], tally: Tally) -> list[list[str]]:
    """The answers of each question that has several, in order of the questions; a question is the same whatever its
    case and punctuation. Texts of one token, answers that are there already, and questions of one answer are left out.
    """
    of: dict[str, dict[str, str]] = {}
    rows = 0
    for answer in answers:
        rows += 1
        there, key = of.setdefault(said(answer.question), {}), said(answer.text)
        if len(tokens(answer.text)) < 2:
            tally.dropped["answers of one token"] += 1
        elif key in there:
            tally.dropped["answers there already"] += 1
        else:
            there[key] = one_line(answer.text)
    found = [[*there.values()] for there in of.values() if len(there) > 1]
    tally.dropped["questions of one answer or none"] += len(of) - len(found)
    tally.read += f": {rows:,} answers to {len(of):,} questions"
    return found


def synonym_groups(groups: Iterable[Sequence[str]]) -> list[list[str]]:
    """Groups of synonymous questions merged by transitive closure: those that share a text are one, each text is once
    in it, and texts of one token and groups of one are left out. Raises ValueError for a text where a group belongs."""
    return merged((Alike(tuple(listed(group))) for group in groups), Tally())


def answer_groups(answers: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Of (question, answer) the answers of each question that has several, each once. Raises ValueError for what are
    not two texts."""
    pairs = [listed(pair) for pair in answers]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"{wrong[0]!r:.40}: give (question, answer)")
    return answered((Answer(*pair) for pair in pairs), Tally())
