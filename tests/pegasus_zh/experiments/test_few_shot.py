"""The few-shot experiment: the right cells, each made once; parts that no seed changes;
a paired bootstrap of seeds and examples."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from pegasus_zh import finetune, pretrain
from pegasus_zh.experiments import few_shot as few_shot_module
from pegasus_zh.experiments.few_shot import FewShotConfig, few_shot, read_task, settings_of, share_seen
from pegasus_zh.experiments.few_shot_report import report
from pegasus_zh.t5 import mt5
from pegasus_zh.text.documents import CORPUS, read_documents
from tests.listening import listening
from training.experiment.cells import Made
from training.experiment.statistics import estimate
from training.files.errors import DataError
from training.mesh import make_mesh

DOCUMENTS = (str(CORPUS / "heldout.jsonl"),)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Fewer positions than a laptop's experiment has, a smaller model, and one device, for which less is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mt5.PRESETS, "tiny", mt5.MT5Config(width=16, feed_forward=16, heads=2, head_size=8, layers=1))
        patch.setattr(few_shot_module, "PAIRS", {"max_source": 24, "max_target": 8, "row_source": 32, "row_target": 16})
        patch.setattr(few_shot_module, "LENGTHS", {"max_source": 24, "max_target": 8})
        for module in (few_shot_module, finetune, pretrain):
            patch.setattr(module, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few-shot")
    texts = [text for text in read_documents([str(CORPUS / "train.jsonl")])][:10] + [*read_documents(DOCUMENTS)][:10]
    path = folder / "titles.tsv"
    path.write_text("".join(f"{x[:6]}\t{''.join(x.split())[:60]}\n" for x in texts), "utf-8")
    return FewShotConfig(
        documents=DOCUMENTS,
        tasks=(str(path),),
        folder=str(folder / "run"),
        objectives=("lcs", "none"),
        examples=(1000, 0),
        seeds=2,
        pretrain_steps=1,
        updates=1,
        test_examples=8,
        valid_examples=4,
    )


@pytest.fixture(scope="module")
def finished(config):
    with listening() as said:
        few_shot(config)
    return Path(config.folder), said


def cells(folder):
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}


def test_every_cell_is_there_and_in_the_tables(finished):
    folder, said = finished
    wanted = {f"titles-8-{objective}-{seed}" for objective in ("lcs", "none") for seed in (0, 1)}
    assert cells(folder).keys() == wanted and not any((folder / "tuning").iterdir())
    assert "titles: no 1,000 examples to train on; left out" in said
    assert "compiling the training step" not in said
    with open(folder / "few_shot.csv", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert {f"{r['task']}-{r['examples']}-{r['objective']}-{r['seed']}" for r in rows} == wanted
    for row in rows:
        cell = json.loads((folder / "cells" / f"{'-'.join([*row.values()][:4])}.json").read_text("utf-8"))
        assert len(cell["scores"]["rouge-l"]) == len(cell["written"]) == 8
        assert float(row["rouge-l"]) == pytest.approx(np.mean(cell["scores"]["rouge-l"]), abs=1e-5)
    text = (folder / "few_shot.md").read_text("utf-8")
    assert text.count("| titles | 8 |") == 2 and "| lcs - none |" in text
    assert (folder / "few_shot.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "report.html").read_text("utf-8").count('class="left">titles</td>') == 2


def test_a_second_call_makes_what_is_missing_alone(finished, config):
    folder, before = finished[0], cells(finished[0])
    tables = (folder / "few_shot.md").read_bytes()
    few_shot(config)
    assert cells(folder) == before and (folder / "few_shot.md").read_bytes() == tables
    gone = folder / "cells" / "titles-8-lcs-1.json"
    content = json.loads(gone.read_bytes())
    gone.unlink()
    few_shot(config)
    after = cells(folder)
    assert {name for name in before if after[name] != before[name]} == {gone.stem}
    assert json.loads(gone.read_bytes()) == content


def test_parts_do_not_meet_and_no_seed_or_order_changes_them(config, tmp_path):
    task = read_task(config.tasks[0], config)
    parts = [{source for source, _ in part} for part in (task.test, task.valid, task.training)]
    assert [len(part) for part in parts] == [8, 4, 8] and len(set.union(*parts)) == 20
    lines = Path(config.tasks[0]).read_text("utf-8").splitlines(keepends=True)
    other = tmp_path / "titles.tsv"
    other.write_text("".join(reversed(lines + lines[:3])), "utf-8")  # three come twice
    assert read_task(str(other), replace(config, seeds=5)) == task
    text = f"Task(name='titles', test={task.test!r}, valid={task.valid!r}, training={task.training!r})"
    assert settings_of(config, [task])["task titles"] == hashlib.sha256(text.encode()).hexdigest()  # as it always was


def test_sources_in_the_documents_are_counted(config, tmp_path):
    task = read_task(config.tasks[0], config)
    heldout = ["".join(text.split()) for text in read_documents(DOCUMENTS)]
    inside = [any(source[:40] in text for text in heldout) for source, _ in task.test]
    assert 0 < sum(inside) < 8
    assert share_seen(DOCUMENTS, [task], tmp_path / "seen.json") == {"titles": sum(inside) / 8}


def test_the_interval_covers_seeds_and_examples():
    random = np.random.default_rng(0)
    constant = estimate(np.full((3, 50), 0.25))
    assert constant == pytest.approx((0.25, 0.25, 0.25))
    # One seed: the examples' standard error. Seeds that differ alone: as wide as the seeds.
    examples = random.normal(0, 1, (1, 400))
    mean, low, high = estimate(examples)
    assert mean == pytest.approx(examples.mean()) and (high - low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    seeds = np.repeat([[0.0], [3.0]], 400, axis=1)
    assert estimate(seeds) == pytest.approx((1.5, 0, 3))
    # The examples are the same for all seeds, so more seeds do not narrow what the examples leave open.
    same = estimate(np.repeat(examples, 10, axis=0))
    assert same.high - same.low == pytest.approx(high - low, rel=0.1)


def test_differences_are_paired(tmp_path):
    """Two objectives, one always 0.01 better: examples and seeds vary far more, and their difference not at all."""
    random = np.random.default_rng(1)

    def cell(objective, seed, values):
        about = {"task": "t", "examples": 10, "objective": objective, "seed": seed, "best": {"step": 1}}
        scores = {name: values.tolist() for name in ("rouge-1", "rouge-2", "rouge-l", "bleu")}
        return about | {"scores": scores, "written": ["一", "二"] * 20}

    values = random.uniform(0.2, 0.8, (3, 40))
    made = {f"lcs-{seed}": cell("lcs", seed, values[seed] + 0.01) for seed in range(3)}
    made |= {f"random-{seed}": cell("random", seed, values[seed]) for seed in reversed(range(3))}
    objectives = ("lcs", "random")
    told = report(tmp_path, Made(made, []), objectives, {"t": 0.3}, ["a note"], {})
    assert "| +1.00 [+1.00, +1.00] |" in told and "mean of 3 seed(s)" in told
    # Without one seed of the first the pairs are of the other two; without all there are none, nor a figure.
    del made["lcs-0"]
    told = report(tmp_path, Made(made, ["lcs-0: no"]), objectives, {"t": 0.3}, ["a note"], {})
    assert "| +1.00 [+1.00, +1.00] |" in told and "mean of 2 to 3 seeds" in told
    assert told.count("- missing: lcs-0: no") == 1 and "missing: lcs-0" in (tmp_path / "report.html").read_text()
    del made["lcs-1"], made["lcs-2"]
    told = report(tmp_path, Made(made, ["lcs-0: no"]), objectives, {"t": 0.3}, ["a note"], {})
    assert "| t | 10 | 30.00 |  | " in told and "| t | 10 |  |" in told
    assert {row["distinct"] for row in csv.DictReader((tmp_path / "few_shot.csv").open())} == {"2"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 3}, "its cells were made with updates 1, not 3: give that, or another --folder"),
        ({"test_examples": 16}, "titles.tsv: 20 pairs of different sources, and 20 of them"),
        ({"objectives": ("lcs", "best")}, "objectives has 'best': it must be one of lcs, .*span-corruption, none"),
        ({"objectives": ("lcs", "text")}, "objectives has 'text'"),
        ({"tasks": ("a/titles.tsv",)}, "a/titles.tsv: No such file"),
    ],
)
def test_what_cannot_be_is_one_line(finished, config, changes, message):
    before = cells(finished[0])
    with pytest.raises(DataError, match=message) as found:
        few_shot(replace(config, **changes))
    assert "\n" not in str(found.value) and cells(finished[0]) == before


def test_names_that_would_meet_are_refused(config, tmp_path):
    other = tmp_path / "titles.jsonl"
    lines = Path(config.tasks[0]).read_text("utf-8").splitlines()
    pairs = ({"reference": reference, "source": source} for reference, source in (line.split("\t") for line in lines))
    other.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    with pytest.raises(DataError, match="titles.tsv.*titles.jsonl.*rename one"):
        few_shot(replace(config, tasks=(*config.tasks, str(other))))
    with pytest.raises(ValueError, match="examples is"):
        replace(config, examples=(10, 10))


def test_sets_of_another_format_are_named_together(config, tmp_path):
    for name in ("lcs", "lead"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "settings.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"lcs, \S*lead hold sets of format 1, .*: delete those folders"):
        few_shot(replace(config, objectives=("lcs", "lead", "none"), folder=str(tmp_path)))
