"""Merged groups and gathered answers, by hand and against a plain closure; what is counted, and refused in one line."""

import json
import random

import pytest

from retrieval.pairs.commands import AnswersConfig, GroupsConfig, answers, groups
from retrieval.pairs.groups import Alike, answer_groups, merged, synonym_groups
from retrieval.pairs.same import said, tokens, words
from retrieval.pairs.tally import Tally, pairs_of, sound
from retrieval.tuning.examples import examples_of
from training.files.errors import DataError
from training.telling import show


@pytest.fixture
def lines(capsys):
    """What is told."""
    show()
    return lambda: capsys.readouterr().out


def run(tmp_path, text: str, out: str = "o.tsv", name: str = "g.tsv", **settings) -> list[str]:
    (tmp_path / name).write_text(text, "utf-8")
    groups(GroupsConfig(data=(str(tmp_path / name),), out=str(tmp_path / out), **settings))
    return (tmp_path / out).read_text("utf-8").splitlines()


def test_what_two_texts_share():
    assert said("Ｃ＋＋ 怎么学？？") == said("c++怎么学") != said("c怎么学")
    assert said("今天，天气不错。") == said("今天天气不错！") and said("？？") == "??"
    assert said("1.5升") != said("15升") and said("don't") != said("dont")
    assert tokens("iPhone 12，3.5 寸吗？") == ["iphone", "12", "3.5", "寸", "吗"]
    assert tokens("café, naïve 1,234.5") == ["café", "naïve", "1,234.5"]
    assert said("〈还款〉[吗]\u200b\ufe0f") == said("还款吗") and said("-5度") != said("5度")
    assert words("我喜欢北京大学！") == ["我", "喜欢", "北京大学"]


def test_groups_of_all_kinds(tmp_path, lines):
    rows = [{"text": "怎么还款", "synonyms": ["如何还款", "还款的方法"]}, {"text": "天气好", "synonyms": ["天气不错"]}]
    made = run(tmp_path, "\n".join(map(json.dumps, rows)), name="g.jsonl")
    assert made == ["怎么还款\t如何还款", "怎么还款\t还款的方法", "如何还款\t还款的方法", "天气好\t天气不错"]
    assert "2 rows; 2 groups of 5 texts, the largest of 3" in (told := lines()) and "4 pairs\n" in told
    assert run(tmp_path, "怎么还款\t如何还款\t还款的方法\n天气好\t天气不错\n") == made
    assert [json.loads(line) for line in run(tmp_path, "\n".join(made) + "\n", "o.jsonl")] == rows
    assert run(tmp_path, json.dumps([{"a": "天气好", "b": "天气不错"}]), name="g.json") == made[3:]
    # What is written is what tuning reads, either way.
    assert examples_of([str(tmp_path / "o.tsv")], "pairs").sentences == [("天气好", "天气不错")]


def test_labelled_pairs_are_closed_over_those_of_1(tmp_path, lines):
    pairs = "怎么还款\t如何还款\t1\n如何还款？\t还款方法\t1\n怎么还款\t还款方法\t0\n天气\t还款方法\t0\n天气\t阴天\t0\n"
    (made,) = run(tmp_path, pairs, "o.jsonl", labelled=True)
    assert json.loads(made) == {"text": "怎么还款", "synonyms": ["如何还款", "还款方法"]}
    assert "5 rows, 3 of them labelled 0, 1 of which lie within a group of the others; 1 groups" in lines()


def test_what_is_left_out_joins_nothing():
    assert synonym_groups([["嗯", "可以吗", "行吗"], ["嗯", "怎么还款"], ["？？", "还款方法"], ["", "？？"]]) == [
        ["可以吗", "行吗"]
    ]
    tally = Tally()
    assert merged([Alike(("嗯", "可以吗")), Alike(("嗯", "行吗")), Alike(("嗯", "哦"))], tally) == []
    assert tally.without() == "; left out: 3 groups of one text or none, 2 texts of one token"


def test_the_closure_is_that_of_a_plain_search():
    draw = random.Random(0)
    given = [Alike(tuple(f"问题{draw.randrange(60)}" for _ in range(draw.choice((2, 2, 3))))) for _ in range(50)]
    plain: list[set[str]] = []
    for group in given:
        joined = {*group.texts}.union(*(other for other in plain if other & {*group.texts}))
        plain = [other for other in plain if not other & joined] + [joined]
    found = merged(given, Tally())
    assert sorted(map(sorted, found)) == sorted(sorted(group) for group in plain if len(group) > 1)
    assert synonym_groups([g.texts for g in given]) == found and 3 < max(map(len, found)) < 60


def test_what_is_left_out_is_counted(tmp_path, lines):
    text = "怎么还款\t怎么还款？\n好\t行\n天气好\t天气不错\n在吗\n天气不错\t天气好\n你\t你好\n"
    assert run(tmp_path, text) == ["天气好\t天气不错"]
    assert "left out: 4 groups of one text or none, 3 texts of one token" in lines()
    tally = Tally()
    pairs = [("天气好", "天气不错"), ("天气不错。", "天气好"), ("天气好", "天气 好"), ("好", "天气好")]
    assert list(sound(pairs, tally)) == pairs[:1]
    assert [*tally.dropped.values()] == [1, 1, 1]


def test_pairs_of_a_large_group_are_bounded_and_drawn(tmp_path):
    group = [f"第{n}个问题" for n in range(40)]
    found = pairs_of(group, 25, random.Random(0))
    assert len({*found}) == 25 and all(group.index(a) < group.index(b) for a, b in found)
    assert pairs_of(group, 25, random.Random(0)) == found != pairs_of(group, 25, random.Random(1))
    assert len(pairs_of(group, 0, random.Random(0))) == 780 and len(pairs_of(group[:3], 2, random.Random(0))) == 2
    assert len(run(tmp_path, "\t".join(group) + "\n", pairs_a_group=7)) == 7


def test_answers_to_one_question(tmp_path, lines):
    (tmp_path / "a.tsv").write_text(
        "怎么还款？\t在首页点还款\n怎么还款\t打开应用，还款\n怎么还款\t在首页，点还款\n天气\t晴天\n怎么还款\t嗯\n",
        "utf-8",
    )
    answers(AnswersConfig(data=(str(tmp_path / "a.tsv"),), out=str(tmp_path / "o.tsv")))
    assert (tmp_path / "o.tsv").read_text("utf-8") == "在首页点还款\t打开应用，还款\n"
    rows = [("怎么还款", "在首页点还款"), ("怎么还款？", "打开应用"), ("天气", "晴天")]
    assert answer_groups(rows) == [["在首页点还款", "打开应用"]]
    told = lines()
    assert "5 answers to 2 questions" in told
    assert all(f"1 {why}" in told for why in ("answers there already", "answers of one token", "questions of one"))
    rows = [{"q": "怎么还款", "a": text, "id": 3} for text in ("点还款\t吧", "打开应用", "打客服电话")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    answers(
        AnswersConfig(
            data=(str(tmp_path / "a.jsonl"),), out=str(tmp_path / "o.jsonl"), question_field="q", answer_field="a"
        )
    )
    assert json.loads((tmp_path / "o.jsonl").read_text("utf-8")) == {
        "text": "点还款 吧", "synonyms": ["打开应用", "打客服电话"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.tsv", "天气好\n在吗\n", "no pairs; left out: 2 groups of one text or none"),
        ("g.tsv", "好\t行\n", "no pairs; left out: 2 texts of one token, 1 groups of one text or none"),
        ("g.tsv", "", "is empty|no pairs"),
        ("g.tsv", "天气好\t\n", "line 1: column 2 is empty; remove the line"),
        ("g.tsv", "天气好\t天气\t1\n你好\t在吗\t0\n", "of labels 0 and 1 --labelled takes"),
        (
            "g.jsonl",
            '{"text": "天气好", "synonyms": ["天气", " "]}',
            "line 1: text 2 of 'synonyms' is empty; remove it",
        ),
        ("g.jsonl", '{"text": "", "synonyms": ["天气"]}', "line 1: 'text' is empty; remove it"),
        ("g.jsonl", '{"text": "天气好", "synonyms": "天气"}', "'synonyms' is '天气', not a list of texts; mend it"),
        ("g.jsonl", '{"text": "天气好", "synonyms": ["天气", 3]}', "text 2 of 'synonyms' is 3, not a string; mend it"),
        ("g.jsonl", '{"synonyms": ["天气"]}', "'text' is None, not a string; mend it"),
        ("g.pdf", "天气好\t天气\n", "unknown kind of file"),
    ],
)
def test_what_is_refused(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message) as refused:
        run(tmp_path, text, name=name)
    assert "\n" not in str(refused.value) and not (tmp_path / "o.tsv").exists()


def test_what_is_refused_of_labels_answers_and_names(tmp_path):
    with pytest.raises(DataError, match="line 1: the label 0.5 is neither 0 nor 1"):
        run(tmp_path, "天气好\t天气\t0.5\n", labelled=True)
    with pytest.raises(DataError, match=r"--out .*o.txt: it is written as .tsv \(pairs\) or .jsonl \(groups\)"):
        run(tmp_path, "天气好\t天气\n", "o.txt")
    with pytest.raises(DataError, match="g.tsv: the input; name a new file"):
        run(tmp_path, "天气好\t天气\n", "g.tsv")
    with pytest.raises(ValueError, match="'天气好' is one text: give a list of texts"):
        synonym_groups(["天气好"])
    with pytest.raises(ValueError, match=r"\['怎么还款'\]: give \(question, answer\)"):
        answer_groups([("怎么还款",)])
    with pytest.raises(ValueError, match="pairs_a_group is -1: it must be 0 or more"):
        run(tmp_path, "天气好\t天气\n", pairs_a_group=-1)
    for text, side in (("怎么还款\t \n", "answer"), ("\t点还款\n", "question"), ("怎么还款\n", "question")):
        (tmp_path / "a.tsv").write_text(text, "utf-8")
        with pytest.raises(DataError, match=f"line 1: the {side} is empty; a line is question TAB answer"):
            answers(AnswersConfig(data=(str(tmp_path / "a.tsv"),), out=str(tmp_path / "o.tsv")))
