"""Which column of a file of pairs is the anchor, which is its like and which are hard negatives: by their usual names,
those of sentence-transformers, of BGE and of SimCSE, else by their order."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pegasus_zh.text.lines import ends_in, is_blank
from pegasus_zh.text.records import TABLE_SUFFIXES, around_array, cells, read_rows, text_of
from retrieval.texts import Row, is_score, read_columns
from training.files.errors import DataError

_ANCHOR = re.compile(r"anchor|query|question|premise|问题", re.IGNORECASE)
_LIKE = re.compile(r"pos(?:itive)?s?|answer|response|document|passage|hypothesis|答案|回答", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?:hard[ _-]?)?neg(?:ative)?s?(?:[ _-]?\d+)?", re.IGNORECASE)
_NUMBERED = re.compile(r"(text|sentence|sent|query|question|q|s|文本|句子|问题)[ _-]?(\d|[ab])", re.IGNORECASE)


class Roles(NamedTuple):
    """Names of columns."""

    anchor: str
    like: str
    negatives: tuple[str, ...] = ()

    @property
    def in_order(self) -> tuple[str, ...]:
        return (self.anchor, self.like, *self.negatives)


def roles_of(names: Sequence[str], place: str) -> Roles | None:
    """What the columns are by these names, if they say it. Raises DataError where they say half of it."""
    anchors = [name for name in names if _ANCHOR.fullmatch(name)]
    likes = [name for name in names if _LIKE.fullmatch(name)]
    negatives = [name for name in names if _NEGATIVE.fullmatch(name)]
    found = [(_NUMBERED.fullmatch(name), name) for name in names]
    numbered = sorted((match[1].lower(), match[2].lower(), name) for match, name in found if match)
    if not anchors and not likes and len({stem for stem, _, _ in numbered}) == 1 and len(numbered) > 1:
        anchors, likes, more = [numbered[0][2]], [numbered[1][2]], [name for _, _, name in numbered[2:]]
        negatives = [*more, *negatives]
    if len(anchors) == len(likes) == 1:
        return Roles(anchors[0], likes[0], tuple(negatives))
    if negatives or any(re.match("pos", name, re.IGNORECASE) for name in names):
        raise DataError(
            f"{place}: columns {', '.join(names)}: which is the anchor, and which one its like? Name them anchor, "
            "positive and negative"
        )
    return None


def read_pairs(path: str) -> tuple[list[Row], str]:
    """The rows of a file, their columns an anchor, its like, and hard negatives: by their names, where those say so,
    what is neither being left out; else in the order of the file; and a line of what was taken for what, if any.

    With a column of labels or scores, which is refused, all stay where they are. Of JSON the likes and the negatives
    may be lists, as BGE has them: an anchor with each of its likes, and as many of the negatives as every line has.
    Raises DataError.
    """
    first = None if path == "-" else next(read_rows(path), None)  # standard input, which has no names, is read once
    if first is None:
        return list(read_columns(path)), ""
    found = cells(first)
    if isinstance(found, dict) and any(isinstance(value, list) for value in found.values()):
        return _of_lists(path, found, first.place)
    table = ends_in(path, TABLE_SUFFIXES) and not isinstance(found, dict)
    by_name = roles_of([cell.strip() for cell in found], first.place) if table else None
    rows = list(read_columns(path, by_name.in_order if by_name else ()))
    return _ordered(path, rows) if rows and rows[0].names else (rows, "")


def _ordered(path: str, rows: list[Row]) -> tuple[list[Row], str]:
    names = rows[0].names
    if any(map(is_score, names)):
        return rows, ""
    roles = roles_of(names, rows[0].place)
    if roles is None:
        named = ", ".join(names)
        return rows, f"{path}: columns {named}: taken for a sentence, its like and hard negatives in this order"
    order = [names.index(name) for name in roles.in_order]
    chosen = [Row(row.place, tuple(row.columns[n] for n in order), roles.in_order) for row in rows]
    return chosen, _told(path, roles, [name for name in names if name not in roles.in_order])


def _of_lists(path: str, first: dict[str, object], place: str) -> tuple[list[Row], str]:
    roles = roles_of(tuple(first), place)
    if roles is None:
        if within := around_array(first):
            raise DataError(f"{place}: {within}")
        raise DataError(
            f"{place}: a list, and no anchor and likes by their names ({', '.join(first)}); write "
            '{"query": …, "pos": […], "neg": […]}, or strings in columns'
        )
    lines = []
    for record in read_rows(path):
        fields = cells(record)
        assert isinstance(fields, dict)
        anchor, *others = (_texts(fields, name, record.place) for name in roles.in_order)
        if len(anchor) != 1 or not others[0]:
            raise DataError(f"{record.place}: one {roles.anchor!r} and one {roles.like!r} or more are needed; mend it")
        lines.append((record.place, anchor[0], others[0], [text for texts in others[1:] for text in texts]))
    counts = [len(negatives) for _, _, _, negatives in lines]
    least, most = min(counts), max(counts)
    told = _told(path, roles, [name for name in first if name not in roles.in_order])
    if least < most:
        told += f"; {least} to {most} negatives a line, of which the first {least} are taken"
    names = (roles.anchor, roles.like, *("negative",) * least)
    rows = [
        Row(place, (anchor, like, *negatives[:least]), names)
        for place, anchor, likes, negatives in lines
        for like in likes
    ]
    return rows, told


def _texts(fields: dict[str, object], name: str, place: str) -> list[str]:
    """Those of a field: a text, or a list of them; of one that is not there none."""
    value = fields.get(name, [])
    texts = [text_of({name: one}, name, place) for one in (value if isinstance(value, list) else [value])]
    if any(map(is_blank, texts)):
        raise DataError(f"{place}: an empty text in {name!r}; remove it")
    return texts


def _told(path: str, roles: Roles, left: Sequence[str]) -> str:
    negatives = f", hard negatives {', '.join(roles.negatives)}" if roles.negatives else ""
    rest = f"; left out: {', '.join(left)}" if left else ""
    return f"{path}: the anchor is {roles.anchor}, its like {roles.like}{negatives}{rest}"


def is_negative(name: str) -> bool:
    """Is a column of this name one of hard negatives?"""
    return _NEGATIVE.fullmatch(name) is not None


def check_varied(rows: Sequence[Row]) -> None:
    """Raises DataError for a hard negative that is the same on every line, such as where a pair is from."""
    for column in range(2, min((len(row.columns) for row in rows), default=0)):
        if len(rows) > 1 and len({row.columns[column] for row in rows}) == 1:
            raise DataError(
                f"{rows[0].place}: column {column + 1} is {rows[0].columns[column]!r} on every line: no hard negative; "
                "remove the column"
            )
