"""Columns of pairs are what their names say, in whatever order, and lists of BGE are read."""

import json
from pathlib import Path

import pytest

from retrieval.tuning.columns import roles_of
from retrieval.tuning.examples import examples_of
from training.files.errors import DataError

ROWS = [("甲一", "甲二", "甲三"), ("乙一", "乙二", "乙三"), ("丙一", "丙二", "丙三")]


def written(path: Path, names: list[str], order: tuple[int, ...], **more: object) -> Path:
    """ROWS with these names, their columns in this order."""
    objects = [{names[n]: row[n] for n in order} | more for row in ROWS]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in objects))
    else:
        comma = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(comma.join(map(str, x)) + "\n" for x in [[*objects[0]], *map(dict.values, objects)]))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".tsv", ".csv"])
@pytest.mark.parametrize(
    "names",
    [
        ["anchor", "positive", "negative"],
        ["query", "pos", "neg"],
        ["Query", "Response", "hard_negative_1"],
        ["sent0", "sent1", "hard_neg"],
        ["sentence1", "sentence2", "neg"],
        ["question", "answer", "negative"],
        ["问题", "答案", "neg"],
    ],
)
def test_columns_are_what_their_names_say(tmp_path, said: list[str], names: list[str], suffix: str) -> None:
    path = written(tmp_path / f"x{suffix}", names, (2, 1, 0), source="小布", domain="闲聊")
    assert examples_of([str(path)], "pairs").sentences == ROWS
    a, b, c = names
    assert said == [f"{path}: the anchor is {a}, its like {b}, hard negatives {c}; left out: source, domain"]


def test_names_that_say_nothing_are_told_in_their_order(tmp_path, said: list[str]) -> None:
    path = written(tmp_path / "x.tsv", ["title", "text", "body"], (0, 1, 2))
    assert examples_of([str(path)], "pairs").sentences == ROWS
    assert said == [
        f"{path}: columns title, text, body: taken for a sentence, its like and hard negatives in this order"
    ]
    assert roles_of(["title", "text"], "x") is None and roles_of([], "x") is None


def test_lists_of_likes_and_negatives(tmp_path, said: list[str]) -> None:
    lines = [
        {"neg": ["子", "丑"], "query": "甲", "pos": ["乙", "丙"], "prompt": ""},
        {"neg": ["寅"], "query": "丁", "pos": ["戊"], "prompt": ""},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert examples_of([str(path)], "pairs").sentences == [("甲", "乙", "子"), ("甲", "丙", "子"), ("丁", "戊", "寅")]
    told = (
        "the anchor is query, its like pos, hard negatives neg; left out: prompt; 1 to 2 negatives a line, of which the"
    )
    assert said == [f"{path}: {told} first 1 are taken"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"query": "甲", "pos": []}', "line 1: one 'query' and one 'pos' or more are needed"),
        ('{"query": "甲", "pos": [1]}', "line 1: field 'pos' is int, not a string"),
        ('{"query": "甲", "pos": ["乙", " "]}', "line 1: an empty text in 'pos'"),
        ('{"topic": "甲", "texts": ["乙"]}', "line 1: a list, and no anchor and likes by their names"),
        ('{"text": "甲", "other": "乙", "neg": "丙"}', "columns text, other, neg: which is the anchor"),
        ('{"query": "甲", "pos1": "乙", "pos2": "丙"}', "columns query, pos1, pos2: which is the anchor"),
        (
            '{"a": "甲", "b": "乙", "from": "布"}\n{"a": "丙", "b": "丁", "from": "布"}',
            "line 1: column 3 is '布' on",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_one_line(tmp_path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        examples_of([str(tmp_path / "x.jsonl")], "pairs")
