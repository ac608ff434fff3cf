"""Scores against the packages `rouge` 1.0.0 and nltk, to the last bit."""

from importlib.metadata import version

from hypothesis import example, given
from hypothesis import strategies as st

from pegasus_zh.evaluation import scores
from tests.parity.scores import reference_scores

FEW = st.text("abA天好。. İ\u3000\n", min_size=1, max_size=20)  # few characters, so that they repeat
ANY = st.text(min_size=1, max_size=20)


@given(st.one_of(FEW, ANY), st.one_of(FEW, ANY))
@example("天" * 300, "天好" * 150)
def test_any_two_texts(reference, written):
    assert version("rouge") == "1.0.0"  # others count otherwise
    found = {name: values.item() for name, values in scores([reference], [written]).items()}
    assert found == reference_scores(reference, written)
