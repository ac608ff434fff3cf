"""Numbers and ids that the reference implementations gave once (tests/parity/make_goldens.py), exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

from pegasus_zh.text.tokenizers import PegasusTokenizer
from rope.positions.buckets import relative_bucket

GOLDENS = Path(__file__).parents[1] / "goldens"
with np.load(GOLDENS / "buckets.npz") as file:
    BUCKETS = dict(file)


@pytest.mark.parametrize("name", BUCKETS)
def test_relative_position_buckets(name):
    direction, buckets, max_distance = name.split()
    found = relative_bucket(
        np.arange(-300, 301), bidirectional=direction == "both", buckets=int(buckets), max_distance=int(max_distance)
    )
    np.testing.assert_array_equal(found, BUCKETS[name])


def test_ids_of_jieba_and_bert():
    golden = json.loads((GOLDENS / "tokens.json").read_text(encoding="utf-8"))
    lines = (GOLDENS / "lines.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    tokenizer = PegasusTokenizer(golden["vocabulary"])
    assert len(lines) == len(golden["ids"]) > 100
    for line, ids in zip(lines, golden["ids"], strict=True):
        assert tokenizer.encode(line) == ids, line
