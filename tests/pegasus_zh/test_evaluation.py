"""Scores: equal to `rouge` and nltk on committed pairs, and lawful; intervals; the command, and what it refuses."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from pegasus_zh import evaluation
from pegasus_zh.evaluation import METRICS, EvaluateTextsConfig, evaluate, fold, intervals, scores
from tests.listening import Terminal
from training.files.errors import DataError
from training.telling import logger, silence

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens"
PAIRS = [json.loads(line) for line in (GOLDENS / "summaries.jsonl").read_text("utf-8").splitlines()]
REFERENCES, WRITTEN = ([pair[field] for pair in PAIRS] for field in ("reference", "written"))
TEXT = st.text("天好不了abC.。 ", max_size=12)
PLAIN = st.text("天好不了abc。", min_size=1, max_size=12)  # no spaces and no full stops
DISTINCT = st.lists(st.sampled_from("天地玄黄宇宙洪荒"), min_size=1, unique=True).map("".join)


def one(reference: str, candidate: str) -> dict[str, float]:
    return {name: values.item() for name, values in scores([reference], [candidate]).items()}


def write(path: Path, written: list[str], references: list[str], names=("reference", "written")) -> str:
    """A file of what one system wrote."""
    rows = (dict(zip(names, pair, strict=True)) for pair in zip(references, written, strict=True))
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def test_goldens():
    """To the last bits, which are the C library's logarithm and exponential."""
    golden = json.loads((GOLDENS / "scores.json").read_text("utf-8"))
    found = scores(REFERENCES, WRITTEN)
    assert len(golden) == len(PAIRS) > 60
    for name in METRICS:
        np.testing.assert_allclose(found[name], [row[name] for row in golden], rtol=1e-14, err_msg=name)


def test_by_hand():
    """甲乙丙丁 against 甲乙丙戊己: 3 of 4 and of 5 characters, 2 of 3 and of 4 pairs, 1 of 3 triples, no quadruple."""
    found = one("甲乙丙丁", "甲乙丙戊己")
    bleu = (3 / 5 * 2 / 4 * 1 / 3 * 0.1 / 2) ** 0.25
    assert found == pytest.approx({"rouge-1": 2 / 3, "rouge-2": 4 / 7, "rouge-l": 2 / 3, "bleu": bleu})
    shorter = one("甲乙丙丁戊己庚辛", "甲乙丙丁")
    assert shorter["bleu"] == pytest.approx(np.exp(1 - 8 / 4))


def test_repeats_count_in_rouge_1_and_not_in_rouge_l():
    found = one("的好", "的的的好")
    assert found["rouge-1"] == pytest.approx(2 * 2 / (2 + 4))
    assert found["rouge-l"] == pytest.approx(1)


@given(TEXT, TEXT)
def test_bounds_and_case(reference, candidate):
    found = one(reference, candidate)
    assert all(0 <= score <= 1 for score in found.values())
    assert one(reference.upper(), candidate.lower()) == found
    if not candidate.strip():
        assert set(found.values()) == {0}


@given(PLAIN)
def test_the_reference_itself_scores_1(text):
    """But for orders of n-grams that it is too short for: Rouge-2 gives 0, BLEU's smoothing 0.1."""
    orders = min(len(text), 4)
    expected = {"rouge-1": 1, "rouge-2": float(orders > 1), "rouge-l": 1, "bleu": 0.1 ** (1 - orders / 4)}
    assert one(text, text) == pytest.approx(expected, abs=1e-8)


@given(PLAIN, PLAIN)
def test_rouge_is_symmetric_in_plain_texts(first, second):
    found, turned = one(first, second), one(second, first)
    assert found["rouge-1"] == pytest.approx(turned["rouge-1"])
    assert found["rouge-2"] == pytest.approx(turned["rouge-2"])


@given(DISTINCT, DISTINCT)
def test_without_repeats_rouge_l_is_the_plain_one(first, second):
    found = one(first, second)
    assert found["rouge-l"] <= found["rouge-1"]
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert found["rouge-l"] == pytest.approx(2 * table[-1, -1] / (len(first) + len(second)))


@settings(max_examples=20)  # sixty scores an example
@given(st.permutations(range(10, 40)))
def test_examples_are_scored_apart(order):
    permuted = scores([REFERENCES[i] for i in order], [WRITTEN[i] for i in order])
    for name, values in scores(REFERENCES[10:40], WRITTEN[10:40]).items():
        np.testing.assert_array_equal(permuted[name], values[np.array(order) - 10])


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        scores(["一", "二"], ["一"])


def test_interval_is_that_of_the_normal_distribution_for_many_examples():
    values = {"bleu": np.random.default_rng(1).beta(2, 3, 4000)}
    low, high = intervals(values)["bleu"]
    half = 1.96 * values["bleu"].std() / np.sqrt(4000)
    np.testing.assert_allclose([low, high], values["bleu"].mean() + np.array([-half, half]), atol=0.1 * half)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(2)
    samples = {str(i): rng.random(60) for i in range(400)}
    covered = np.mean([low <= 0.5 <= high for low, high in intervals(samples, resamples=500).values()])
    assert 0.9 < covered < 0.98


def test_a_difference_is_paired():
    """Hard examples are hard for both: the interval of a constant gain has no width."""
    first = {"bleu": np.random.default_rng(3).random(200)}
    second = {"bleu": first["bleu"] + 0.01}
    assert intervals(second, first)["bleu"] == pytest.approx((0.01, 0.01))
    low, high = intervals(first)["bleu"]
    assert high - low > 0.05


def test_table_differences_and_figures(tmp_path, said):
    first = write(tmp_path / "first.jsonl", WRITTEN, REFERENCES)
    second = write(tmp_path / "second.jsonl.gz", REFERENCES, REFERENCES)
    third = write(tmp_path / "third.jsonl", WRITTEN[1:], REFERENCES[1:])
    figures = tmp_path / "figures.json"
    report = evaluate(EvaluateTextsConfig(files=(first, second, third), json=str(figures)))
    assert json.loads(figures.read_text("utf-8")) == {"files": report}
    assert list(tmp_path.glob("*.tmp")) == []
    found, best = scores(REFERENCES, WRITTEN), scores(REFERENCES, REFERENCES)
    for name in METRICS:
        row, difference = report[0]["scores"][name], report[1]["difference"][name]
        assert row["mean"] == pytest.approx(found[name].mean())
        assert (row["low"], row["high"]) == intervals(found)[name]
        assert difference["mean"] == pytest.approx((best[name] - found[name]).mean())
        assert 0 < difference["low"] < difference["mean"] < difference["high"]
    assert "difference" not in report[0] and "difference" not in report[2]
    assert said[0].split() == ["n", "Rouge-1", "Rouge-2", "Rouge-L", "BLEU"]
    assert said[1].startswith(first) and f"{100 * found['rouge-1'].mean():.2f} [" in said[1]
    assert said[3].startswith(f"  - {first}") and "+" in said[3]
    assert said[-1] == f"  not the references of {first}: no difference"


def test_folded_texts_have_figures_of_their_own(tmp_path, said):
    """Of blanks, widths, accents and case nothing is left; where they make no difference, nothing is said."""
    references = ["今天天气很好，我们去公园", "Ｄeep Learning：naïve（３种）", "他说“你好！”"]
    written = ["今天 天气\n很好, 我们 去公园", "deep learning: naive (3种)", "他说“你好!”"]
    first = write(tmp_path / "first.jsonl", references, references)
    second = write(tmp_path / "second.jsonl", written, references)
    report = evaluate(EvaluateTextsConfig(files=(first, second)))
    assert report[1]["scores"]["bleu"]["mean"] < 0.5
    for name in METRICS:
        assert report[1]["folded"]["scores"][name]["mean"] == pytest.approx(1, abs=1e-6)
        assert report[1]["folded"]["difference"][name]["mean"] == pytest.approx(0, abs=1e-6)
        assert report[0]["folded"]["scores"][name]["mean"] == pytest.approx(1, abs=1e-6)
    place = said.index("folded (one width and one case, without accents and blanks):")
    assert place == 4 and said[place + 2].startswith(first) and said[place + 3].startswith(second)
    expected = scores(list(map(fold, references)), list(map(fold, written)))
    assert report[1]["folded"]["scores"]["bleu"]["mean"] == pytest.approx(expected["bleu"].mean())
    said.clear()
    plain = write(tmp_path / "plain.jsonl", ["天气很好ABC"], ["天气真好abC"])
    assert "folded" not in evaluate(EvaluateTextsConfig(files=(plain,)))[0] and len(said) == 2


def test_a_terminal_sees_a_bar_of_a_command_but_within_a_silence(monkeypatch, shown):
    class Prompt(tqdm):  # which does not wait for three seconds
        def __init__(self, *given, delay: float, **options):
            super().__init__(*given, **options)

    monkeypatch.setattr(evaluation, "tqdm", Prompt)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with silence():
        scores(REFERENCES, WRITTEN)
    with monkeypatch.context() as patch:
        patch.setattr(logger, "handlers", [])
        scores(REFERENCES, WRITTEN)
    assert terminal.getvalue() == ""
    scores(REFERENCES, WRITTEN)
    assert "evaluate: " in terminal.getvalue()


def test_other_fields(tmp_path):
    usual = write(tmp_path / "usual.jsonl", WRITTEN, REFERENCES)
    other = write(tmp_path / "other.jsonl", WRITTEN, REFERENCES, names=("title", "guess"))
    config = EvaluateTextsConfig(files=(other,), reference_field="title", written_field="guess")
    assert evaluate(config)[0]["scores"] == evaluate(EvaluateTextsConfig(files=(usual,)))[0]["scores"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"reference": "一", "written"', "line 3: broken JSON"),
        ('["一", "二"]', "line 3: not a JSON object"),
        ('{"reference": "一", "summary": "二"}', "line 3: no field 'written'; give --written-field one of: reference"),
        ('{"source": "一", "written": "二"}', "line 3: no reference to score against; write for a .tsv"),
        ('{"title": "一", "written": "二"}', "line 3: no field 'reference'; give --reference-field one of: title"),
        ('{"reference": "一", "written": null}', "line 3: field 'written' is NoneType, not a string"),
        ('{"reference": " ", "written": "二"}', "line 3: the reference is empty; leave such examples out"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, fault):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"reference": "一", "written": ""}\n\n' + line + "\n", "utf-8"
    )  # blank lines count and are allowed
    with pytest.raises(DataError) as caught:
        evaluate(EvaluateTextsConfig(files=(str(path),)))
    assert str(caught.value).startswith(f"{path}, {fault}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", b"\n \n", "no examples"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl.gz", b"\x1f\x8bxx", "gzip"),
        ("a.txt", b"x", "unknown kind of file; pairs come as"),
        ("a.tsv", b"x\n", "line 1: 1 column"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, fault):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=fault) as caught:
        evaluate(EvaluateTextsConfig(files=(str(path),)))
    assert str(path) in str(caught.value)


def test_command(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "scripts.evaluate", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    done = run("tests/goldens/summaries.jsonl")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[1].split()[:2] == ["tests/goldens/summaries.jsonl", str(len(PAIRS))]
    missing = run(str(tmp_path / "no.jsonl"))
    assert missing.returncode == 1 and missing.stdout == ""
    assert missing.stderr.startswith("error: ") and missing.stderr.count("\n") == 1
