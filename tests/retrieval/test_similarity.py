import numpy as np
import pytest

from retrieval.similarity import cosines, read_task, task_of
from training.files.errors import DataError


def test_tasks_hold_each_text_once(tmp_path) -> None:
    (tmp_path / "a.train.tsv").write_text("甲\t乙\t1\n乙\t丙\t0\n")
    (tmp_path / "b.tsv").write_text("丙\t甲\t0.5\n丁\t丁\t2\n")
    task = task_of(f"X={tmp_path / 'a.train.tsv'},{tmp_path / 'b.tsv'}")
    assert (task.name, task.texts) == ("X", ["甲", "乙", "丙", "丁"])
    assert [s.name for s in task.splits] == ["a", "b"]
    assert task.splits[1].first.tolist() == [2, 3] and task.splits[1].second.tolist() == [0, 3]
    assert task_of(str(tmp_path / "a.train.tsv")).name == "a"
    vectors = np.array([[1, 0], [0, 2], [3, 3], [0, 0]], np.float32)
    np.testing.assert_allclose(cosines(vectors, task.splits[0]), [0, 0.5**0.5], atol=1e-6)
    np.testing.assert_allclose(cosines(vectors, task.splits[1]), [0.5**0.5, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("甲\t乙\t1\n甲\t乙\n", "line 2: 2 column"),
        ("甲\t乙\t1\n甲\t \t1\n", "line 2: column 2 is empty"),
        ("甲\t乙\t1\n甲\t乙\t好\n", "line 2: the label or score '好' is not a number"),
        ("甲\t乙\tnan\n", "line 1: the label or score 'nan'"),
        ("甲\t乙\t1_0\n甲\t丙\t1\n", "line 1: the label or score '1_0' is not a number: labels are to be 0 and 1"),
        ("甲\t乙\t像\n甲\t丙\t1\n", "line 1: the label or score '像' is not a number"),
        ("s1\ts2\ts3\ts4\n甲\t乙\t丙\t1\n", "line 2: 4 column.s. .s1, s2, s3, s4.; a line is text TAB text TAB score"),
        ("甲\t乙\t1\n甲\t乙\t1\n", "all 2 scores are 1"),
        ("", "no pair"),
    ],
)
def test_a_file_that_cannot_be_a_task_is_one_line(tmp_path, text: str, message: str) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        task_of(str(tmp_path / "x.tsv"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "sentence1\tsentence2\tscore\n甲\t乙\t1\n甲\t丙\t0\n"),
        ("a.csv", '甲,"乙",1\n"甲",丙,0\n'),
        ("b.csv", "id,label,text_a,text_b\n1,1,甲,乙\n2,0,甲,丙\n"),
        (
            "a.jsonl",
            '{"sentence1": "甲", "sentence2": "乙", "label": "1"}\n'
            '{"sentence2": "丙", "sentence1": "甲", "label": 0}\n',
        ),
        ("a.json", '[{"q1": "甲", "q2": "乙", "similarity": 1.0}, {"q1": "甲", "q2": "丙", "similarity": 0}]'),
    ],
)
def test_scored_pairs_in_every_kind_of_file(tmp_path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (split,) = (task := task_of(str(tmp_path / name))).splits
    assert task.texts == ["甲", "乙", "丙"] and split.scores.tolist() == [1, 0]
    assert (split.first.tolist(), split.second.tolist()) == ([0, 0], [1, 2])


def test_splits_are_told_apart_by_name(tmp_path) -> None:
    with pytest.raises(DataError, match="told apart by their files' names"):
        read_task("X", [f"{tmp_path}/a/dev.tsv", f"{tmp_path}/b/dev.tsv.gz"])
