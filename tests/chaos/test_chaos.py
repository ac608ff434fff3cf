"""A job is disturbed in ten ways and loses nothing; `make chaos` disturbs it a hundred times."""

import pytest

from tests.chaos.chaos import chaos


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("layouts", [False, True])
def test_nothing_is_lost_and_nothing_repeated(tmp_path, layouts):
    assert sum(chaos(10, seed=0, layouts=layouts, here=tmp_path)["disturbances"].values()) == 10
