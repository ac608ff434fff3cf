"""Cells go on with what is missing, a bad one ends no other, and a folder's are all made with the same settings."""

import jax
import pytest

from training.experiment.cells import experiment, keep_settings, run_cells
from training.files.errors import DataError


def test_damaged_files_are_named(tmp_path):
    keep_settings(tmp_path / "settings.json", {"steps": 3})
    with pytest.raises(DataError, match="its cells were made with steps 3, not 4"):
        keep_settings(tmp_path / "settings.json", {"steps": 4})
    (tmp_path / "settings.json").write_text("[1")
    with pytest.raises(DataError, match=r"settings\.json: not JSON .*; delete the folder, or give another"):
        keep_settings(tmp_path / "settings.json", {"steps": 3})
    (tmp_path / "settings.json").unlink()
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text("{}")
    with pytest.raises(DataError, match=r"settings\.json: lost, so nobody knows what the cells beside it"):
        keep_settings(tmp_path / "settings.json", {"steps": 3})


def test_a_damaged_cell_is_told_of_and_made_again(tmp_path, said):
    cells = dict(zip("abcd", "ABCD", strict=True))
    run_cells(tmp_path, cells, lambda cell: {"cell": cell})
    (tmp_path / "cells" / "b.json").write_text('{"cell": ')
    (tmp_path / "cells" / "c.json").write_text("7")

    def make(cell: str) -> dict:
        if cell == "C":
            raise DataError("no C")
        return {"cell": cell + " again"}

    made = run_cells(tmp_path, cells, make)
    assert [*made.cells.items()] == [("a", {"cell": "A"}), ("b", {"cell": "B again"}), ("d", {"cell": "D"})]
    assert made.missing == ["c: no C"]
    assert said[0].startswith(f"{tmp_path}/cells/b.json: not JSON") and said[0].endswith("; it is made again")
    assert said[1:] == [f"{tmp_path}/cells/c.json: not a JSON object; it is made again"]
    assert [*run_cells(tmp_path, cells, lambda cell: {"cell": cell}).cells] == [*"abcd"]


def test_a_cell_that_fails_does_not_keep_the_others(tmp_path, capsys):
    def make(cell: str) -> dict:
        if cell in "BC":
            raise DataError(f"no {cell}")
        return {"cell": cell}

    made = run_cells(tmp_path, dict(zip("abcd", "ABCD", strict=True)), make)
    assert made.cells == {"a": {"cell": "A"}, "d": {"cell": "D"}} and made.missing == ["b: no B", "c: no C"]
    with pytest.raises(DataError, match=r"^b: no B \(and 1 more, above\); the rest is done and reported, and the same"):
        made.complete()
    assert "c: no C" in capsys.readouterr().err
    assert [(tmp_path / "cells" / f"{name}.json").exists() for name in "abcd"] == [True, False, False, True]
    again = run_cells(tmp_path, {"a": "A", "d": "D"}, pytest.fail)
    assert again.cells == made.cells and not again.missing
    again.complete()
    with pytest.raises(DataError, match=r"^b: no B; the rest is done, and"):  # of nothing there is no report
        run_cells(tmp_path, {"b": "B"}, make)


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nof many"), MemoryError("RESOURCE_EXHAUSTED: 9 GB")]
)
def test_too_little_memory_is_a_cells_own_failure(tmp_path, error):
    def make(cell: str) -> dict:
        if cell == "large":
            raise error
        return {}

    made = run_cells(tmp_path, {"large": "large", "small": "small"}, make)
    assert made.missing == ["large: out of memory (RESOURCE_EXHAUSTED: 9 GB): give smaller sizes"]
    assert [*made.cells] == ["small"]


def test_what_no_cell_can_help_ends_all(tmp_path):
    def make(cell: str) -> dict:
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run_cells(tmp_path, {"a": "a"}, make)


def test_one_process_and_one_set_of_settings_a_folder(tmp_path):
    with experiment(tmp_path, {"steps": 3}), pytest.raises(ValueError, match="another run is at work there"):
        with experiment(tmp_path, {"steps": 3}):
            pytest.fail("two at once")
    with pytest.raises(DataError, match="made with steps 3, not 4"), experiment(tmp_path, {"steps": 4}):
        pytest.fail("other settings")
    run_cells(tmp_path, {"a": 1}, lambda cell: {"cell": cell})
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match="settings.json: lost"), experiment(tmp_path, {"steps": 4}):
        pytest.fail("what its cells were made with is not known")
    with experiment(tmp_path / "named", {}):  # whose cells' names say all
        assert run_cells(tmp_path / "named", {"a": 1}, lambda cell: {"cell": cell}).cells == {"a": {"cell": 1}}
    assert not (tmp_path / "named" / "settings.json").exists()
