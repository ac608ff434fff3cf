"""A job is disturbed in ten ways and loses nothing; `make chaos` disturbs it a hundred times."""

import pytest

from tests.chaos.chaos import chaos


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_nothing_repeated(tmp_path):
    assert sum(chaos(10, seed=0, layouts=False, here=tmp_path)["disturbances"].values()) == 10
