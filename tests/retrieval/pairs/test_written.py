"""Pairs that a model writes: against the formula without a cache, prompt by prompt; what is kept; the command."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pegasus_zh.decoders import Ready
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.writing import Writing, marks_of, write_texts
from retrieval.pairs.model_commands import WriteConfig, write
from retrieval.pairs.tally import Tally
from retrieval.pairs.templates import DEFAULT, Label, Templates, read_templates
from retrieval.pairs.written import DECAY, Written, fitting, kept, write_pairs, written
from rope.decoding.debiased import Debiased
from rope.decoding.search import Marks, Search
from rope.decoding.write import write as write_ids
from rope.encoder.prefix_decoder import PrefixDecoder
from tests.pegasus_zh import test_writing as t5
from tests.pegasus_zh.t5.random_model import START, TINY
from tests.pegasus_zh.t5.test_decoder import LONGEST, MODEL, SEEDS, SOURCE, uncached
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import TOKENIZER, source
from training.files.errors import DataError
from training.mesh import MeshConfig
from training.telling import show

TEXTS = ["今天天气很好", "我们去公园散步吧", "你呢？今天", "公园很好", "散步吧", "天气"]
TEMPLATES = Templates(
    (
        Label("same", 1.0, "你，{text}，吧", ()),
        Label("some", 0.5, "好，{text}？", ("same",)),
        Label("other", 0.0, "我们今天去，{text}，呢", ("same", "some")),
    )
)
WRITING = Writing(max_source=40, max_target=9, batch_size=4)

pytestmark = pytest.mark.usefixtures("one_device")  # rows cut over a mesh are those of tests/rope/decoding


def roformer() -> Ready:
    given = source()
    return Ready(given.model, PrefixDecoder(given.config), TOKENIZER, (3, 4), "")


READY = roformer()
T5 = Ready(t5.MODEL, t5.DECODER, t5.TOKENIZER, (), "")


def test_t5_writes_the_formulas_most_probable_tokens():
    """Greedily, without a cache: alpha of section 3 of arXiv 2104.07540, over one call for each prompt."""
    decay, prompts = 50.0, [SOURCE, SOURCE[::-1], np.roll(SOURCE, 3, 0)]
    decoder, marks = Debiased(MT5Decoder(TINY), 3, decay), Marks(start=START, end=-1)
    rows = np.concatenate(prompts, 1)
    found, _ = write_ids(MODEL, rows, SEEDS, decoder=decoder, search=Search(), marks=marks, length=LONGEST)
    inputs = np.concatenate([np.full((len(SOURCE), 1), START), np.asarray(found)[:, :-1]], axis=1)
    own, *others = (np.exp(np.float64(uncached(prompt, inputs, TINY))) for prompt in prompts)
    delta = own - np.max(others, 0)
    wanted = own * np.where(delta >= 0, 1, np.exp(decay * delta))
    wanted[..., 0] = -1  # padding is never written
    np.testing.assert_array_equal(found, wanted.argmax(-1))
    plain, _ = write_ids(MODEL, SOURCE, SEEDS, decoder=MT5Decoder(TINY), search=Search(), marks=marks, length=LONGEST)
    assert (np.asarray(found) != plain).any(1).sum() > 2 and len(np.unique(found)) > 5


def by_hand(ready: Ready, label: Label, text: str, decay: float) -> str:
    """Greedily, of a text alone."""
    framed = [ready.tokenizer.frame_source(ready.tokenizer.encode(x), 99) for x in TEMPLATES.prompts(label, text)]
    room = 24
    row = np.array([[*ids, *[0] * (room - len(ids))] for ids in framed], np.int32).reshape(1, -1)
    marks = Marks(
        start=ready.tokenizer.start_id, end=ready.tokenizer.eos_id, never=tuple((i,) for i in ready.suppressed)
    )
    decoder, one = Debiased(ready.decoder, len(framed), decay), np.zeros(1, np.uint32)
    ids, _ = write_ids(ready.model, row, one, decoder=decoder, search=Search(), marks=marks, length=9)
    return ready.tokenizer.decode(np.asarray(ids)[0].tolist()).strip()


def test_what_is_written_is_that_of_each_text_alone():
    found = list(written(READY, TEMPLATES, TEXTS, WRITING, DECAY))
    for text, of_text in zip(TEXTS, found, strict=True):
        for label in TEMPLATES.labels[1:]:  # which are held against others
            assert of_text[label.name] == [by_hand(READY, label, text, DECAY)]
    assert len({x for of_text in found for several in of_text.values() for x in several}) > 4


def test_without_decay_other_instructions_are_nothing():
    marks = marks_of(READY.tokenizer, WRITING, READY.suppressed)
    prompts = [TEMPLATES.labels[1].prompt(text) for text in TEXTS]
    plain = list(write_texts(READY.model, READY.decoder, READY.tokenizer, WRITING, prompts, 0, marks))
    found = [x["some"] for x in written(READY, Templates(TEMPLATES.labels[:2]), TEXTS, WRITING, 0.0)]
    assert found == [[x.strip() for x in several] for several in plain]
    assert found != [x["some"] for x in written(READY, TEMPLATES, TEXTS, WRITING, DECAY)]


@pytest.mark.parametrize(
    ("ready", "texts", "search"),
    [(READY, TEXTS, Search(temperature=0.9, answers=3)), (T5, t5.TEXTS[:6], Search(beams=3, answers=2))],
    ids=["roformer", "t5"],
)
def test_an_instruction_against_none_is_plain_writing(ready, texts, search):
    """Of each kind of model and several answers; tests/rope/decoding has every search."""
    alone, writing = Templates((Label("same", 1.0, "{text}", ()),)), replace(WRITING, search=search)
    marks = marks_of(ready.tokenizer, writing, ready.suppressed)
    plain = list(write_texts(ready.model, ready.decoder, ready.tokenizer, writing, texts, 0, marks))
    found = [of_text["same"] for of_text in written(ready, alone, texts, writing)]
    assert found == [[x.strip() for x in several] for several in plain]


def test_batches_windows_and_the_first_change_nothing(monkeypatch):
    one, other = TEMPLATES.labels[:2]
    templates = Templates((replace(one, against=("some",)), other))  # two prompts of each: one program
    writing = replace(WRITING, search=Search(temperature=1.0, top_p=0.9, answers=2))
    found = list(written(READY, templates, TEXTS, writing))
    monkeypatch.setattr("retrieval.pairs.written.WINDOW", 1)
    assert list(written(READY, templates, iter(TEXTS), replace(writing, batch_size=3))) == found
    assert list(written(READY, templates, TEXTS[2:], writing, first=2)) == found[2:]
    assert list(written(READY, templates, TEXTS, replace(writing, seed=1))) != found
    same = Templates((replace(one, name="a", against=("b",)), replace(one, name="b", against=("a",))))
    assert any(x["a"] != x["b"] for x in written(READY, same, TEXTS, writing))  # labels draw apart


def test_what_ends_at_a_mark():
    plain = list(written(READY, TEMPLATES, TEXTS, WRITING))
    mark = next(x[1] for of_text in plain for several in of_text.values() for x in several if len(x) > 2)
    found = list(written(READY, replace(TEMPLATES, end=mark), TEXTS, WRITING))
    for one, other in zip(plain, found, strict=True):
        assert {name: [x.partition(mark)[0] for x in several] for name, several in one.items()} == other
    assert plain != found


def test_prompts_that_are_too_long_are_left_out():
    tally = Tally()
    assert fitting(READY, TEMPLATES, [*TEXTS, "好", "散步吧？", "很好" * 20], 30, tally) == TEXTS
    assert tally.dropped["texts whose prompt has more than 30 ids"] == 1
    assert tally.dropped["texts of one token"] == tally.dropped["texts there already"] == 1


def test_what_is_kept_of_it():
    labels = (Label("same", 1.0, "请写出意思相同的话：{text}", ()), Label("other", 0.0, "别的，{text}", ()))
    made = [
        {"same": ["天气真好", "今天天气很好！", "", "好", "天气真好。"], "other": ["公园", "公园"]},
        {"same": ["请写出意思相同的话吧", "公园不错", "天气\t真好"], "other": ["公园不错", "散步"]},
    ]
    tally = Tally()
    assert kept(["今天天气很好", "公园很好"], made, Templates(labels), tally) == [
        Written("今天天气很好", "天气真好", 1.0),
        Written("今天天气很好", "公园", 0.0),
        Written("公园很好", "天气 真好", 1.0),
        Written("公园很好", "散步", 0.0),
    ]
    assert tally.dropped == {
        "written texts of one token or none": 2,
        "written texts that repeat the instruction": 1,
        "pairs of the same text but for marks": 1,
        "pairs there already": 3,
        "pairs written under labels of several scores": 1,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m")


def config(model, tmp_path, texts=TEXTS, **settings) -> WriteConfig:
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n", "utf-8")
    labels = {
        x.name: {"score": x.score, "instruction": x.instruction, "against": [*x.against]} for x in TEMPLATES.labels
    }
    (tmp_path / "i.json").write_text(json.dumps({"labels": labels}), "utf-8")
    given = {"writing": replace(WRITING, search=Search(temperature=1.0)), "mesh": MeshConfig()}
    files = {"data": (str(tmp_path / "t.txt"),), "out": str(tmp_path / "o.tsv"), "templates": str(tmp_path / "i.json")}
    return WriteConfig(model=str(model), **files | given | settings)


def test_the_command_writes_what_the_function_does_and_goes_on(model, tmp_path, capsys, monkeypatch):
    show()
    search = Search(temperature=1.0, answers=2)
    settings = {"writing": replace(WRITING, search=search)}
    given = config(model, tmp_path, **settings)
    wanted = write_pairs(
        TEXTS, model, templates=tmp_path / "i.json", search=search, max_source=40, max_target=9,
        batch_size=4, mesh=MeshConfig(),
    )  # fmt: skip
    lines = [f"{pair.first}\t{pair.second}\t{pair.score:g}" for pair in wanted]
    assert write(given) == len(wanted) > 5
    assert (tmp_path / "o.tsv").read_text("utf-8").splitlines() == lines
    told = capsys.readouterr().out
    counts = {score: sum(pair.score == score for pair in wanted) for score in (0, 0.5, 1)}
    assert "t.txt: 6 texts" + "".join(f", {n} of score {score:g}" for score, n in counts.items() if n) in told
    assert sorted(x.name for x in tmp_path.iterdir()) == ["i.json", "o.tsv", "t.txt"]
    (tmp_path / "o.tsv").unlink()

    def killed(*arguments, **settings):
        for number, of_text in enumerate(written(*arguments, **settings)):
            if number == 3:
                raise KeyboardInterrupt
            yield of_text

    monkeypatch.setattr("retrieval.pairs.model_commands.written", killed)
    with pytest.raises(KeyboardInterrupt):
        write(given)
    (left,) = tmp_path.glob(".o.tsv.*.partial")
    left.write_bytes(left.read_bytes()[:-5])  # a line that is cut
    rest = []
    monkeypatch.setattr("retrieval.pairs.model_commands.written", lambda *x: rest.append(x[2]) or written(*x))
    write(given)
    assert rest == [TEXTS[2:]] and (tmp_path / "o.tsv").read_text("utf-8").splitlines() == lines
    write(config(model, tmp_path, alike=True, out=str(tmp_path / "o.jsonl"), **settings))
    alike = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()]
    assert alike == [{"text": pair.first, "synonyms": [pair.second]} for pair in wanted if pair.score == 1]


def test_templates_that_come_with_the_project(tmp_path):
    found = read_templates()
    assert [(x.score, len(x.against)) for x in found.labels] == [(1, 0), (0.5, 1), (0, 2)] and found.end == "”"
    one, *others = found.prompts(found.labels[2], "今天{text}")
    assert one.count("今天{text}") == 1 and "不同" in one and len(others) == 2 and found.ended(" 好的 ”对") == "好的"
    about = json.loads(DEFAULT.read_text("utf-8"))
    for fields in about["labels"].values():
        del fields["against"]
    (tmp_path / "i.json").write_text(json.dumps(about), "utf-8")
    assert all(len(x.against) == 2 and x.name not in x.against for x in read_templates(tmp_path / "i.json").labels)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "it needs labels"),
        ({"labels": {}}, "it needs labels"),
        ({"labels": {"a": {}}, "ends": 3}, "it needs labels"),
        ({"labels": {"a": {"score": 1}}}, "label 'a': it has score, instruction and perhaps against, not"),
        ({"labels": {"a": {"score": "1", "instruction": "{text}"}}}, "label 'a': score is '1', not a number"),
        ({"labels": {"a": {"score": float("inf"), "instruction": "{text}"}}}, "label 'a': score is inf, not a number"),
        (
            {"labels": {"a": {"score": 1, "instruction": "好"}}},
            r"its instruction has {text} 0 times, and needs it once",
        ),
        ({"labels": {"a": {"score": 1, "instruction": "{text}{text}"}}}, r"has {text} 2 times"),
        (
            {"labels": {"a": {"score": 1, "instruction": "{text}", "against": ["a"]}}},
            r"against is \['a'\]: it names",
        ),
        ({"labels": {"a": {"score": 1, "instruction": "{text}", "against": ["b"]}}}, "of a; mend it as"),
    ],
)
def test_templates_that_are_refused(tmp_path, about, message):
    (tmp_path / "i.json").write_text(json.dumps(about), "utf-8")
    with pytest.raises(DataError, match=message) as refused:
        read_templates(tmp_path / "i.json")
    assert "\n" not in str(refused.value)


def test_what_is_refused(model, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="t.txt: 2 texts: no pairs; left out: 2 texts of one token"):
        write(config(model, tmp_path, ["好", "吧"]))
    with pytest.raises(DataError, match="no pairs; left out: 6 texts whose prompt has more than 5 ids"):
        write(config(model, tmp_path, writing=replace(WRITING, max_source=5)))
    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match="1 texts: no pairs; left out: 1 written texts of one token or none"),
    ):
        patch.setattr("retrieval.pairs.model_commands.written", lambda *_: [{"same": ["好"]}])
        write(config(model, tmp_path, ["天气"]))
    with pytest.raises(DataError, match="--out .*o.jsonl: it is written as .tsv"):
        write(config(model, tmp_path, out=str(tmp_path / "o.jsonl")))
    with pytest.raises(ValueError, match="decay is -1.0: it must be 0 or more"):
        config(model, tmp_path, decay=-1.0)
    with pytest.raises(ValueError, match="is one text: give a list"):
        write_pairs("今天", model)
    with pytest.raises(DataError, match="no such file; name a file of templates"):
        write_pairs(TEXTS, model, templates=tmp_path / "none.json")
    assert not (tmp_path / "o.tsv").exists()
