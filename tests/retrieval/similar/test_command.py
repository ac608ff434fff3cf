"""The command and the door from Python: files, kills, lines, a prompt, a labelled set; what cannot write."""

import io
import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from pegasus_zh.writing import Writing
from retrieval import SimilarQuestions
from retrieval.similar.augment import Labelled, write_augmented
from retrieval.similar.command import SimilarConfig, run_similar
from retrieval.similar.drawing import Drawing
from rope.decoding.search import Search
from tests.listening import listening
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS, TEXTS, TOKENIZER
from tests.rope.encoder.random_encoder import BERT, ROFORMER
from training.files.errors import DataError
from training.mesh import MeshConfig

DRAWS = 16
SEARCH = Search(temperature=1.0, top_p=0.95, answers=DRAWS)
WRITING = Writing(max_source=34, max_target=6, batch_size=2, search=SEARCH)
DRAWING = Drawing(keep=5, writing=WRITING)
SHORT = [text for text in TEXTS if len(text) < 13]
SETTINGS = {"keep": 5, "answers": DRAWS, "max_source": 34, "max_target": 6, "batch_size": 2}
ONE = MeshConfig()

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = replace(ROFORMER, pooler="linear")
    return write_model(tmp_path_factory.mktemp("model") / "m", config)


@pytest.fixture(scope="module")
def questions(folder):
    return SimilarQuestions(folder, mesh=ONE)


@pytest.fixture(scope="module")
def found(questions):
    return questions(SHORT, **SETTINGS)


def config(folder, path="", out="", **changes) -> SimilarConfig:
    return SimilarConfig(model=str(folder), input=str(path), out=str(out), drawing=replace(DRAWING, **changes))


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_is_kept_is_what_it_says(questions, found):
    embedder = questions._writer
    for one, text in zip(found, SHORT, strict=True):
        texts = [similar for similar, _ in one.similar]
        assert one.text == text and 0 < len(texts) <= 5 and len({*texts}) == len(texts) and text not in texts
        assert one.drawn == DRAWS and len(texts) + one.copies + one.repeated <= DRAWS
        assert all({*similar} <= {*CHARACTERS} for similar in texts)
        scores = [score for _, score in one.similar]
        assert scores == sorted(scores, reverse=True) and -1 <= scores[-1] <= scores[0] <= 1
        with jax.set_mesh(questions._mesh):
            vectors = embedder._vectors([text, *texts], DRAWING)
        np.testing.assert_allclose(vectors[1:] @ vectors[0], scores, atol=1e-5)
    assert len({one.similar[0].text for one in found}) > len(SHORT) // 2


def test_draws_depend_on_a_texts_number_and_the_seed_alone(questions, found):
    assert questions(SHORT[3:5], first=3, **SETTINGS)[0].similar[0].text == found[3].similar[0].text
    assert questions(SHORT[3:5], **SETTINGS)[0].similar != found[3].similar
    assert questions(SHORT[:2], **SETTINGS, seed=1)[0].similar != found[0].similar


def test_what_is_asked_of_a_draw_holds(questions):
    begun = questions(SHORT[:2], **SETTINGS, begin="我们", forbid=["公园"], min_length=5)
    assert all(text.startswith("我们") and "公园" not in text for one in begun for text, _ in one.similar)
    (one,) = questions(["今天气很好"], **SETTINGS, change=["气"])
    assert one.similar and all("气" not in text for text, _ in one.similar)
    limited = questions(SHORT[:2], **SETTINGS | {"keep": 16}, least=0.2, greatest=0.7)
    assert all(0.2 <= score <= 0.7 for one in limited for _, score in one.similar)
    near, unlike = (questions(SHORT[:1], **SETTINGS, diversity=d)[0] for d in (0.0, 0.9))
    assert near.similar != unlike.similar and near.similar[0] == unlike.similar[0]


def test_a_file_is_written_for_and_a_killed_run_goes_on(monkeypatch, folder, found, tmp_path):
    path, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    path.write_text("\n".join(SHORT) + "\n", "utf-8")
    with listening() as told:
        run_similar(config(folder, path, out))
    assert any(f"similar questions of {len(SHORT)} texts" in line for line in told)
    assert rows(out.read_text("utf-8")) == [json.loads(json.dumps(one.row())) for one in found]
    whole, calls = out.read_bytes(), []
    out.unlink()
    write = SimilarQuestions.__init__.__globals__["QuestionWriter"].__call__

    def killed(self, *args):
        calls.append(args[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(self, *args)

    monkeypatch.setattr("retrieval.similar.writer.QuestionWriter.__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        run_similar(config(folder, path, out))
    (partial,) = tmp_path.glob(".out.jsonl.*.partial")
    assert not out.exists() and partial.read_bytes().count(b"\n") == 4
    with partial.open("ab") as file:
        file.write(b'{"text": "half of a li')
    run_similar(config(folder, path, out))
    assert out.read_bytes() == whole and calls[3:5] == [4, 6] and not [*tmp_path.glob(".out*.partial")]


def test_a_file_whose_end_is_no_whole_batch_and_other_kinds_of_files(capsys, folder, found, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in SHORT[:3]), "utf-8")
    run_similar(config(folder, path))
    printed = rows(capsys.readouterr().out)
    assert [row["similar"][0]["text"] for row in printed] == [one.similar[0].text for one in found[:3]]


def test_lines_and_a_prompt(monkeypatch, shown, folder, found):
    lines = "\n".join([SHORT[0], "", "龘", SHORT[3]]) + "\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    run_similar(config(folder, "-"))
    printed = shown.readouterr().out.splitlines()
    told = [line for line in printed if not line.startswith("{")]
    first, empty, strange, last = rows("\n".join(line for line in printed if line.startswith("{")))
    assert [similar["text"] for similar in first["similar"]] == [text for text, _ in found[0].similar]
    assert empty["similar"] == [] == strange["similar"] and last["kept"] > 0 and last["text"] == SHORT[3]
    assert any("'' has nothing" in line for line in told) and any("'龘' has only" in line for line in told)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SHORT[0]}\n\n"))
    run_similar(config(folder))
    printed = shown.readouterr().out
    assert all(f"{score:.4f}  {text}" in printed for text, score in found[0].similar)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SHORT[0]}\n"))
    run_similar(config(folder, least=0.999999))
    assert f"of {DRAWS} draws none is kept" in shown.readouterr().out


def test_a_labelled_set_grows(folder, tmp_path):
    path, out = tmp_path / "in.tsv", tmp_path / "out.tsv"
    pairs = [(SHORT[0], SHORT[3], "1"), (SHORT[0], SHORT[4], "0"), (SHORT[5], SHORT[3], "1")]
    path.write_text("".join("\t".join(pair) + "\n" for pair in pairs), "utf-8")
    with listening() as told:
        run_similar(replace(config(folder, out=out), augment=str(path)))
    written = [tuple(line.split("\t")) for line in out.read_text("utf-8").splitlines()]
    added = written[3:]
    assert written[:3] == pairs and f"3 labelled pairs, and {len(added)} more of them" in told[-1]
    assert len({*written}) == len(written) and 6 < len(added) <= 15 and [*tmp_path.glob(".*")] == []
    of = {label: [row for row in added if row[1:] == label] for label in {pair[1:] for pair in pairs}}
    assert {row[0] for row in of[pairs[1][1:]]} <= {row[0] for row in of[pairs[0][1:]]} | {SHORT[3]}
    assert all(first != second for first, second, _ in added)


def test_a_set_grows_by_no_text_beside_itself_in_another_spelling(tmp_path):
    similar = ["如何开wifi", "wifi在哪", "怎么开wifi"]
    row = {"text": "怎么开WiFi", "similar": [{"text": text, "score": 0.9} for text in similar]}
    drawn = json.dumps(row) + "\n" + json.dumps({"text": "WiFi在哪", "similar": []}) + "\n"
    (tmp_path / "drawn").write_text(drawn, "utf-8")
    pairs = [Labelled("怎么开WiFi", "如何开ＷiFi？", "1"), Labelled("WiFi在哪", "怎么开WiFi", "0")]
    write_augmented([*pairs, Labelled("怎么开WiFi", "怎么开WiFi", "1")], tmp_path / "drawn", tmp_path / "o.tsv")
    added = (tmp_path / "o.tsv").read_text("utf-8").splitlines()[3:]
    assert added == ["wifi在哪\t如何开ＷiFi？\t1", "如何开wifi\t怎么开WiFi\t1"]


def test_what_cannot_write_is_one_line(folder, tmp_path):
    headless = write_model(tmp_path / "headless", replace(ROFORMER, head=False))
    with pytest.raises(DataError, match=f"{headless}: no masked language model's head, so it cannot write"):
        SimilarQuestions(headless, mesh=ONE)
    never = write_model(tmp_path / "never", BERT)
    with listening() as told:
        model = SimilarQuestions(never, mesh=ONE)
    assert sum("if this one was not, what it writes is noise" in line for line in told) == 1
    with pytest.raises(DataError, match=f"--max-target 64: the model has {BERT.max_positions} learned positions"):
        model(SHORT)
    assert model(SHORT[:2], **SETTINGS)[0].similar  # and it writes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "in.txt", "augment": "p.tsv"}, "--input and --augment: give one of the two"),
        ({"out": "o.jsonl"}, "--out goes with --input or --augment"),
        ({"augment": "p.tsv"}, "--augment needs --out FILE.tsv, not standard output"),
        ({"input": "in.txt", "out": "in.txt"}, "--out in.txt: the input; name a new file"),
        ({"input": "in.txt", "out": "."}, "a folder; name a new file"),
        ({"input": "empty.txt"}, "empty.txt: no text in it"),
        ({"input": "blank.txt"}, "blank.txt, line 2: no text; remove the line"),
        ({"input": "strange.txt"}, "'龘' has only characters that the vocabulary does not"),
        ({"augment": "two.tsv", "out": "o.tsv"}, "a line is text TAB text TAB label"),
    ],
)
def test_what_does_not_go_together_is_one_line(monkeypatch, folder, tmp_path, changes, message):
    monkeypatch.chdir(tmp_path)
    files = {"in.txt": "今天\n", "empty.txt": "", "blank.txt": "今天\n\n今天\n", "strange.txt": "今天\n龘\n"}
    for name, text in (files | {"p.tsv": "今\t天\t1\n", "two.tsv": "今\t天\n"}).items():
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=message) as error:
        run_similar(SimilarConfig(model=str(folder), drawing=DRAWING, **changes))
    assert "\n" not in str(error.value)


def test_settings_that_cannot_be_are_refused_by_name(questions):
    with pytest.raises(ValueError, match="'今天' is one text"):
        questions("今天")
    with pytest.raises(ValueError, match="no setting 'kept'"):
        questions(["今天"], kept=3)
    assert len(questions(["今天"], answers=3)[0].similar) <= 3  # of which 20 might be kept
    assert TOKENIZER.eos_id not in (TOKENIZER.unk_id, TOKENIZER.mask_id)
