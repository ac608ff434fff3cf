"""Each control against its definition, token by token, at every position."""

import jax
import numpy as np
import pytest

from rope.decoding.controls import asked_for, controlled
from rope.decoding.search import Marks, Search

VOCABULARY, LENGTH, START, END = 7, 9, 3, 1
NEVER = ((2,), (4, 5), (3, 6), (6, 4, 6), (5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5))
SEARCHES = {
    "once": (Search(no_repeat_ngram_size=1), {}),
    "pairs": (Search(no_repeat_ngram_size=2), {}),
    "triples": (Search(no_repeat_ngram_size=3), {}),
    "longer than may be": (Search(no_repeat_ngram_size=LENGTH + 2), {}),
    "penalty": (Search(repetition_penalty=1.5), {}),
    "bonus": (Search(repetition_penalty=0.5), {}),
    "length": (Search(min_length=5), {}),
    "words": (Search(), {"never": NEVER}),
    "first": (Search(), {"first": (2, 2, 4)}),
    "all": (
        Search(no_repeat_ngram_size=2, repetition_penalty=1.3, min_length=4),
        {"never": NEVER, "first": (2,)},
    ),
}


def plainly(scores: list[float], history: list[int], search: Search, marks: Marks) -> list[float]:
    """`controlled` of one hypothesis, by what the words say."""
    n, made = search.no_repeat_ngram_size, []
    had = [history[i : i + n] for i in range(len(history) + 1 - n)]
    for token, score in enumerate(scores):
        text = [*history, token]
        if token in history:
            score = score * search.repetition_penalty if score < 0 else score / search.repetition_penalty
        repeated = n and text[-n:] in had
        forbidden = any(tuple(text[-len(word) :]) == word for word in marks.never)
        if repeated or forbidden or (token == marks.end and len(history) < search.min_length):
            score = -np.inf
        written = len(history) - 1
        if written < len(marks.first):
            score = 0.0 if token == marks.first[written] else -np.inf
        made.append(score)
    return made


@pytest.mark.parametrize("name", SEARCHES)
def test_each_position_is_as_the_words_say(name):
    search, words = SEARCHES[name]
    marks = Marks(start=START, end=END, **words)
    random = np.random.default_rng(0)
    scores = random.normal(size=(40, 2, VOCABULARY)).astype(np.float32)
    written = random.integers(2, VOCABULARY, (40, 2, LENGTH)).astype(np.int32)
    changed, run = 0, jax.jit(controlled, static_argnames=("search", "marks"))
    for t in range(LENGTH):
        # What is after t is not there yet, whatever the array holds.
        found = np.asarray(run(scores, written, np.int32(t), search=search, marks=marks))
        wanted = [
            [plainly(s, [START, *w[:t]], search, marks) for s, w in zip(*row, strict=True)]
            for row in zip(scores.tolist(), written.tolist(), strict=True)
        ]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        changed += (found != scores).any(-1).sum()
    assert (changed > 0) == (name != "longer than may be")


def test_what_is_asked_for():
    marks = Marks(start=START, end=END)
    assert not asked_for(Search(beams=3), marks) and not asked_for(Search(temperature=1.0, answers=4), marks)
    assert all(asked_for(search, Marks(start=START, end=END, **words)) for search, words in SEARCHES.values())
