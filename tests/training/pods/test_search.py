"""The search over arrangements: what is tried in which order, what is skipped, and what nothing beats."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.pods.programs import V5E, slice_
from training.pods.memory import GIB
from training.pods.search import Candidate, candidates, cheap, larger, loaded_sources, pareto, search

PLAN = """
import json, sys
answer = sys.argv[sys.argv.index("--json") + 1]
answered = json.loads(sys.argv[1])
open(answer + ".seen", "a").write("x")
if answered is None:
    sys.exit("error: a mesh that cannot be")
json.dump(answered, open(answer, "w"))
"""


def one(rows: int = 8, remat: str | None = "full", mesh: tuple[int, ...] = (4, 1, 1)) -> Candidate:
    return Candidate(mesh=mesh, rows=rows, remat=remat, optimizer="adamw")


def told(seconds: float, gib: float, rows: int = 8) -> dict:
    return {"seconds": seconds, "rows": rows, "memory": {"all": gib * GIB}}


def test_all_meshes_and_each_slice_a_replica():
    found = candidates(4, 1, [8, 16], ["full", "none"], ["adamw"])
    meshes = {x.mesh for x in found}
    assert meshes == {(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2), (1, 1, 4)} and len(found) == 6 * 2 * 2
    assert {x.mesh for x in candidates(8, 2, [8], [None], [None])} == {
        (2, 4, 1, 1),
        (2, 2, 2, 1),
        (2, 2, 1, 2),
        (2, 1, 4, 1),
        (2, 1, 2, 2),
        (2, 1, 1, 4),
    }
    assert one(mesh=(2, 2, 1)).batch == one(mesh=(2, 2, 1, 4)).batch == 32


def test_what_needs_as_much_memory_as_another():
    assert larger(one(16), one(8)) and larger(one(8, "none"), one(8, "dots")) and not larger(one(8), one(16))
    assert not larger(one(16), one(8, mesh=(1, 4, 1))) and not larger(one(16, "full"), one(8, "none"))


def test_more_rows_and_what_recomputes_no_product_come_first():
    slice4, kinds = slice_((2, 2, 1)), ["full", "none", "dots"]
    order = sorted(candidates(4, 1, [8, 32], kinds, ["adamw"]), key=lambda x: cheap(x, 1e12, 10**8, slice4))
    assert (order[0].rows, order[0].remat) == (32, "dots") and (order[-1].rows, order[-1].remat) == (8, "full")
    alone, two = (cheap(x, 0.0, 10**8, slice4) * x.batch for x in (one(mesh=(4, 1, 1)), one(mesh=(2, 4, 1, 1))))
    assert two - alone == pytest.approx(4e8 / 4 / V5E.network)  # gradients in float32, of each chip its part


def test_nothing_beats_what_is_shown():
    found = [(one(n), told(*of, n)) for n, of in {8: (0.4, 9), 16: (0.5, 8), 32: (1.2, 12), 4: (0.3, 5)}.items()]
    assert [x.rows for x, _ in pareto(found)] == [16, 4] and pareto([]) == []


def test_answers_are_kept_and_what_is_too_large_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("training.pods.search.AT_ONCE", 1)
    impossible = one(8, mesh=(1, 1, 4))
    answers = {
        one(16): {"refused": {"needed": 20 * GIB, "room": 15 * GIB}},
        one(32): told(0.1, 1),
        one(8): told(0.4, 9),
        impossible: None,
    }
    command = lambda x: [sys.executable, "-c", PLAN, json.dumps(answers[x])]  # noqa: E731
    for _ in range(2):
        found = search([*answers], command, tmp_path, minutes=5)
        assert found.planned == [(one(8), answers[one(8)])] and found.refused == {one(16): 20 * GIB}
        assert found.skipped == [one(32)] and not found.left
        assert found.failed == {impossible: "error: a mesh that cannot be"}
    seen = [len(file.read_text()) for file in tmp_path.glob("search/*.seen")]
    assert sorted(seen) == [1, 1, 2]  # a failure is tried again


def test_answers_are_of_the_sources_that_are_loaded():
    """Those of this project alone, of all its packages."""
    found = {"/".join(file.parts[-3:]) for file in loaded_sources()}
    assert "training/pods/search.py" in found and "training/pods/programs.py" not in found
    assert not [file for file in loaded_sources() if "site-packages" in file.parts]


def test_an_answer_is_of_the_files_that_its_command_names_and_of_the_users_flags(tmp_path, monkeypatch):
    data, model = tmp_path / "data.txt", tmp_path / "model" / "part"
    model.mkdir(parents=True)
    command = lambda _: [sys.executable, "-c", PLAN, json.dumps(told(1, 1)), f"--data={data}", "--model", str(tmp_path)]  # noqa: E731

    def asked() -> int:
        search([one(8)], command, tmp_path / "kept", minutes=5)
        return sum(len(seen.read_text()) for seen in tmp_path.glob("kept/search/*.seen"))

    assert asked() == asked() == 1  # what is kept lies in a folder that is named, and is not of it
    data.write_text("text")
    assert asked() == asked() == 2
    (model / "weights").write_text("1.0")
    assert asked() == asked() == 3
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_some=true")
    assert asked() == asked() == 4


SEARCH = """
import sys
from pathlib import Path
from training.pods.search import Candidate, search
slow = "import os, time; open('slow', 'w').write(str(os.getpid()) + '.'); time.sleep(600)"
one = Candidate(mesh=(1, 1, 1), rows=1, remat=None, optimizer=None)
search([one], lambda _: [sys.executable, "-c", slow], Path("kept"), minutes=5)
"""


def test_a_search_that_is_told_to_stop_leaves_nothing_running(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    program = [sys.executable, "-c", SEARCH]
    searching = subprocess.Popen(program, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (slow := tmp_path / "slow").exists() or not slow.read_text().endswith("."):
        assert time.monotonic() < until and searching.poll() is None
        time.sleep(0.05)
    searching.send_signal(signal.SIGTERM)
    assert searching.communicate(timeout=30)[1].endswith("stopped: the same search goes on from here\n")
    assert searching.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(slow.read_text()[:-1]), 0)


def test_without_time_all_are_left_but_what_is_kept(tmp_path):
    slow = lambda x: [sys.executable, "-c", "import time; time.sleep(600)"]  # noqa: E731
    found = search([one(8), one(16), one(32)], slow, tmp_path, minutes=0.02)
    assert found.left == [one(8), one(16), one(32)] and not found.planned


@pytest.mark.parametrize("fields", [{"rows": 8}, {"rows": 16}])
def test_in_words(fields):
    assert str(one(**fields)) == f"4 x 1 x 1, {fields['rows']} rows a chip, full, adamw"
