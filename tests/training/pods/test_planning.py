"""What scripts.plan takes, and what it shows of a search."""

import json

import jax
import pytest

from tests.training.pods.test_search import one
from tests.training.pods.test_table import cells, told
from training.loop import LoopConfig
from training.mesh import MeshConfig, make_mesh
from training.pods.memory import GIB
from training.pods.planning import flags, searched, show_plan
from training.pods.search import Found


def test_flags_of_plan_among_those_of_the_command():
    options, rest = flags(["--preset", "tiny", "--rows", "4,8", "--topology", "v6e:8x8", "--mesh.fsdp", "2"])
    assert (options.topology, options.rows, options.slices) == ("v6e:8x8", (4, 8), 1)
    assert rest == ["--preset", "tiny", "--mesh.fsdp", "2"]
    for wrong in ("0", "8,", "eight"):
        with pytest.raises(ValueError, match="rows a chip"):
            flags(["--rows", wrong])


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


def test_a_plan_beside_one_that_did_not_fit(tmp_path):
    (tmp_path / "refused.json").write_text(json.dumps({"refused": {"needed": 1, "room": 0}}))
    options, _ = flags(["--against", str(tmp_path / "refused.json")])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(ValueError, match="refused.json: no plan of a step that fits; write one"):
        show_plan(None, mesh, LoopConfig(), options, "name")
