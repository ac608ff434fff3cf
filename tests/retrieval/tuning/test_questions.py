"""Each group comes once a pass, and files in turn; words are hidden whole; long texts are cut at a mark."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.tuning.questions import Stream, corrupt, first_piece
from tests.retrieval.tuning.small_questions import questions


@pytest.mark.parametrize("order", [(), (0, 1), (0, 1, 0, 0)])
def test_every_pass_visits_each_group_once_and_files_have_their_turns(order) -> None:
    known = questions(words=False)
    stream = Stream(known, order, 0.0, seed=7)
    of_text = {
        text: file for g, file in enumerate(np.repeat([0, 1], known.files)) for text in known.members[g].tolist()
    }
    groups = {frozenset(known.members[g].tolist()): g for g in range(sum(known.files))}
    numbers = stream._groups(np.arange(240))
    np.testing.assert_array_equal(
        numbers, np.concatenate([stream._groups(np.arange(i, i + 8)) for i in range(0, 240, 8)])
    )
    files = np.repeat([0, 1], known.files)[numbers]
    if order:
        assert files.tolist() == [*order] * (240 // len(order))
    for file in (0, 1) if order else (None,):
        mine = numbers[files == file] if order else numbers
        size = known.files[file] if order else sum(known.files)
        for first in range(0, len(mine) - size, size):
            assert len({*mine[first : first + size]}) == size
    drawn = stream.draw(40, 40)
    for one, two in drawn.texts.tolist():
        assert one != two and any({one, two} <= group for group in groups)
    assert {of_text[x] for x in drawn.texts.reshape(-1).tolist()} == {0, 1}


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_words_are_hidden_whole(lengths: list[int], seed: int) -> None:
    begins = np.zeros(sum(lengths), bool)
    begins[np.cumsum([0, *lengths[:-1]])] = True
    ids = np.arange(1000, 1000 + len(begins), dtype=np.int32)
    found = corrupt(ids, begins, np.random.default_rng(seed), mask=4, size=900)
    for word in np.split(np.arange(len(ids)), np.flatnonzero(begins)[1:]):
        kinds = {"mask" if found[i] == 4 else "same" if found[i] == ids[i] else "other" for i in word}
        assert len(kinds) == 1 or kinds == {"other", "mask"}  # a random id may be that of the mask


def test_shares_of_what_is_hidden() -> None:
    begins = np.ones(200_000, bool)
    ids = np.full(len(begins), 5, np.int32)
    found = corrupt(ids, begins, np.random.default_rng(0), mask=4, size=100_000)
    shares = Counter("mask" if x == 4 else "same" if x == 5 else "other" for x in found.tolist())
    # Three standard deviations.
    for kind, share in (("mask", 0.12), ("other", 0.015), ("same", 0.865)):
        assert shares[kind] / len(ids) == pytest.approx(share, abs=3 * (share * (1 - share) / len(ids)) ** 0.5)
    assert found.min() >= 1


@pytest.mark.parametrize(
    ("text", "longest", "wanted"),
    [
        ("今天很好", 10, "今天很好"),
        ("今天很好。我们去公园。你呢", 11, "今天很好。我们去公园。"),
        ("今天很好，我们去公园散步吧，你呢", 9, "今天很好"),
        ("一二三四五六七八九十", 5, "一二三四五六七八九十"),  # no mark to cut at: the rows cut it
        ("；，今天，", 10, "今天"),
        ("第一行\n第二行很长很长", 5, "第一行"),
    ],
)
def test_a_long_text_is_cut_at_a_mark(text: str, longest: float, wanted: str) -> None:
    assert first_piece(text, longest) == wanted
