"""The two READMEs say the same: commands, what a run prints, links row by row, and every name in code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(text: str) -> list[str]:
    """What to type, without what is said of it, and what is then printed."""
    return [re.sub(r" *# .*", "", block) if kind == "sh" else block for kind, block in FENCED.findall(text)]


def links(line: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", line)


def codes(line: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", line)


def rows(text: str) -> list[tuple[list[str], list[str]]]:
    return [(links(line), codes(line)) for line in text.splitlines() if line.startswith("|")]


def test_they_are_equal():
    english, chinese = read("README.md"), read("README.zh.md")
    assert blocks(english) == blocks(chinese) and "make pretrain\nmake test\n" in blocks(english)
    assert rows(english) == rows(chinese) and len(rows(english)) > 15
    english, chinese = (FENCED.sub("", text) for text in (english, chinese))
    assert sorted(codes(english)) == sorted(codes(chinese))
    assert english.count("\n## ") == chinese.count("\n## ")
    folders = [re.findall(r"^    (\w+/)", text, re.M) for text in (english, chinese)]
    assert folders[0] == folders[1] and len(folders[0]) > 5
    assert sorted(set(links(english)) ^ set(links(chinese))) == [
        "README.md",
        "README.zh.md",
    ]  # each begins with the other's


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "CONTRIBUTING.md"])
def test_what_they_link_to_is_there(name):
    assert [link for link in links(read(name)) if "://" not in link and not (ROOT / link).exists()] == []
