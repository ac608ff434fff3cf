import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from retrieval.similarity import _pearson, _Ranks, cosines, intervals, read_task, spearman, task_of
from training.files.errors import DataError


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), min_size=3, max_size=30).filter(
        lambda rows: len({a for a, _ in rows}) > 1 and len({b for _, b in rows}) > 1
    )
)
def test_spearman_is_scipys(rows: list[tuple[int, int]]) -> None:
    a, b = np.array(rows).T
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


@given(st.integers(0, 1000))
def test_a_resample_by_counts_is_the_resample(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 3, 40), random.standard_normal(40).round(1)
    drawn = random.integers(0, 40, 40)
    counts = np.bincount(drawn, minlength=40).astype(float)
    found = _pearson(_Ranks(a).of(counts), _Ranks(b).of(counts), counts)
    assert found == pytest.approx(spearmanr(a[drawn], b[drawn]).statistic, abs=1e-9)


def test_the_interval_covers_the_truth_and_narrows() -> None:
    random = np.random.default_rng(0)
    widths = []
    for n in (100, 1600):
        x = random.standard_normal(n)
        found, same = intervals([(x, x + random.standard_normal(n))])
        assert found == same
        assert found.low < 0.69 < found.high  # of a normal law with correlation 1 / sqrt(2)
        widths.append(found.high - found.low)
    assert 3 < widths[0] / widths[1] < 5.5


def test_splits_are_weighed_by_their_sizes() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.integers(0, 2, n), random.standard_normal(n)) for n in (30, 90)]
    one, other, both = intervals(pairs, 50)
    assert both.mean == pytest.approx((one.mean + 3 * other.mean) / 4)
    assert both.low < both.mean < both.high


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
        ("甲\t乙\t1\n甲\t乙\t好\n", "line 2: the score '好' is not a number"),
        ("甲\t乙\tnan\n", "line 1: the score 'nan'"),
        ("甲\t乙\t1\n甲\t乙\t1\n", "all 2 scores are 1"),
        ("", "no pair"),
    ],
)
def test_a_file_that_cannot_be_a_task_is_one_line(tmp_path, text: str, message: str) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        task_of(str(tmp_path / "x.tsv"))


def test_splits_are_told_apart_by_name(tmp_path) -> None:
    with pytest.raises(DataError, match="told apart by their files' names"):
        read_task("X", [f"{tmp_path}/a/dev.tsv", f"{tmp_path}/b/dev.tsv.gz"])
