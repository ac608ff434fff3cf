"""The pretraining of an encoder and the experiment on lengths, in miniature, on rows of made-up ids."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from rope.encoder.load import load_encoder
from rope.encoder.mlm import Vocabulary
from rope.encoder.pretrain import EncoderConfig, Rows, pretrain_encoder, recipe_of
from rope.experiments import lengths as lengths_module
from rope.experiments.lengths import LengthsConfig, cut_windows, lengths
from rope.experiments.lengths_by_position import gather_bins, merged, perplexities, times
from rope.experiments.lengths_report import gather
from tests.listening import listening
from tests.rope.encoder.random_encoder import one_layer_preset
from training.experiment.statistics import estimate
from training.files.errors import DataError

pytestmark = pytest.mark.usefixtures("one_device")  # cut over a mesh are the trainings' own tests

VOCABULARY, CLS, SEP = Vocabulary(40, 3, 10), 1, 2


def made_rows(length: int) -> Rows:
    """Ids that count upwards from a random start, so that a neighbour says what is hidden."""

    def rows(seed: list[int], count: int) -> dict[str, np.ndarray]:
        starts = np.random.default_rng(seed).integers(0, 30, (count, 1))
        ids = 10 + (starts + np.arange(length)) % 30
        ids[:, 0], ids[:, -1] = CLS, SEP
        return {"ids": ids.astype(np.int32), "segments": np.ones((count, length), np.int32)}

    def train(batch_size, seed, start_step, share):
        step = start_step
        while True:
            yield rows([seed, step], batch_size)
            step += 1

    def heldout(batch_size, share):
        yield from (rows([99, n], batch_size) for n in range(6))

    return Rows(
        length=length,
        vocabulary=VOCABULARY,
        fingerprint=f"made-{length}",
        tokenizer="none",
        train=train,
        heldout=heldout,
    )


def config(folder, **changed) -> LengthsConfig:
    basis = LengthsConfig(
        folder=str(folder),
        lengths=(16, 32),
        preset="tiny",
        positions=("rotary", "learned"),
        extensions=("yarn", "longrope"),
    )
    return replace(basis, seeds=1, windows=5, search_windows=2, steps=3, batch_size=8, **changed)


@pytest.fixture(scope="module", autouse=True)
def one_layer():
    with one_layer_preset():
        yield


@pytest.fixture(scope="module")
def finished(one_layer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lengths")
    with listening() as said:
        lengths(config(folder), made_rows)
    return folder, said


def test_windows_mask_the_same_tokens_at_every_length(tmp_path):
    windows = cut_windows(made_rows(32), config(tmp_path))
    assert windows.labels.shape == (5, 28) and windows.frame == (CLS, SEP)
    pieces = windows.masked.reshape(5, 2, 14)
    assert (pieces.sum(2) == 3).all()  # 15 % of 14, rounded up
    np.testing.assert_array_equal(windows.inputs[~windows.masked], windows.labels[~windows.masked])
    assert (windows.labels >= VOCABULARY.specials).all()


def test_the_report_is_of_the_cells(finished):
    folder, (_, told) = finished  # and nothing of the trainings
    cells = [json.loads(path.read_bytes()) for path in sorted((folder / "cells").iterdir())]
    assert [(c["encoding"], c["seed"]) for c in cells] == [(e, s) for e in ("learned", "rotary") for s in (0,)]
    assert {*cells[0]["scores"]} == {"learned, hierarchical"} and {*cells[1]["scores"]} == {
        "rotary",
        "rotary, yarn",
        "rotary, longrope",
    }
    # Of the trained length an extension by 1 changes nothing.
    for cell in cells[1:]:
        plain, yarn = (cell["scores"][name]["16"]["cross_entropy"] for name in ("rotary", "rotary, yarn"))
        np.testing.assert_allclose(plain, yarn, rtol=1e-5)
    found = estimate(gather(cells, "cross_entropy")["rotary, yarn", 32])
    assert f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]" in (folder / "lengths.md").read_text()
    assert (folder / "lengths.md").read_text() + f"\n{folder / 'report.html'}: the same with pictures" == told
    rows = json.loads((folder / "lengths.json").read_bytes())["rows"]
    assert len(rows) == 2 * 4 * 2 and (folder / "lengths.png").read_bytes().startswith(b"\x89PNG")
    entropies = gather(cells, "cross_entropy")
    best, *others = sorted(("rotary", "rotary, yarn", "rotary, longrope"), key=lambda e: entropies[e, 32].mean())
    for name in others:
        behind = [estimate(entropies[name, n] - entropies[best, n]).text(2, "+") for n in (16, 32)]
        assert f"| {name} | {behind[0]} | {behind[1]} |" in (folder / "lengths.md").read_text()
    tables = 4 + ("rotary, yarn" in others)
    assert (folder / "report.html").read_text("utf-8").count('class="left">rotary, yarn</td>') == tables
    assert len((folder / "lengths.csv").read_text().splitlines()) == 1 + len(rows)


def test_perplexity_by_position_is_of_the_same_tokens(finished):
    folder, _ = finished
    learned, rotary = (json.loads(path.read_bytes()) for path in sorted((folder / "cells").iterdir()))
    about, scores = rotary["positions"], rotary["scores"]
    assert about["edges"] == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32] and np.sum(about["counts"]) == 30
    for name, by_length in about["entropy"].items():
        assert {*by_length} == {"16", "32"}
        for length, entropy in by_length.items():
            means = np.sum(entropy, 1) / np.sum(about["counts"], 1)
            np.testing.assert_allclose(means, scores[name][length]["cross_entropy"], rtol=1e-3)
    # Twice the octaves' sums of differences are what the table by length has.
    octaves = merged(gather_bins([rotary]), [1, 16, 32])
    found = times(octaves, "rotary, yarn")
    differences = np.array(about["entropy"]["rotary, yarn"]["32"]) - np.array(about["entropy"]["rotary"]["16"])
    counts = np.array(about["counts"])
    for bound, one in zip((slice(None, 7), slice(7, None)), found, strict=True):
        assert np.log(one.mean) == pytest.approx(differences[:, bound].sum() / counts[:, bound].sum())
        assert one.low <= one.mean <= one.high
    assert f"| rotary, yarn | {found[0].text(3)} | {found[1].text(3)} |" in (folder / "lengths.md").read_text()
    lines = (folder / "positions.csv").read_text().splitlines()
    assert lines[0].startswith("encoding,first,last,perplexity,low,high,times") and len(lines) == 1 + 9 * 4
    whole = merged(gather_bins([learned]), [1, 32])
    mean = np.sum(learned["positions"]["entropy"]["learned, hierarchical"]["32"]) / 30
    assert perplexities(whole, "learned, hierarchical")[0].mean == pytest.approx(np.exp(mean))
    assert (folder / "positions.png").read_bytes().startswith(b"\x89PNG")


def test_factors_are_searched_for_once_a_length(finished):
    folder, _ = finished
    tried = json.loads((folder / "factors" / "0" / "32.json").read_bytes())["tried"]
    assert len({*(len(x["factors"]) for x in tried)}) == 1 and min(x["loss"] for x in tried) < tried[0]["loss"]
    assert [path.name for path in (folder / "factors" / "0").iterdir()] == ["32.json"]


def test_the_same_command_does_nothing_again_and_more_seeds_go_on(finished, monkeypatch, said):
    folder, once = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    monkeypatch.setattr("rope.experiments.lengths.pretrain_on", lambda *_, **__: pytest.fail("trained again"))
    lengths(config(folder), made_rows)
    assert said[-1] == once[-1]
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == before


def test_a_training_without_numbers_ends_no_other(finished, tmp_path, monkeypatch):
    once = lengths_module.pretrain_on

    def diverging(recipe, *arguments, **options):
        if recipe.positions == "rotary":
            raise ValueError("the loss is not a number")
        return once(recipe, *arguments, **options)

    monkeypatch.setattr(lengths_module, "pretrain_on", diverging)
    with pytest.raises(ValueError, match="^rotary-0: the loss is not a number; the rest is done"):
        lengths(config(tmp_path), made_rows)
    tables = (tmp_path / "lengths.md").read_text()
    assert "| learned, hierarchical |" in tables and "- missing: rotary-0: the loss is not a number" in tables
    assert json.loads((tmp_path / "lengths.json").read_text())["missing"] == ["rotary-0: the loss is not a number"]


def test_other_settings_are_refused(finished):
    with pytest.raises(ValueError, match="its cells were made with windows 5, not 4: give that, or another --folder"):
        lengths(replace(config(finished[0]), windows=4), made_rows)


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"lengths": (16, 24)}, "multiples of the first"),
        ({"lengths": (16, 32, 48)}, "the last must be a multiple of all"),
        ({"lengths": (4, 8)}, "which is 8 or more"),
        ({"lengths": (8, 96)}, "learned positions of 8 can be continued to 64"),
        ({"positions": ()}, "give one or more, each once"),
        ({"seeds": 0}, "seeds is 0"),
    ],
)
def test_lengths_that_cannot_be(changed, expected):
    with pytest.raises(ValueError, match=expected):
        replace(LengthsConfig(), **changed)


def test_without_long_text(tmp_path):
    def short(length):
        rows = made_rows(length)

        def torn(**which):
            for batch in rows.heldout(**which):
                yield {**batch, "segments": batch["segments"] * (np.arange(length) > 0)}

        return replace(rows, heldout=torn)

    with pytest.raises(ValueError, match="no held-out document has 32 tokens"):
        lengths(config(tmp_path), short)
    with pytest.raises(ValueError, match="no document is held out"):
        cut_windows(replace(made_rows(32), heldout=None), config(tmp_path))


@pytest.mark.slow  # the engine resumes as in tests/training
def test_pretraining_resumes_and_refuses_other_positions(tmp_path, said):
    recipe = recipe_of("tiny")
    recipe = replace(recipe, length=16, loop=replace(recipe.loop, steps=2, batch_size=8, save_every=1, eval_batches=1))
    run = EncoderConfig(recipe=recipe, folder=str(tmp_path))
    assert int(pretrain_encoder(run, lambda: made_rows(16))[0].state.step) == 2
    more = replace(run, recipe=replace(recipe, loop=replace(recipe.loop, steps=3)))
    assert int(pretrain_encoder(more, lambda: made_rows(16))[0].state.step) == 3
    assert any("resumed at step 2 of 3" in line for line in said)
    model, config = load_encoder(tmp_path)[:2]
    trained = pretrain_encoder(more, lambda: made_rows(16))[0].state.model
    assert config == more.recipe.model(VOCABULARY.size)
    jax.tree.map(np.testing.assert_array_equal, model, jax.tree.map(np.asarray, trained))
    with pytest.raises(DataError, match="has the steps"):
        load_encoder(tmp_path, step=1)
    with pytest.raises(ValueError, match="its run had theta 10000\\^-t, not 1000\\^-t"):
        pretrain_encoder(replace(more, recipe=replace(more.recipe, theta="1000^-t")), lambda: made_rows(16))
