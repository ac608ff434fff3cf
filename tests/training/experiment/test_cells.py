"""The interval covers seeds and examples, and the examples are the same for all seeds."""

import numpy as np
import pytest

from training.experiment.cells import estimate, estimate_runs, keep_settings, run_cells
from training.files.errors import DataError


def test_a_constant_has_no_interval():
    assert estimate(np.full((3, 50), 0.25)) == pytest.approx((0.25, 0.25, 0.25))


def test_of_one_seed_it_is_the_examples_standard_error():
    values = np.random.default_rng(0).normal(0, 1, (1, 400))
    mean, low, high = estimate(values)
    assert mean == pytest.approx(values.mean()) and (high - low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    # Ten seeds that agree leave open what the examples do.
    _, same_low, same_high = estimate(values.repeat(10, axis=0))
    assert same_high - same_low == pytest.approx(high - low, rel=0.1)


def test_seeds_that_differ_alone_make_it_as_wide_as_they_are():
    assert estimate(np.repeat([[0.0], [3.0]], 400, axis=1)) == pytest.approx((1.5, 0, 3))


def test_a_few_runs_have_students_interval():
    assert estimate_runs([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)
    assert estimate_runs([0.5]).text(2) == "0.50" and estimate_runs([0.5, 0.5]).text(2) == "0.50 [0.50, 0.50]"


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
    (tmp_path / "a.json").write_text("7")
    with pytest.raises(DataError, match=r"a\.json: not a JSON object; delete it, and the same command makes it again"):
        run_cells({"a": tmp_path / "a.json"}, pytest.fail)


def test_a_cell_that_fails_does_not_keep_the_others(tmp_path, capsys):
    paths = {name: tmp_path / f"{name}.json" for name in "abcd"}

    def make(cell: str) -> dict:
        if cell in "bc":
            raise DataError(f"no {cell}")
        return {"cell": cell}

    with pytest.raises(DataError, match=r"^b: no b \(and 1 more, above\); the rest is done"):
        run_cells(paths, make)
    assert "c: no c" in capsys.readouterr().err
    assert [path.exists() for path in paths.values()] == [True, False, False, True]
    assert run_cells({name: paths[name] for name in "ad"}, pytest.fail) == [{"cell": "a"}, {"cell": "d"}]
