"""The commands as they are typed: anonymise, align, train, predict, score."""

import importlib
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from pegasus_zh.text_encoder import load_text_encoder
from retrieval.matching.score import auc
from tests.retrieval.matching.small_matching import texts
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TEXTS
from training.files.errors import DataError
from training.telling import show

pytestmark = pytest.mark.usefixtures("one_device")
TRAIN = "train --batch-size 16 --epochs 2 --learning-rate 1e-3 --warmup 1 --folds 5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    write_model(folder / "m")
    lines = (
        f"{a}\t{a[:2] + b if n % 2 else b}\t{n % 2}\n"
        for n, (a, b) in enumerate(zip(texts(80), texts(80, 1), strict=True))
    )
    (folder / "p.tsv").write_text("".join(lines), "utf-8")
    (folder / "q.txt").write_text("".join(f"{text}\n" for text in texts(60, 2)), "utf-8")
    (folder / "plain.txt").write_text("\n".join([*TEXTS, *texts(200, 3)]) + "\n", "utf-8")
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch, shown):
    """Runs a line of scripts.match_anonymised, in this process, in the folder; returns what it printed."""
    monkeypatch.chdir(folder)

    def typed(line: str) -> str:
        monkeypatch.setattr("sys.argv", ["match_anonymised", *line.split()])
        importlib.import_module("scripts.match_anonymised").main()
        return shown.readouterr().out

    return typed


@pytest.fixture(scope="module")
def aligned(folder: Path) -> Path:
    """Anonymised, and aligned by the key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "anonymise --data p.tsv q.txt --folder anon",
            "align --model m --data anon/p.tsv anon/q.tsv --method key --key anon/key.tsv --folder known --least 1",
        ):
            patch.setattr("sys.argv", ["match_anonymised", *line.split()])
            importlib.import_module("scripts.match_anonymised").main()
    return folder


def test_no_key_and_no_input_is_written_over(run, aligned: Path) -> None:
    with pytest.raises(DataError, match="key.tsv: the key of what is there already; name another --folder"):
        run("anonymise --data p.tsv --folder anon --seed 1")
    (aligned / "own").mkdir()
    (aligned / "own" / "p.tsv").write_bytes((aligned / "p.tsv").read_bytes())
    with pytest.raises(DataError, match="own/p.tsv: the input"):
        run("anonymise --data own/p.tsv --folder own")
    assert (aligned / "own" / "p.tsv").read_bytes() == (aligned / "p.tsv").read_bytes()


def test_a_key_of_other_numbers_is_refused(run, aligned: Path) -> None:
    (aligned / "other.tsv").write_text("999999\t天\n", "utf-8")
    with pytest.raises(DataError, match="other.tsv: none of the numbers is in it"):
        run("align --model m --data anon/p.tsv --method key --key other.tsv --folder other --least 1")
    (aligned / "other.tsv").write_text("number\t天\n", "utf-8")
    with pytest.raises(DataError, match="other.tsv, line 1: not number TAB character"):
        run("align --model m --data anon/p.tsv --method key --key other.tsv --folder other --least 1")
    with pytest.raises(DataError, match="known: exists already; name another folder"):
        run("align --model m --data anon/p.tsv --method key --key anon/key.tsv --folder known --least 1")


def test_numbers_are_none_of_what_the_plain_text_does_not_have(run, aligned: Path) -> None:
    (aligned / "short.txt").write_text("天今\n天天今\n", "utf-8")
    for method in ("rank", "context"):
        out = f"short-{method}"
        run(f"align --model m --data anon/p.tsv --plain short.txt --method {method} --least 1 --folder {out}")
        rows = [line.split("\t")[2:] for line in (aligned / out / "alignment.tsv").read_text("utf-8").splitlines()]
        assert len(rows) > 2 and {token for row in rows for token in row[::2]} <= {"天", "今"}


def test_anonymised_rows_keep_columns_and_labels_and_are_undone_by_the_key(aligned: Path) -> None:
    key = dict(line.split("\t") for line in (aligned / "anon/key.tsv").read_text("utf-8").splitlines())
    plain, secret = ((aligned / name).read_text("utf-8").splitlines() for name in ("p.tsv", "anon/p.tsv"))
    for one, other in zip(plain, secret, strict=True):
        *words, label = other.split("\t")
        assert one == "\t".join([*("".join(key[x] for x in word.split()) for word in words), label])
    assert len((aligned / "anon/q.tsv").read_text().splitlines()) == 60


@pytest.mark.parametrize(
    "method",
    ["rank --plain plain.txt", "context --plain plain.txt", "likelihood --plain plain.txt", "rank --counts c.json"],
)
def test_an_alignment_is_an_encoder_that_reads_numbers(run, aligned: Path, method: str) -> None:
    (aligned / "c.json").write_text(json.dumps({"天": 9, "今": 7, "[CLS]": 99}), "utf-8")
    out = "-".join(method.split()[::2])
    told = run(
        f"align --model m --data anon/p.tsv anon/q.tsv --key anon/key.tsv --folder {out} --least 1 --method {method}"
    )
    assert "right by anon/key.tsv: " in told and "the commonest seem to be " in told
    made = load_text_encoder(aligned / out)
    number = (aligned / out / "alignment.tsv").read_text("utf-8").split("\t")[0]
    assert made.tokenizer.encode(number) == [106]  # the commonest


@pytest.fixture(scope="module")
def matching(aligned: Path) -> tuple[Path, str]:
    """With a run of two folds, and what it told."""
    line = f"{TRAIN} --model known --data anon/p.tsv --unlabelled anon/q.tsv --folder run --fold 0 2"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.chdir(aligned)
        patch.setattr("sys.argv", ["match_anonymised", *line.split()])
        show()
        importlib.import_module("scripts.match_anonymised").main()
    return aligned, said.getvalue()


def test_a_model_is_trained_predicts_and_is_scored(run, matching: tuple[Path, str]) -> None:
    folder, told = matching
    assert "run/fold-2: AUC " in told and "16 held-out rows" in told
    run("predict --model run/fold-0 run/fold-2 --data anon/p.tsv --out both.txt")
    for one in (0, 2):
        run(f"predict --model run/fold-{one} --data anon/p.tsv --out {one}.txt")
    both, first, second = (np.loadtxt(folder / name) for name in ("both.txt", "0.txt", "2.txt"))
    np.testing.assert_allclose(both, (first + second) / 2, atol=2e-6)
    held = np.loadtxt(folder / "run/fold-2/heldout.tsv")
    np.testing.assert_array_equal(held[:, 0], np.arange(80)[2::5] + 1)
    np.testing.assert_allclose(held[:, 2], second[2::5], atol=2e-5)
    labels = np.array([line[-1] == "1" for line in (folder / "p.tsv").read_text("utf-8").splitlines()])
    told = run("score --data anon/p.tsv --predictions both.txt --picture both.png")
    assert f"AUC {auc(both, labels):.4f}" in told and (folder / "both.png").read_bytes()[1:4] == b"PNG"


def test_heldout_rows_have_the_numbers_of_the_files_rows(run, aligned: Path) -> None:
    rows = (aligned / "anon/p.tsv").read_text().splitlines()
    rows[3:3] = ["12 x\t3\t1", "only one column"]
    (aligned / "spoilt.tsv").write_text("\n".join(rows) + "\n")
    run(f"{TRAIN} --model known --data spoilt.tsv --folder spoilt --on-bad-record skip --epochs 0.2 --fold 1")
    held = np.loadtxt(aligned / "spoilt/fold-1/heldout.tsv")
    assert [rows[int(n) - 1].split("\t")[-1] for n in held[:, 0]] == [f"{label:.0f}" for label in held[:, 1]]
    np.testing.assert_array_equal(held[:, 0], [2, *np.arange(82)[8::5] + 1])


def test_folds_are_scored_by_what_they_held_out(run, matching: tuple[Path, str]) -> None:
    folder, _ = matching
    folds = [np.loadtxt(folder / f"run/fold-{n}/heldout.tsv") for n in (0, 2)]
    told = run("score --heldout run/fold-0/heldout.tsv run/fold-2/heldout.tsv")
    mean = np.mean([auc(fold[:, 2], fold[:, 1]) for fold in folds])
    assert f"AUC {mean:.4f} [" in told and "32 rows, 16 alike, 2 folds" in told
    with pytest.raises(DataError, match="p.tsv: no heldout.tsv of train"):
        run("score --heldout anon/p.tsv")
    with pytest.raises(DataError, match="--out anon/p.tsv: the input"):
        run("score --data anon/p.tsv --predictions 0.txt --picture anon/p.tsv")
    with pytest.raises(DataError, match="run: no run of .*; give a fold of it, such as run/fold-0"):
        run("predict --model run --data anon/p.tsv --out no.txt")


def test_pairs_come_from_standard_input(run, matching: tuple[Path, str], monkeypatch) -> None:
    folder, _ = matching
    run("predict --model run/fold-0 --data anon/p.tsv --out file.txt")
    with open(folder / "anon/p.tsv") as given:
        monkeypatch.setattr("sys.stdin", given)
        run("predict --model run/fold-0 --data - --out piped.txt")
    assert (folder / "piped.txt").read_bytes() == (folder / "file.txt").read_bytes()


def test_others_predictions_are_learned_from_but_for_held_out_pairs(run, matching: tuple[Path, str]) -> None:
    run("predict --model run/fold-0 --data anon/p.tsv --out soft.tsv --pasted --both-orders")
    told = run(f"{TRAIN} --model known --data anon/p.tsv --soft soft.tsv --folder student")
    assert "student/fold-0: AUC " in told
    assert "left out 16 soft labels of pairs that are held out" in told
    assert "128 labelled pairs and 16 without label" in told  # 64, and as many soft ones


def test_what_matches_plain_pairs_matches_numbers_once_it_is_aligned(run, aligned: Path) -> None:
    """By the key the numbers are the same characters, so that the probabilities are the same, without any label."""
    assert "taught/fold-0: AUC " in run(f"{TRAIN} --model m --data p.tsv --folder taught")
    told = run(
        "align --model taught/fold-0 --data anon/p.tsv --method key --key anon/key.tsv --folder matches --least 1"
    )
    assert "matches: a --model for scripts.match_anonymised train, and for predict" in told
    run("predict --model taught/fold-0 --data p.tsv --out of-plain.txt")
    run("predict --model matches --data anon/p.tsv --out of-numbers.txt")
    plain, numbers = (np.loadtxt(aligned / name) for name in ("of-plain.txt", "of-numbers.txt"))
    np.testing.assert_allclose(numbers, plain, atol=2e-6)
    assert len(plain) == 80 and np.ptp(plain) > 0.01


def test_a_bad_row_is_named_or_an_empty_line(run, matching: tuple[Path, str]) -> None:
    aligned, _ = matching
    rows = (aligned / "anon/p.tsv").read_text().splitlines()[:5]
    rows[2] = "12 x\t3"
    rows[3] = "only one column"
    (aligned / "bad.tsv").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="bad.tsv, line 3: 'x' in column 1 is no number"):
        run("predict --model run/fold-0 --data bad.tsv --out bad.txt")
    assert not (aligned / "bad.txt").exists()
    told = run("predict --model run/fold-0 --data bad.tsv --out bad.txt --on-bad-record skip")
    assert "bad.tsv: 1 rows (columns), 1 rows (no numbers): an empty line each" in told
    lines = (aligned / "bad.txt").read_text().split("\n")
    assert len(lines) == 6 and lines[2] == lines[3] == lines[5] == "" and all(lines[n] for n in (0, 1, 4))
    with pytest.raises(DataError, match="bad.tsv, line 3: 2 column.s., not text TAB text TAB label"):
        run("score --data bad.tsv --predictions bad.txt")
    told = run("score --data bad.tsv --predictions bad.txt --on-bad-record skip")
    assert "bad.tsv: left out 2 rows (columns)" in told and "3 rows, 1 alike, 0 without score" in told
    (aligned / "one.tsv").write_text("3 10\t10 17\t1\n3\t10\t1\n")
    with pytest.raises(DataError, match="all labels are 1; both are needed"):
        run(f"{TRAIN} --model known --data one.tsv --folder one")
    (aligned / "many.txt").write_text("0.5\n" * 80)
    with pytest.raises(DataError, match="80 lines, and one.tsv has 2 rows"):
        run("score --data one.tsv --predictions many.txt")
