"""What the packages export: there, typed, cheap to import, and shadowing no module."""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

PACKAGES = ["gan", "pegasus_zh", "retrieval", "rope"]


@pytest.mark.parametrize("package", PACKAGES)
def test_names(package):
    module = importlib.import_module(package)
    api = importlib.import_module(f"{package}.api")
    assert {*module.__all__} <= {*dir(module)}
    for name in module.__all__:
        assert getattr(module, name) is getattr(api, name) and getattr(api, name).__doc__
        assert find_spec(f"{package}.{name}") is None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_them_imports_little():
    code = (
        f"import sys, {', '.join(PACKAGES)}; print(*sys.modules.keys() & {{'jax', 'numpy', 'tyro', 'training.mesh'}})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "\n"
