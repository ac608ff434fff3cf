"""Fine-tuning: it learns, keeps the best, resumes to the bit, keeps training and validation apart."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pegasus_zh.finetune import FinetuneConfig, finetune, read_data
from pegasus_zh.generation import writer
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.load import load
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.tuning import FinetuneRecipe, Tuned, _epochs
from pegasus_zh.writing import Writing, generate
from tests.pegasus_zh.t5.random_model import TINY, random_model, random_pairs
from tests.pegasus_zh.t5.random_model import rows as one_a_row
from training.checkpoints import Checkpoints
from training.files.errors import DataError
from training.loop import Diverged, Stopped
from training.metrics import read_metrics
from training.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests

CHARACTERS = [chr(c) for c in range(0x4E00, 0x4E00 + 38)]
TOKENIZER = PegasusTokenizer(SPECIALS + CHARACTERS)
CONFIG = replace(TINY, vocabulary=144, width=32, feed_forward=48)
RATE = OptimizerConfig(learning_rate=1e-2, weight_decay=0, warmup=1, clip=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    write_folder(folder, jax.device_get(random_model(CONFIG)), CONFIG, TOKENIZER)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The reference is the first two characters of the source."""
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(CHARACTERS, random.integers(4, 9))) for _ in range(80)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("".join(f"{text[:2]}\t{text}\n" for text in texts), "utf-8")
    return path


@pytest.fixture(scope="module")
def config(model, pairs):
    return FinetuneConfig(
        model=str(model),
        data=str(pairs),
        folder="",
        valid_examples=16,
        semantics="bert4keras",
        recipe=FinetuneRecipe(epochs=6, batch_size=16, max_source=16, max_target=8, optimizer=RATE),
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, finetune(replace(config, folder=str(folder)))


def rows(folder):
    return [
        {k: v for k, v in row.items() if "second" not in k and k not in ("mfu", "waiting")}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def test_it_learns_and_keeps_the_best_epoch(finished, config):
    folder, (found, whole) = finished
    evaluations = {row["step"]: row for row in rows(folder) if "eval_bleu" in row}
    assert sorted(evaluations) == [4, 8, 12, 16, 20, 24]
    best = max(evaluations.values(), key=lambda row: row["eval_bleu"])
    assert whole and found == json.loads((folder / "best.json").read_text())
    assert found["step"] == best["step"] and found["bleu"] == best["eval_bleu"]
    losses = [row["eval_loss"] for row in rows(folder) if "eval_loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    # What lies in best/ writes what was scored, and has the switches it was trained with.
    loaded = load(folder / "best")
    assert (loaded.config.gelu, loaded.config.cross_bias) == ("erf", True)
    kept = [json.loads(line) for line in (folder / "best" / "validation.jsonl").read_text("utf-8").splitlines()]
    assert [(row["source"], row["reference"]) for row in kept] == read_data(config)[1]
    sources = [TOKENIZER.frame_source(TOKENIZER.encode(row["source"]), 16) for row in kept]
    writing = Writing(max_source=16, max_target=8)
    written = generate(loaded.model, MT5Decoder(loaded.config), TOKENIZER, sources, writing)
    assert list(written) == [row["written"] for row in kept]


@pytest.mark.slow  # the engine resumes as in tests/training
def test_a_stopped_run_resumes_to_the_bit(finished, config, tmp_path, monkeypatch):
    monkeypatch.setattr("pegasus_zh.tuning.scores", fail_at(3))
    config = replace(config, folder=str(tmp_path / "run"))
    with pytest.raises(Diverged):
        finetune(config)
    monkeypatch.undo()
    assert finetune(config) == finished[1]
    assert rows(tmp_path / "run") == rows(finished[0])
    assert finetune(config) == finished[1]  # again: it is finished


def test_a_run_that_was_told_to_stop_says_so(finished, config, tmp_path, monkeypatch):
    @contextmanager
    def told_at_six():
        yield lambda step: step == 6

    config = replace(config, folder=str(tmp_path / "run"))
    monkeypatch.setattr("training.loop.told_to_stop", told_at_six)
    stopped = finetune(config)
    assert not stopped.finished and stopped.best["step"] == 4  # the first epoch's
    with pytest.raises(Stopped):
        stopped.complete()
    monkeypatch.undo()
    assert finetune(config) == finished[1] and finished[1].complete() == finished[1].best


def test_smoothing_and_z_loss_are_the_objective(model):
    """Of the same model on the same rows: the flags reach the loss, the figures that are told stay plain."""
    config, pairs = load(model, semantics="mt5").config, random_pairs(4, CONFIG, seed=1)
    batch = one_a_row([[pair] for pair in pairs], 24, 16)

    def sums(**changes):
        program = FinetuneRecipe(**changes).program(config, (24, 16), 10)
        return jax.jit(program.evaluate)(jax.tree.map(jnp.asarray, load(model, semantics="mt5").model), batch)

    plain, smooth, z = sums(), sums(label_smoothing=0.1), sums(z_loss=0.01)
    assert plain["loss"] == plain["cross_entropy"]
    for changed in (smooth, z):
        assert changed["cross_entropy"] == plain["cross_entropy"] and abs(changed["loss"][0] - plain["loss"][0]) > 0.01


def test_a_fine_tuned_model_writes_no_sentinels(tmp_path, pairs):
    """The head would have extra0 for every token; as it is tuned, and as it is loaded, it is never written."""
    words = PegasusTokenizer([*SPECIALS, *CHARACTERS[:-1], "extra0"])
    start = random_model(CONFIG)
    sentinel = words.vocab_size - 1
    start = start.replace(head=start.head.at[:, sentinel].set(100 * start.decoder.final_norm))
    write_folder(tmp_path / "model", jax.device_get(start), CONFIG, words)
    recipe = FinetuneRecipe(
        epochs=1, batch_size=16, max_source=16, max_target=8, optimizer=replace(RATE, learning_rate=0)
    )
    config = FinetuneConfig(model=str(tmp_path / "model"), data=str(pairs), folder=str(tmp_path / "run"), recipe=recipe)
    finetune(replace(config, semantics="mt5", valid_examples=16))
    best = load(tmp_path / "run" / "best", semantics="mt5")
    assert best.suppressed == (sentinel,)
    lines = (tmp_path / "run" / "best" / "validation.jsonl").read_text("utf-8").splitlines()
    assert not any("extra0" in line for line in lines)
    texts = [json.loads(line)["source"] for line in lines]
    writing = Writing(max_source=16, max_target=8)
    assert not any("extra0" in text for (text,) in writer(best, writing)(texts))
    assert any("extra0" in text for (text,) in writer(replace(best, suppressed=()), writing)(texts))


def fail_at(call: int):
    from pegasus_zh.evaluation import scores

    calls = []

    def failing(*args):
        calls.append(1)
        if len(calls) == call:
            raise Diverged(1, "the power went", "")
        return scores(*args)

    return failing


def test_epochs_hold_every_pair_once_and_start_anywhere():
    ids = list(range(10))
    batches = _epochs(ids, 4, 3, 0)
    found = [next(batches) for _ in range(6)]
    assert [len(batch) for batch in found] == [4, 4, 2] * 2
    assert sorted(sum(found[:3], [])) == sorted(sum(found[3:], [])) == ids and found[:3] != found[3:]
    assert next(_epochs(ids, 4, 3, 4)) == found[4]


def of_seed(config, seed, **changes):
    return replace(config, recipe=replace(config.recipe, seed=seed), **changes)


def test_training_and_validation_do_not_meet(config):
    whole, valid = read_data(config)
    assert len(whole) == 64 and len(valid) == 16 and not set(whole) & set(valid)
    for seed in (1, 2):
        few, same = read_data(of_seed(config, seed, examples=10))
        assert same == valid and len(few) == 10 and set(few) < set(whole)
    assert read_data(of_seed(config, 1, examples=10))[0] != few
    training, given = read_data(replace(config, valid=config.data))
    assert len(training) == 80 and len(given) == 16


def test_pairs_of_held_sources_are_left_out_and_told(config, tmp_path, said):
    data = tmp_path / "twice.tsv"
    data.write_text("".join(f"摘要{n}\t今天天气很好{n % 20}\n" for n in range(40)), "utf-8")
    training, valid = read_data(replace(config, data=str(data), valid_examples=5))
    sources = {source for source, _ in valid}
    left = 40 - len(training) - len(valid)
    assert left and not sources & {source for source, _ in training}
    assert f"{data}: {left} pairs are left out, whose sources are among those to choose by" in "".join(said)


def test_columns_that_changed_places_are_told(config, tmp_path, said):
    read_data(config)
    assert said == []
    path = tmp_path / "swapped.tsv"
    pairs = (line.split("\t") for line in Path(config.data).read_text("utf-8").splitlines())
    path.write_text("".join(f"{source}\t{reference}\n" for reference, source in pairs), "utf-8")
    read_data(replace(config, data=str(path)))
    (told,) = said
    assert "swapped.tsv: its references are longer than its sources, 6 characters and 2 on average" in told
    assert told.startswith("warning: ") and "a .tsv is reference TAB source, and names are" in told


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("甲\t乙丙\n丁\n", {}, "line 2: a pair needs a source and a reference"),
        ("", {}, "no pair in it"),
        ("甲\t乙丙\n", {}, r"1 pair\(s\) of 1 source\(s\) are too few"),
        ("甲\t乙丙\n" * 24, {}, r"24 pair\(s\) of 1 source\(s\) are too few to .* others: .*, or give --valid"),
        ("甲\t乙丙\n甲\t丁\n", {"examples": 5}, "1 pairs to train on, not the 5"),
    ],
)
def test_bad_pairs_are_one_line(config, tmp_path, content, changes, message):
    path = tmp_path / "bad.tsv"
    path.write_text(content, "utf-8")
    with pytest.raises(DataError, match=f"bad.tsv.*{message}"):
        finetune(replace(config, data=str(path), folder=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "source,title\n甲,乙\n", "a.csv: no column 'reference'; give --reference-field one of: title$"),
        (
            "a.jsonl",
            '{"source": "甲", "title": "乙"}',
            "line 1: no field 'reference'; give --reference-field one of: title$",
        ),
        ("b.jsonl", '{"source": "甲"}', "line 1: no field 'reference'; mend or remove it$"),
    ],
)
def test_a_field_that_is_missing_is_named_with_those_that_are_there(config, tmp_path, name, content, message):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        read_data(replace(config, data=str(tmp_path / name)))


@pytest.mark.parametrize("name", ["pairs.txt", "pairs.xlsx", "pairs.tsv.zip", "-"])
def test_a_file_of_another_kind_is_one_line(config, tmp_path, name):
    (tmp_path / name).write_text("甲\t乙丙\n丁\t戊\n", "utf-8")
    path = name if name == "-" else str(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: unknown kind of file; pairs come as .tsv or .jsonl"):
        finetune(replace(config, data=path, folder=str(tmp_path / "run")))


def test_what_another_run_began_with_is_refused(finished, config, tmp_path):
    folder, best = finished
    kept = {path: path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    lines = open(config.data, encoding="utf-8").read().splitlines(keepends=True)
    fewer, others = tmp_path / "fewer.tsv", tmp_path / "valid.tsv"
    fewer.write_text("".join(lines[:-1]), "utf-8")
    others.write_text("".join(lines[:16]), "utf-8")
    write_folder(tmp_path / "model", jax.device_get(random_model(CONFIG, seed=9)), CONFIG, TOKENIZER)
    words = PegasusTokenizer(SPECIALS + CHARACTERS[::-1])
    write_folder(tmp_path / "words", jax.device_get(random_model(CONFIG)), CONFIG, words)
    for changes, message in [
        ({"recipe": replace(config.recipe, seed=1)}, "its run had "),
        ({"data": str(fewer)}, "its run had pairs to "),
        ({"valid": str(others), "data": config.data}, "its run had pairs to "),
        ({"model": str(tmp_path / "model")}, "its run had model "),
        ({"model": str(tmp_path / "words")}, "the run there has another tokenizer"),
    ]:
        with pytest.raises(ValueError, match=message):
            finetune(replace(config, folder=str(folder), **changes))
    assert kept == {path: path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    assert json.loads((folder / "best.json").read_text()) == best.best


def test_references_that_are_nearly_all_cut_are_warned_of(config, tmp_path, said, monkeypatch):
    """As of a file whose columns have changed places."""
    monkeypatch.setattr("pegasus_zh.tuning.train", lambda *_: Tuned({}, finished=False))
    (tmp_path / "cut.tsv").write_text("".join(f"{'一丁' * 9}\t{'丁一' * 10}{'一' * n}\n" for n in range(20)), "utf-8")
    finetune(replace(config, data=str(tmp_path / "cut.tsv"), folder=str(tmp_path / "run")))
    assert (
        "warning: most references are cut, so that what is learned has no end: give a larger --max-target" in said[-1]
    )


def test_what_tokenizing_loses_is_told(config, tmp_path, said, monkeypatch):
    monkeypatch.setattr("pegasus_zh.tuning.train", lambda *_: Tuned({}, finished=False))
    lines = [f"臺灣{CHARACTERS[n % 9] * (9 if n % 2 else 1)}\t{'一丁臺' * (n % 7 + 1)}\n" for n in range(20)]
    (tmp_path / "odd.tsv").write_text("".join(lines), "utf-8")
    config = replace(config, data=str(tmp_path / "odd.tsv"), folder=str(tmp_path / "run"))
    finetune(config)
    pairs = sum(read_data(config), [])
    cut = (sum(len(source) > 14 for source, _ in pairs), sum(len(reference) > 6 for _, reference in pairs))
    place = next(n for n, line in enumerate(said) if line.startswith("pairs: "))
    assert all(cut) and f"ids unknown; {cut[0]} sources and {cut[1]} targets cut" in said[place]
    assert said[place + 1].startswith("warning: ") and "most often 臺 (" in said[place + 1]


def test_a_best_model_that_is_gone_is_said(finished, config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "best").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="the best model is gone"):
        finetune(replace(config, folder=str(folder)))


def test_what_a_lost_run_left_does_not_count(finished, config, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "best.json").write_text(json.dumps({"step": 4, "bleu": 100.0}))
    assert finetune(replace(config, folder=str(folder))) == finished[1]


def test_a_kill_between_the_best_model_and_its_checkpoint(finished, config, tmp_path, monkeypatch):
    config, save, calls = replace(config, folder=str(tmp_path / "run")), Checkpoints.save, []

    def fail(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise Diverged(1, "the power went", "")
        return save(self, *args)

    monkeypatch.setattr(Checkpoints, "save", fail)
    with pytest.raises(Diverged):
        finetune(config)
    monkeypatch.undo()
    assert finetune(config) == finished[1] and rows(tmp_path / "run") == rows(finished[0])
