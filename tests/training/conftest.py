"""A bucket for the tests of a module."""

import pytest

from tests import gcs
from training.files import buckets


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An emulated store, which this process and those that it starts ask."""
    served = gcs.Served()
    with gcs.serving(served) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in gcs.environment(port).items():
            patch.setenv(name, value)
        patch.setenv(buckets.CACHE, str(tmp_path_factory.mktemp("cache")))
        yield served
