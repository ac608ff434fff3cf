"""What scripts.plan takes, and what it shows of a search."""

import json
from dataclasses import dataclass

import jax
import optax
import pytest

from tests.training import toy
from tests.training.pods.test_search import one
from tests.training.pods.test_table import cells, told
from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.pods.memory import GIB
from training.pods.planning import flags, searched, show_rows, show_settings
from training.pods.search import Found


def test_flags_of_plan_among_those_of_the_command():
    options, rest = flags(["--preset", "tiny", "--rows", "4,8", "--topology", "v6e:8x8", "--mesh.fsdp", "2"])
    assert (options.topology, options.rows, options.slices) == ("v6e:8x8", (4, 8), 1)
    assert rest == ["--preset", "tiny", "--mesh.fsdp", "2"]
    for wrong in ("0", "8,", "eight"):
        with pytest.raises(ValueError, match="rows a chip"):
            flags(["--rows", wrong])


@dataclass(frozen=True)
class Computed:
    dtype: str = "float32"
    remat: str = "auto"
    attention: str = "xla"


@dataclass(frozen=True)
class Config:
    folder: str = "runs/toy"
    computation: Computed = Computed()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig(batch_size=8, accumulate=2)


def test_what_is_planned_is_told_first(said):
    program = toy.training(Config().loop, optax.sgd(0.1)).program
    mesh = jax.make_mesh((2, 2, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:4])
    options = flags(["--topology", "v5e:2x2", "--slices", "2"])[0]
    show_settings(Config(), {"remat": "dots on a TPU"}, "toy", options)
    show_rows(program, mesh, Config().loop)
    assert said[0] == "toy on 2 x v5e:2x2, dtype float32, remat auto (dots on a TPU), attention xla, optimizer adamw"
    assert "--dtype bfloat16" in said[1] and "\n" not in said[1]
    assert said[2] == f"  8 rows a step, 2 a chip, in 2 microbatches: ids [4, {toy.LENGTH}]"
    said.clear()
    show_settings(Config(computation=Computed(dtype="bfloat16")), {"remat": ""}, "toy", flags(["--search"])[0])
    assert said == ["toy on v5e:4x4, dtype bfloat16, attention xla"]
    said.clear()
    show_settings(Config().loop, {}, "images", options)
    assert said == ["images on 2 x v5e:2x2"]


def test_what_a_search_found():
    quick, small, beaten = told(1.0), told(2.0), told(3.0)
    small["memory"] = {**small["memory"], "all": GIB}
    found = Found(
        planned=[(one(8, "full"), small), (one(8, "none"), quick), (one(8, "dots"), beaten)],
        refused={one(64, "none"): 20 * GIB},
        skipped=[one(128, "none")],
        failed={one(3): "error: no"},
    )
    lines = searched(found).splitlines()
    assert [cells(line)[-3] for line in lines[2:4]] == ["none", "full"] and lines[4] == ""
    assert lines[5] == "3 planned, 1 refused for want of memory, 1 as large as one of those, 0 left for want of time"
    assert lines[6:] == [
        "refused: 4 x 1 x 1, 64 rows a chip, none, adamw: 20.00 GiB",
        "failed: 4 x 1 x 1, 3 rows a chip, full, adamw: error: no",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--slices 0", "slices is 0: it must be 1 or more"),
        ("--slices -1", "slices is -1: it must be 1 or more"),
        ("--slices abc", "argument --slices: invalid int value: 'abc'"),
        ("--topology", "argument --topology: expected one argument"),
        ("--minutes nan", "minutes is nan: it must be more than 0"),
        ("--minutes inf", "minutes is inf: it must be more than 0"),
        ("--minutes -1", "minutes is -1.0: it must be more than 0"),
        ("--search --json plan.json", "--json and --against are of one plan"),
        ("--search --against plan.json", "--json and --against are of one plan"),
        ("--json folder", "folder: a folder; name a file in it"),
        ("--json file/plan.json", "file/plan.json: cannot be written"),
        ("--json /proc/none/plan.json", "/proc/none/plan.json: cannot be written"),
        ("--kept file", "file/search/plan.json: cannot be written"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_compiled(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError) as refused:
        flags(given.split())
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_another_plan_is_read_before_anything_is_compiled(tmp_path):
    file, whole = tmp_path / "other.json", json.loads(json.dumps(told()))
    file.write_text(json.dumps(whole))
    assert flags(["--against", str(file)])[0].against == whole
    wrong = [{"lines": []}, {"refused": {"needed": 1, "room": 0}}]
    wrong += [whole | change for change in ({"lines": 3}, {"mfu": None}, {"memory": {}}, {"lines": [{"line": "x"}]})]
    for fields in wrong:
        file.write_text(json.dumps(fields))
        with pytest.raises(ValueError, match="other.json: no plan of a step that fits; write one"):
            flags(["--against", str(file)])
