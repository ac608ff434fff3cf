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
from pegasus_zh.experiments.few_shot import FewShotConfig, examples_of, few_shot, settings_of
from pegasus_zh.experiments.few_shot_curves import curve_sections, points_of
from pegasus_zh.experiments.few_shot_report import report
from pegasus_zh.experiments.few_shot_tasks import FewShotTask, read_task, share_seen, without_model
from pegasus_zh.t5 import mt5
from pegasus_zh.text.documents import CORPUS, read_documents
from tests.listening import listening
from training.experiment.cells import Made
from training.experiment.statistics import estimate
from training.files.errors import DataError
from training.mesh import make_mesh

BASELINES = {"copied": 0.3, "sentence": 0.4, "lcs": 0.2, "rouge-l": 0.2, "best": 0.5, "part": 0.7}
DOCUMENTS = (str(CORPUS / "heldout.jsonl"),)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Fewer positions than a laptop's experiment has, a smaller model, and one device, for which less is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mt5.PRESETS, "tiny", mt5.MT5Config(width=16, feed_forward=16, heads=2, head_size=8, layers=1))
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
        documents=(str(CORPUS / "train.jsonl"),),
        tasks=(str(path),),
        folder=str(folder / "run"),
        objectives=("lcs+0.5", "none"),
        examples=(1000, 0),
        seeds=1,
        pretrain_steps=2,
        max_source=24,
        max_target=8,
        dropout=0.0,
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
    wanted = {f"titles-8-{objective}-0" for objective in ("lcs+0.5", "none")}
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
        assert float(row["source_gain"]) == pytest.approx(cell["source_gain"], abs=1e-5) != 0
        assert len(cell["part_from_source"]) == 8
    text = (folder / "few_shot.md").read_text("utf-8")
    assert text.count("| titles | 8 |") == 4 and "| lcs+0.5 - none |" in text
    assert (folder / "few_shot.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "report.html").read_text("utf-8").count('class="left">titles</td>') == 5
    told = json.loads((folder / "few_shot.json").read_text("utf-8"))
    assert told["curves"].keys() == {"lcs+0.5-0"}
    for curves in told["curves"].values():
        assert {name: [step for step, _ in points] for name, points in curves.items()} == dict.fromkeys(
            ("pseudo-summary", "titles", "copy"), [0, 1, 2]
        )
    assert (folder / "source_gain_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_makes_what_is_missing_alone(finished, config):
    folder, before = finished[0], cells(finished[0])
    tables = (folder / "few_shot.md").read_bytes()
    few_shot(config)
    assert cells(folder) == before and (folder / "few_shot.md").read_bytes() == tables
    gone = folder / "cells" / "titles-8-lcs+0.5-0.json"
    content = json.loads(gone.read_bytes())
    gone.unlink()
    few_shot(config)
    after = cells(folder)
    assert {name for name in before if after[name] != before[name]} == {gone.stem}
    assert json.loads(gone.read_bytes()) == content


def test_parts_do_not_meet_and_no_seed_or_order_changes_them(config, tmp_path):
    task = read_task(config.tasks[0], 8, 4)
    parts = [{source for source, _ in part} for part in (task.test, task.valid, task.training)]
    assert [len(part) for part in parts] == [8, 4, 8] and len(set.union(*parts)) == 20
    lines = Path(config.tasks[0]).read_text("utf-8").splitlines(keepends=True)
    other = tmp_path / "titles.tsv"
    other.write_text("".join(reversed(lines + lines[:3])), "utf-8")  # three come twice
    assert read_task(str(other), 8, 4) == task
    text = f"Task(name='titles', test={task.test!r}, valid={task.valid!r}, training={task.training!r})"
    assert settings_of(config, [task])["task titles"] == hashlib.sha256(text.encode()).hexdigest()  # as it always was


def test_sources_in_the_documents_are_counted(config, tmp_path):
    task = read_task(config.tasks[0], 8, 4)
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
        use = {"source_gain": 0.25, "part_from_source": [0.5] * 40}
        return about | {"scores": scores, **use, "written": ["一", "二"] * 20}

    values = random.uniform(0.2, 0.8, (3, 40))
    made = {f"lcs-{seed}": cell("lcs", seed, values[seed] + 0.01) for seed in range(3)}
    made |= {f"random-{seed}": cell("random", seed, values[seed]) for seed in reversed(range(3))}
    objectives, rest = ("lcs", "random"), ({"t": BASELINES}, {}, ["a note"], {})
    told = report(tmp_path, Made(made, []), objectives, *rest)
    assert "| t | 10 | 0.250 [0.250, 0.250] | 0.250" in told and "| t | 10 | 70.0 | 50.0 [50.0, 50.0] |" in told
    assert "| +1.00 [+1.00, +1.00] |" in told and "mean of 3 seed(s)" in told
    # What is not pretrained is the other side of every difference.
    nothing = {f"none-{seed}": cell("none", seed, values[seed] - 0.02) for seed in range(3)}
    table = report(tmp_path, Made(made | nothing, []), (*objectives, "none"), *rest)
    assert "| lcs - random | lcs - none | random - none |" in table
    assert "| +1.00 [+1.00, +1.00] | +3.00 [+3.00, +3.00] | +2.00 [+2.00, +2.00] |" in table
    # Without one seed of the first the pairs are of the other two; without all there are none, nor a figure.
    del made["lcs-0"]
    told = report(tmp_path, Made(made, ["lcs-0: no"]), objectives, *rest)
    assert "| +1.00 [+1.00, +1.00] |" in told and "mean of 2 to 3 seeds" in told
    assert told.count("- missing: lcs-0: no") == 1 and "missing: lcs-0" in (tmp_path / "report.html").read_text()
    del made["lcs-1"], made["lcs-2"]
    told = report(tmp_path, Made(made, ["lcs-0: no"]), objectives, *rest)
    assert "| t | 10 | 30.00 |  | " in told and "| t | 10 |  |" in told and "| t | 10 | 70.0 |  |" in told
    assert {row["distinct"] for row in csv.DictReader((tmp_path / "few_shot.csv").open())} == {"2"}


def test_an_objective_says_what_is_kept():
    assert examples_of("none", 24, 8, 0.8) is None and examples_of("lead", 24, 8, 0.8).kept == 0
    found = examples_of("random+1", 24, 8, 0.8)
    assert (found.selector, found.kept, found.max_target, found.row_source) == ("random", 1, 8, 48)


def test_what_scores_without_a_model():
    """A source whose reference is its first sentence, and one whose reference is its second, which is said again."""
    sentences = [
        "剑号巨阙珠称夜光果珍李柰菜重芥姜。",
        "云腾致雨露结为霜金生丽水玉出昆冈。",
        "海咸河淡鳞潜羽翔龙师火帝鸟官人皇。",
    ]
    first = (
        "天地玄黄宇宙洪荒日月盈昃辰宿列张。寒来暑往秋收冬藏闰余成岁律吕调阳。",
        "天地玄黄宇宙洪荒日月盈昃辰宿列张。",
    )
    again = "".join([*sentences, sentences[1]]), sentences[1]
    found = [without_model(FewShotTask("titles", [pair], [], [("天", "地" * 8)])) for pair in (first, again)]
    assert [x["best"] for x in found] == pytest.approx([1, 1]) and [x["part"] for x in found] == [1, 1]
    assert [x["lcs"] for x in found] == pytest.approx([1, 1]) == [x["rouge-l"] for x in found]
    assert found[0]["sentence"] == pytest.approx(1) and found[1]["sentence"] < 0.1  # they share a full stop
    assert found[0]["copied"] == pytest.approx(2 * 8 / (17 + 8))


def test_curves_are_of_the_last_evaluation():
    """After a kill an update may be evaluated twice."""
    rows = [{"step": 0, "eval_gain_copy": 0.0}, {"step": 5, "loss": 1.0}, {"step": 5, "eval_gain_copy": 0.1}]
    points = points_of([*rows, {"step": 5, "eval_gain_copy": 0.3, "eval_loss": 2.0}])
    assert points == {"copy": [(0, 0.0), (5, 0.3)]}
    (section,) = curve_sections({("lcs", 0): points, ("lcs", 1): {"copy": [(0, 0.0), (5, 0.5)]}, ("lead", 0): {}})
    assert [row[0] for row in section.table.rows] == ["lcs"] and section.table.rows[0][1].startswith("0.400 [")
    assert curve_sections({("lcs", 0): {}}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 0.5}, "its cells were made with dropout 0.0, not 0.5: give that, or another --folder"),
        ({"updates": 3}, "its cells were made with updates 1, not 3: give that, or another --folder"),
        ({"test_examples": 16}, "titles.tsv: 20 pairs of different sources, and 20 of them"),
        ({"objectives": ("lcs", "best")}, "objectives has 'best': it must be one of lcs, .*span-corruption, none"),
        ({"objectives": ("lcs", "lcs+2")}, r"objectives has 'lcs\+2': what follows \+ is the share .* as in lcs\+0.2"),
        ({"objectives": ("span-corruption+0.2",)}, r"objectives has 'span-corruption\+0.2': what follows \+"),
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
