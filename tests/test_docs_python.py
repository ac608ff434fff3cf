"""docs/python.md's snippets run in order, and print what is said beside them; so do the examples."""

import ast
import re
import runpy
from pathlib import Path

import pytest

from gan.objectives import CRITICS
from pegasus_zh.rows.makers import MAKERS
from pegasus_zh.rows.pseudo_summary import SELECTORS
from rope.positions.angles import SCHEDULES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))

pytestmark = pytest.mark.usefixtures("one_device")  # as who reads the page has it


def snippets() -> str:
    """All of the page as one program, each line where the page has it."""
    inside, lines = False, []
    for line in PAGE.read_text("utf-8").splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    return "\n".join(lines)


def told() -> list[str]:
    """What it prints: the comments behind print, and the blocks of no language."""
    found = re.findall(r"^print\(.*\)  # (.*)$|^```\n((?:.+\n)+)```$", PAGE.read_text("utf-8"), re.M)
    assert sum(bool(comment) for comment, _ in found) == len(re.findall("^print", snippets(), re.M))
    return [line for comment, block in found for line in ([comment] if comment else block.splitlines())]


@pytest.mark.slow  # half a minute
def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets(), str(PAGE), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.splitlines()[-len(told()) :] == told()


@pytest.fixture
def tables_as_before():
    """What an example registers is gone after it."""
    tables = [MAKERS, SELECTORS, CRITICS, SCHEDULES]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


@pytest.mark.slow  # half a minute with the page
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_runs(path, tmp_path, monkeypatch, capsys, tables_as_before):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert said and len(path.read_text("utf-8").splitlines()) <= 60
    if path.stem == "critic":  # its steps are enough to see what the critics differ in
        distances = dict(re.findall(r"^(\w+) +([\d.]+), steepest", said, re.M))
        assert float(distances["pairs"]) > 1.2 > float(distances["lp"]) > 0.9


def test_the_page_names_what_is_exported():
    names = {
        alias.name
        for node in ast.walk(ast.parse(snippets()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {"pretrain_t5", "pretrain_encoder", "load_writer", "load_encoder", "Embedder", "w1", "rotate"} <= names
    assert len(EXAMPLES) == 3 and all(path.name in PAGE.read_text("utf-8") for path in EXAMPLES)
