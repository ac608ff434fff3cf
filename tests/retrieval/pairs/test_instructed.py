"""Labelled pairs as instructions: which label a score comes to, both directions, and what is left out or refused."""

import json

import pytest

from pegasus_zh.text.pairs import read_pairs
from retrieval.pairs.commands import InstructConfig, instruct
from retrieval.pairs.instructed import instructed
from retrieval.pairs.tally import SAME, Tally
from retrieval.pairs.templates import read_templates
from training.files.errors import DataError

TEMPLATES = read_templates()


@pytest.mark.parametrize("scale", [1, 5])
def test_a_score_comes_to_the_nearest_label_whatever_the_scale(scale):
    scores = [0, 0.2, 0.3, 0.7, 0.8, 1]
    pairs = [(f"第{n}句问题", f"第{n}句回答", scale * score) for n, score in enumerate(scores)]
    found = instructed(pairs, TEMPLATES, Tally())
    same, somewhat, other = TEMPLATES.labels
    by_label = [label for label in (other, other, somewhat, somewhat, same, same) for _ in range(2)]
    texts = [way for a, b, _ in pairs for way in ((a, b), (b, a))]
    assert found == [(label.prompt(a), b + "”") for label, (a, b) in zip(by_label, texts, strict=True)]


def test_what_says_the_same_and_what_holds_the_mark_is_left_out():
    tally = Tally("six")
    rows = [("怎么还款", "怎么还款？", 1.0), ("他说“好”", "怎么说好", 0.0)]
    rows += [("怎么还款", "如何还款", 1.0), ("今天天气", "怎么还款", 0.0)]
    assert len(instructed(rows, TEMPLATES, tally)) == 4
    assert tally.dropped == {SAME: 1, "pairs with ” in a text": 1}
    assert tally.read == "six, 1 意思相同, 1 意思不同"


def test_the_file_is_what_a_model_is_tuned_on(tmp_path):
    data, graded, out = (tmp_path / name for name in ("pairs.tsv", "graded.tsv", "examples.jsonl"))
    data.write_text("怎么还款\t如何还款\t1\n怎么还款\t今天天气\t0\n", encoding="utf-8")
    graded.write_text("借钱\t贷款\t5\n借钱\t还钱\t1\n", encoding="utf-8")  # a scale of its own
    assert instruct(InstructConfig(data=(str(data), str(graded)), out=str(out))) == 8
    pairs = list(read_pairs(str(out)))
    same, _, other = TEMPLATES.labels
    firsts = [(same, "怎么还款"), (other, "怎么还款"), (same, "借钱"), (other, "借钱")]
    assert [pair.source for pair in pairs[::2]] == [label.prompt(text) for label, text in firsts]
    assert [pair.reference for pair in pairs[:4]] == ["如何还款”", "怎么还款”", "今天天气”", "怎么还款”"]


@pytest.mark.parametrize("rows", ["怎么还款\t如何还款\t1\n天气\t下雨\t1\n", "怎么还款\t如何还款\t很像\n", ""])
def test_scores_that_tell_nothing_apart_are_refused(tmp_path, rows):
    data = tmp_path / "pairs.tsv"
    data.write_text(rows, encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.tsv"):
        instruct(InstructConfig(data=(str(data),), out=str(tmp_path / "out.jsonl")))


def test_labels_of_one_score_are_refused(tmp_path):
    path = tmp_path / "templates.json"
    label = {"score": 1, "instruction": "写：{text}"}
    path.write_text(json.dumps({"labels": {"a": label, "b": label}}), encoding="utf-8")
    with pytest.raises(DataError, match="scores of the templates are all 1"):
        instructed([("甲乙", "丙丁", 0.0), ("甲乙", "甲丁", 1.0)], read_templates(path), Tally("x"))
