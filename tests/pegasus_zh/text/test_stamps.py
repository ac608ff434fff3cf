"""Documents are known again by their content."""

import os

import pytest

from pegasus_zh.text.sources import Source, find_sources
from pegasus_zh.text.stamps import changes, stamps


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in paths:
        path.write_text(f"{path.name}的文字")
    return paths


def sources_of(files) -> list[Source]:
    return find_sources([str(path) for path in files])


def test_what_was_touched_or_renamed_is_the_same(files):
    before = stamps(sources_of(files))
    assert changes(before, sources_of(files)) == ""
    for path in files:
        os.utime(path, (1, 1))
    assert changes(before, sources_of(files)) == ""
    moved = files[1].rename(files[1].with_name("c.txt"))
    assert changes(before, sources_of([files[0], moved])) == ""


def test_another_content_is_told(files):
    before = stamps(sources_of(files))
    files[0].write_text("A.txt的文字")  # of the same size
    assert changes(before, sources_of(files)) == "a.txt with another content"
    assert changes(before, sources_of(files[1:])) == "a.txt, b.txt, not b.txt"
    assert changes(before, sources_of(files[::-1])) == "a.txt, b.txt, not b.txt, a.txt"
    assert changes(before * 2, sources_of(files)) == "a.txt, b.txt, a.txt and 1 more, not a.txt, b.txt"


def test_of_stamps_without_a_hash_the_time_decides(files):
    before = [stamp[:3] for stamp in stamps(sources_of(files))]
    assert changes(before, sources_of(files)) == ""
    os.utime(files[0], (1, 1))
    assert changes(before, sources_of(files)) == "a.txt with another content"
    assert changes([["tfds:x:text", 1, 2, None]], [Source("tfds:x:text", 1, 2)]) == ""
    assert changes([["tfds:x:text", 1, 2, None]], [Source("tfds:x:text", 1, 3)]) != ""
