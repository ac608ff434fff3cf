"""What docs/design.md says of places is so: its files are there, and packages import only what lies below them."""

import ast
import re
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
            r"(?:training|rope|pegasus_zh|retrieval|gan|scripts)/[\w/]+\.\w+", page.read_text("utf-8")
        )
    }
    assert len(named) > 30 and [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("package", ABOVE)
def test_imports_only_go_down(package):
    found = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            found |= {name.split(".")[0] for name in names}
    assert not found & ABOVE[package]
