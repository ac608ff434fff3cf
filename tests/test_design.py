"""What docs/design.md says of places is so: its files are there, and packages import only what lies below them."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {  # of each package those that it may not import
    "training": {"rope", "pegasus_zh", "retrieval", "gan", "scripts"},
    "rope": {"pegasus_zh", "retrieval", "gan", "scripts"},
    "pegasus_zh": {"retrieval", "gan", "scripts"},
    "retrieval": {"gan", "scripts"},
    "gan": {"pegasus_zh", "retrieval", "scripts"},
}


def test_every_file_that_is_named_is_there():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(
            r"(?:tests/)?(?:training|rope|pegasus_zh|retrieval|gan|scripts)/[\w/]+\.\w+", page.read_text("utf-8")
        )
    }
    assert len(named) > 30 and [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_what_lies_beside_the_project_is_not_linted(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ours = [f"{place}/deep/er.py" for place in (*ABOVE, "scripts", "tests", "benchmarks", "docs")] + ["setup.py"]
    for name in (*ours, "mine.py", "scratch/mine.py", "mine.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    lint = [sys.executable, "-m", "ruff", "check", "--no-cache", "--show-files", "."]
    found = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(found) == sorted(str(tmp_path / name) for name in (*ours, "pyproject.toml"))


@pytest.mark.parametrize("package", ABOVE)
def test_imports_only_go_down(package):
    found = {name.split(".")[0] for file in (ROOT / package).rglob("*.py") for name in imported(file)}
    assert not found & ABOVE[package]


def test_the_engine_knows_nothing_of_the_pods_that_stand_on_it():
    files = [file for file in (ROOT / "training").rglob("*.py") if "pods" not in file.parts]
    assert len(files) > 20
    assert [file for file in files if any(name.startswith("training.pods") for name in imported(file))] == []


def imported(file: Path) -> set[str]:
    """Modules that a file names in its imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found
