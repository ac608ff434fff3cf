"""Words against jieba itself, without its hidden Markov model."""

from pathlib import Path

import jieba
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.documents import CORPUS, read_documents
from pegasus_zh.text.wordpieces import normalise, words

LINES = (Path(__file__).parents[1] / "goldens" / "lines.txt").read_text(encoding="utf-8").split("\n")
FRAGMENTS = sorted({line[i : i + 3] for line in LINES for i in range(0, len(line), 2)})


def test_lines_and_corpus():
    for text in [*LINES, *read_documents((str(CORPUS / "heldout.jsonl"),))]:
        assert words(text) == jieba.lcut(normalise(text), HMM=False)


@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=2)), max_size=12).map("".join))
def test_any_text(text):
    assert words(text) == jieba.lcut(normalise(text), HMM=False)
