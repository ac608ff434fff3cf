"""Span corruption: nothing is lost, the shares are T5's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.rows.span_corruption import SENTINELS, corrupt


@given(st.integers(0, 600), st.integers(0, 2**32 - 1))
def test_source_and_target_make_the_text_again(length, seed):
    ids = list(range(200, 200 + length))
    source, target = corrupt(ids, np.random.default_rng(seed))
    if length < 2:
        assert (source, target) == (ids, [])
        return
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in SENTINELS:
            spans[token] = last = []
        else:
            last.append(token)
    used = [token for token in source if token in SENTINELS]
    assert used == list(SENTINELS[: len(used)]) and list(spans) == list(SENTINELS[: len(used) + 1])
    assert spans[SENTINELS[len(used)]] == [] and all(spans[token] for token in used)
    assert [t for token in source for t in spans.get(token, [token])] == ids
    assert source[0] not in SENTINELS
    noise = sum(map(len, spans.values()))
    assert noise == max(round(0.15 * length), 1) and len(used) == max(min(round(noise / 3), length - noise), 1)


def test_every_place_is_lost_as_often():
    random, lost = np.random.default_rng(0), np.zeros(100)
    for _ in range(4000):
        source, target = corrupt(range(200, 300), random)
        lost[[token - 200 for token in target if token >= 200]] += 1
    # The text begins with what is kept, so the first and last few differ; between them the share is even.
    assert abs(lost[15:85] / 4000 - 0.15).max() < 0.04
