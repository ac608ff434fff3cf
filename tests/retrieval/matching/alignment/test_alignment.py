"""What numbers are: by rank, by what stands beside; as files; and how right it is."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.documents import CORPUS, read_documents
from retrieval.matching.alignment import transport
from retrieval.matching.alignment.context import balanced, by_context
from retrieval.matching.alignment.rank import by_rank
from retrieval.matching.alignment.statistics import Statistics, gather
from retrieval.matching.alignment.table import Alignment, of_key, read_key, right
from retrieval.matching.alignment.transport import by_transport
from training.files.errors import DataError

TEXTS = st.lists(st.lists(st.integers(-1, 4), max_size=6), max_size=8)


@given(TEXTS)
def test_tokens_and_their_neighbours_are_counted(texts) -> None:
    found = gather(texts, 5)
    counts, apart = np.zeros(5), np.zeros((2, 6, 6))
    for text in texts:
        for x in text:
            counts[x] += x >= 0
        whole = [5, *text, 5]
        for n, matrix in enumerate(apart):
            for a, b in zip(whole, whole[n + 1 :], strict=False):
                matrix[a, b] += a >= 0 and b >= 0 and (a, b) != (5, 5)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal([found.bigrams.toarray(), found.skips.toarray()], apart)


def test_many_texts_are_counted_in_parts_as_in_one(monkeypatch) -> None:
    texts = [np.random.default_rng(n).integers(0, 9, 5) for n in range(50)]
    whole = gather(texts, 9)
    monkeypatch.setattr("retrieval.matching.alignment.statistics.TOGETHER", 20)
    parts = gather(texts, 9)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(whole.bigrams.toarray(), parts.bigrams.toarray())
    np.testing.assert_array_equal(whole.skips.toarray(), parts.skips.toarray())


def test_rank_sets_the_nth_beside_the_nth() -> None:
    found = by_rank(np.array([5.0, 9, 1, 7]), np.array([2.0, 8, 3]))
    np.testing.assert_array_equal(found.argmax(1)[[1, 3, 0]], [1, 2, 0])
    np.testing.assert_array_equal(found.sum(1), [1, 1, 0, 1])


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1000))
def test_shares_are_balanced(n: int, m: int, seed: int) -> None:
    odds = np.random.default_rng(seed).normal(0, 3, (n, m)).astype(np.float32)
    shares = balanced(odds)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert shares.min() >= 0
    if n == 1:
        np.testing.assert_allclose(shares[0], np.exp(odds[0]) / np.exp(odds[0]).sum(), rtol=1e-4, atol=1e-7)


SIZE = 800  # of the commonest characters


@pytest.fixture(scope="module")
def halves() -> tuple[Statistics, Statistics, np.ndarray]:
    """Two halves of the built-in corpus, the second in numbers, and of each number its character."""
    texts = [text for path in ("train.jsonl", "heldout.jsonl") for text in read_documents([str(CORPUS / path)])]
    lines = [line for text in texts for line in text.replace("，", "。").split("。") if line]
    counts = Counter(x for line in lines for x in line)
    of = {x: n for n, (x, _) in enumerate(counts.most_common(SIZE))}
    key = np.random.default_rng(0).permutation(SIZE)
    number = np.argsort(key)
    ids = [np.array([of.get(x, -1) for x in line]) for line in lines]
    secret = (np.where(x < 0, -1, number[x]) for x in ids[1::2])
    return gather(secret, SIZE), gather(ids[::2], SIZE), key


def test_what_stands_beside_tells_far_more_than_rank(halves) -> None:
    secret, plain, key = halves

    def rightly(match: np.ndarray) -> float:
        return float((match.argmax(1) == key) @ secret.counts / secret.counts.sum())

    turns: list[tuple[int, int]] = []
    shares = by_context(secret, plain, lambda turn, of: turns.append((turn, of)))
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-4)
    assert turns[-1][0] == turns[-1][1] == len(turns)
    by_order = rightly(by_rank(secret.counts, plain.counts))
    assert by_order < 0.4 and rightly(shares) > 0.8


def test_transport_keeps_the_order_of_what_is_rare_and_is_a_plan(halves) -> None:
    secret, plain, _ = halves
    shares = by_transport(secret, plain)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-4)
    rare = secret.order[transport.SIZE :]
    np.testing.assert_array_equal(shares[rare], by_rank(secret.counts, plain.counts)[rare])


def test_transport_finds_the_identity_of_a_text_and_itself(monkeypatch) -> None:
    monkeypatch.setattr(transport, "SIZE", 30)
    random = np.random.default_rng(0)
    law = random.dirichlet(np.full(30, 0.2), 30)
    texts, at = [], 0
    for _ in range(400):
        texts.append([at := int(random.choice(30, p=law[at])) for _ in range(8)])
    one = gather(texts, 30)
    assert np.mean(by_transport(one, one).argmax(1) == np.arange(30)) > 0.9


def test_what_the_numbers_are_called_changes_nothing(halves) -> None:
    secret, plain, _ = halves
    order = np.random.default_rng(1).permutation(SIZE)
    end = np.append(order, SIZE)
    other = Statistics(secret.counts[order], secret.bigrams[end][:, end], secret.skips[end][:, end])
    one, two = by_context(secret, plain).argmax(1), by_context(other, plain).argmax(1)
    common = np.argsort(-secret.counts)[:50]  # of numbers of equal counts the order decides
    np.testing.assert_array_equal(one[common], two[np.argsort(order)[common]])


def alignment() -> tuple[Alignment, np.ndarray]:
    shares = np.array([[0.7, 0.3, 0], [0, 0, 0], [0, 0.2, 0.8]], np.float32)
    return Alignment(["12", "7", "30"], ["天", "地", "人"], shares), np.array([5.0, 1, 9])


def test_a_table_is_by_count_with_the_likeliest_first(tmp_path) -> None:
    found, counts = alignment()
    found.write(tmp_path / "a.tsv", counts)
    lines = (tmp_path / "a.tsv").read_text("utf-8").split("\n")
    assert lines == ["30\t9\t人\t0.800\t地\t0.200", "12\t5\t天\t0.700\t地\t0.300", "7\t1", ""]


def test_right_is_counted_by_character_and_by_text() -> None:
    found, counts = alignment()
    assert right(found, counts, {"12": "天", "30": "地"}) == pytest.approx((1 / 3, 5 / 15))


def test_a_key_is_read_and_what_is_none_named_by_line(tmp_path) -> None:
    path = tmp_path / "key.tsv"
    path.write_text("12\t天\n30\t地\n", "utf-8")
    key = read_key(str(path))
    np.testing.assert_array_equal(of_key(["30", "7", "12"], ["天", "地"], key), [[0, 1], [0, 0], [1, 0]])
    for text, told in (("12\n", "line 1: not number TAB"), ("12\t天\n12\t地\n", "line 2: 12 is there already")):
        path.write_text(text, "utf-8")
        with pytest.raises(DataError, match=told):
            read_key(str(path))
