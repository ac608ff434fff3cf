"""A pair is cut, framed and hidden, and every batch has its pairs whole: what is hidden put back, they are as given."""

from collections import Counter
from itertools import islice

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.lines import is_blank
from retrieval.matching.alphabet import NO, RARE, YES
from retrieval.matching.batches import Example, Hiding, MatchingBatches, cut, example, framed, longest
from retrieval.matching.hiding import RATE
from retrieval.matching.pairs import Pair
from retrieval.vectors.encoding import texts_of
from tests.retrieval.matching.small_pairs import ALPHABET, FIRST, UNKNOWN, pair, pairs
from training.loop import LoopConfig
from training.mesh import WHOLE, MeshConfig, Share, make_mesh

CLS, SEP, MASK, UNK = ALPHABET.start_id, ALPHABET.eos_id, ALPHABET.mask_id, ALPHABET.unk_id
MOST = 10
TOKENS, SPANS, LABELS, SIDES = Hiding(), Hiding("spans"), Hiding(None), Hiding("tokens", 0.5)
RARES = Hiding("tokens", rare=True)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 90))
def test_the_last_id_of_the_longer_text_goes_first(a: int, b: int, most: int) -> None:
    """On a tie that of the first text."""
    one, other = a, b
    while one + other > most:
        one, other = (one, other - 1) if other > one else (one - 1, other)
    assert cut(a, b, most) == (one, other)


def test_a_pair_between_its_marks():
    given = pair([201, 202, 203, -1], [204, -1, -2])
    for ids, wanted in (
        (framed(given, 9, ALPHABET, False), [CLS, 201, 202, 203, UNK, SEP, 204, UNK, UNK, SEP]),
        (framed(given, 9, ALPHABET, True), [CLS, 201, 202, 203, RARE[0], SEP, 204, RARE[0], RARE[1], SEP]),
    ):
        assert ids[0].tolist() == wanted and ids[0].dtype == np.int32 and ids[1] == [4, 3]
    # What is cut is not numbered: of the first unknown number nothing is left on the left.
    ids, lengths = framed(given, 5, ALPHABET, True)
    assert ids.tolist() == [CLS, 201, 202, SEP, 204, RARE[0], RARE[1], SEP] and lengths == [2, 3]
    ids, lengths = framed(given, 2, ALPHABET, False)
    assert ids.tolist() == [CLS, 201, SEP, 204, SEP] and lengths == [1, 1]


def test_a_single_text_between_its_marks():
    ids, lengths = framed(pair([201, -1, 203], []), 9, ALPHABET, False)
    assert ids.tolist() == [CLS, 201, UNK, 203, SEP] and lengths == [3]
    ids, lengths = framed(pair([201, -1, 203], []), 2, ALPHABET, True)
    assert ids.tolist() == [CLS, 201, RARE[0], SEP] and lengths == [2]


def undone(ids: np.ndarray, places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What was hidden put back."""
    hidden = places > 0
    assert len({*places[hidden].tolist()}) == hidden.sum()  # none is guessed twice
    found = ids.copy()
    found[places[hidden]] = labels[hidden]
    return found


def asked(found: Example) -> list[tuple[int, float]]:
    """Words that are to be said at [CLS], and their weights: before all else."""
    count = int((found.places == 0).sum())
    assert (found.places[:count] == 0).all() and (found.weights[count:] == 1).all()
    return [*zip(found.labels[:count].tolist(), found.weights[:count].tolist(), strict=True)]


def ways(given: Pair, hiding: Hiding) -> list[list[int]]:
    """A pair as it may stand, in one order and in the other."""
    turned = given._replace(a=given.b, b=given.a) if len(given.b) else given
    return [framed(x, MOST, ALPHABET, hiding.rare)[0].tolist() for x in (given, turned)]


@pytest.mark.parametrize("hiding", [TOKENS, SPANS, LABELS, SIDES, RARES, Hiding(None, 0.3), Hiding("spans", 0.5, True)])
def test_what_is_hidden_put_back_is_the_pair(hiding):
    for n, one in enumerate([*pairs(150), pair([201], []), pair([201] * 30, []), pair([201] * 30, [202] * 20, 1.0)]):
        found = example(one, MOST, hiding, ALPHABET, np.random.default_rng(n))
        assert [x.dtype for x in found] == [np.int32, np.int32, np.int32, np.float32]
        assert undone(*found[:3]).tolist() in ways(one, hiding)
        hidden = found.places[found.places > 0]
        assert not {*found.ids[hidden].tolist()} & {CLS, SEP, NO, YES}
        outside = np.delete(np.arange(len(found.ids)), hidden)
        assert not (found.ids[outside] == MASK).any()
        assert not {*found.labels[found.places > 0].tolist()} & {CLS, SEP, MASK}  # marks are never hidden


@pytest.mark.parametrize(
    ("label", "words"),
    [(0.0, [(NO, 1)]), (1.0, [(YES, 1)]), (0.25, [(NO, 0.75), (YES, 0.25)]), (UNKNOWN, [])],
)
@pytest.mark.parametrize("hiding", [TOKENS, SPANS, LABELS, RARES])
def test_labels_are_asked_for_first_by_their_probability(label, words, hiding):
    for n in range(30):
        found = example(pair([201, 202, 203], [204, 205], label), MOST, hiding, ALPHABET, np.random.default_rng(n))
        assert asked(found) == words
        assert found.ids[0] == CLS and (hiding.masks or len(found.places) == len(words))


def test_both_orders_come_equally_often():
    """Within five standard deviations, and so with what is hidden: it tells nothing of the order."""
    given, count = pair([201, 202], [203], 1.0), 2000
    for hiding in (LABELS, TOKENS, SIDES):
        found = [example(given, MOST, hiding, ALPHABET, np.random.default_rng(n)) for n in range(count)]
        first = sum(undone(*x[:3]).tolist() == ways(given, hiding)[0] for x in found)
        assert abs(first - count / 2) < 5 * (count / 4) ** 0.5


def test_sides_are_hidden_whole_and_ask_for_no_label():
    given, hiding, count = pair([201, 202, 203, 204], [205, 206], 1.0), Hiding("tokens", 1.0), Counter()
    for n in range(400):
        found = example(given, MOST, hiding, ALPHABET, np.random.default_rng(n))
        assert asked(found) == [] and (found.ids[found.places] == MASK).all()
        hidden = tuple(sorted(found.labels.tolist()))
        count[hidden, int(found.places[0])] += 1
        assert (found.ids == MASK).sum() == len(hidden)
    # Either text, on either side, within five standard deviations.
    texts = (201, 202, 203, 204), (205, 206)
    assert {*count} == {(texts[0], 1), (texts[0], 4), (texts[1], 1), (texts[1], 6)}
    assert all(abs(x - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5 for x in count.values())
    alone = [example(pair([201] * 8, []), MOST, hiding, ALPHABET, np.random.default_rng(n)) for n in range(100)]
    assert 0 < sum(len(x.places) for x in alone) < 0.3 * 800  # a text that stands alone has no other to guess it from


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_share_of_sides(share):
    given, count = pair([201, 202], [203, 204], 1.0), 2000
    found = [example(given, MOST, Hiding(None, share), ALPHABET, np.random.default_rng(n)) for n in range(count)]
    assert {tuple(word for word, _ in asked(x)) for x in found} == {(), (YES,)}
    assert abs(sum(asked(x) == [] for x in found) - count * share) < 5 * (count * share * (1 - share)) ** 0.5


def test_texts_without_ids_are_no_fault():
    """Of plain text whose characters a tokenizer does not see."""
    assert not is_blank("\ufffd") and ALPHABET.encode("\ufffd") == []
    for hiding in (TOKENS, SPANS, LABELS, SIDES):
        found = example(pair([], [], 1.0), MOST, hiding, ALPHABET, np.random.default_rng(0))
        assert found.ids.tolist() == [CLS] and asked(found) == [(YES, 1)] and len(found.places) == 1


def first_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def batches(
    given: list[Pair], hiding: Hiding = TOKENS, mesh: jax.sharding.Mesh | None = None, **loop: int
) -> MatchingBatches:
    config = LoopConfig(**{"steps": 8, "batch_size": 8, "seed": 3} | loop)
    return MatchingBatches(given, config, MOST, hiding, ALPHABET, mesh or first_device())


def of_steps(made: MatchingBatches, steps: int, first: int = 0, share: Share = WHOLE) -> list[dict[str, np.ndarray]]:
    return list(islice(made(first, share), steps))


Framed = tuple[tuple[int, ...], tuple[tuple[int, float], ...]]


def framed_of(batch: dict[str, np.ndarray]) -> list[Framed]:
    """The ids of each pair of a batch, with what is hidden put back, and the words that are asked for at its [CLS]."""
    found = []
    for ids, segments, *guessed in zip(*batch.values(), strict=True):
        places, labels, weights = (x[guessed[0] >= 0] for x in guessed)
        begins = [int(np.argmax(segments == n)) for n in range(1, segments.max() + 1)]
        is_word = np.isin(places, begins)
        hidden = places[~is_word]
        assert len({*hidden.tolist()}) == len(hidden) and (segments[places] > 0).all() and (weights > 0).all()
        assert (weights[~is_word] == 1).all() and (ids[begins] == CLS).all()
        whole = ids.copy()
        whole[hidden] = labels[~is_word]
        for n, begin in enumerate(begins, 1):
            here = places == begin
            words = tuple(zip(labels[here].tolist(), weights[here].tolist(), strict=True))
            found.append((tuple(whole[segments == n].tolist()), words))
        assert (ids[segments == 0] == ALPHABET.pad_id).all()
    return found


def standing(batch: dict[str, np.ndarray]) -> list[bytes]:
    """Each pair's ids as they are given, in the same order."""
    rows = zip(batch["ids"], batch["segments"], strict=True)
    return [ids[segments == n].tobytes() for ids, segments in rows for n in range(1, segments.max() + 1)]


def number_of(given: list[Pair], hiding: Hiding) -> dict[tuple[int, ...], int]:
    """Which pair it is, by its ids in either order."""
    numbers = {tuple(way): n for n, one in enumerate(given) for way in ways(one, hiding)}
    assert len({*numbers.values()}) == len(given)
    return numbers


def words_of(one: Pair) -> list[tuple[int, float]]:
    p = one.label
    return [(word, weight) for word, weight in ((NO, 1 - p), (YES, p)) if weight > 0]


@pytest.mark.parametrize("hiding", [TOKENS, SPANS, LABELS, SIDES, RARES], ids=str)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_pair_comes_once_a_pass(hiding, accumulate):
    given = pairs(27, labels=(0, 1, UNKNOWN, 0.25))
    made, numbers = batches(given, hiding, steps=9, accumulate=accumulate), number_of(given, hiding)
    orders = []
    for epoch in range(3):
        found = [x for batch in of_steps(made, 3, 3 * epoch) for x in framed_of(batch)]
        orders.append([numbers[ids] for ids, _ in found])
        assert len(found) == 24 == len({*orders[-1]})  # three of 27 are left out of each pass
        for n, (_, words) in zip(orders[-1], found, strict=True):
            assert [*words] == words_of(given[n]) or hiding.sides and not words
    assert orders[0] != orders[1] != orders[2]
    assert {*orders[0]} | {*orders[1]} | {*orders[2]} == {*range(27)}


def test_the_form_is_that_of_every_batch():
    made = batches(pairs(40), accumulate=2, steps=10)
    shapes = made.form.shapes(4)
    for batch in of_steps(made, 10):
        assert [*batch] == [*shapes]
        for name, shape in shapes.items():
            assert batch[name].shape == (2 * shape.shape[0], *shape.shape[1:]) and batch[name].dtype == shape.dtype


def test_a_plan_has_a_pair_a_row_where_a_table_of_positions_ends():
    form = longest(MOST, 8, TOKENS, False, first_device(), MOST + 10)
    assert (form.rows, form.length, form.pairs) == (8, MOST + 10, 1)


def test_the_form_that_is_planned_is_that_of_pairs_as_long_as_may_be():
    for hiding, accumulate in ((TOKENS, 1), (SIDES, 2)):
        for labels in ((0, 1), (0, 0.25)):
            given = [pair([FIRST + n] * 6, [FIRST + n] * 7, labels[n % 2]) for n in range(40)]
            planned = longest(MOST, 8 // accumulate, hiding, 0.25 in labels, first_device())
            assert batches(given, hiding, accumulate=accumulate).form == planned
    cut = longest(MOST, 8, TOKENS, False, make_mesh(MeshConfig(data=4, fsdp=2)))
    assert cut == longest(MOST, 16, TOKENS, False, first_device())


def same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for a, b in zip(one, other, strict=True) for name in a)


def test_the_same_seed_makes_the_same_bits():
    given = pairs(40)
    found = of_steps(made := batches(given), 8)
    assert same(of_steps(batches(given), 8), found) and same(of_steps(made, 8), found)
    assert same(of_steps(made, 3, first=5), found[5:])  # a step's batch is the same wherever one begins
    assert not same(of_steps(batches(given, seed=4), 8), found)


def test_every_pass_hides_others():
    """Of eight passes over a pair several differ, or nearly all of the four that sides and orders make."""
    given = [pair([FIRST + 10 * n + i for i in range(5)], [FIRST + 10 * n + i for i in range(5, 10)]) for n in range(8)]
    for hiding, least in ((TOKENS, 4), (SPANS, 4), (Hiding(None, 1.0), 3)):
        numbers, versions = number_of(given, hiding), {n: set[bytes]() for n in range(8)}
        for batch in of_steps(batches(given, hiding, steps=8), 8):
            for (ids, _), stands in zip(framed_of(batch), standing(batch), strict=True):
                versions[numbers[ids]].add(stands)
        assert all(len(x) >= least for x in versions.values())


def test_microbatches_hold_the_same_pairs():
    """Pair e of a batch goes to microbatch e % 2, with the same hidden as in one; row r is of microbatch r % 2."""
    given = pairs(40)
    one, two = batches(given), batches(given, accumulate=2)
    numbers = number_of(given, TOKENS)
    for step, (whole, halves) in enumerate(zip(of_steps(one, 5), of_steps(two, 5), strict=True)):
        assert sorted(framed_of(whole)) == sorted(framed_of(halves))
        order = one._order(0)[8 * step : 8 * step + 8]
        for m in range(2):
            part = {name: x[m::2] for name, x in halves.items()}
            assert sorted(numbers[ids] for ids, _ in framed_of(part)) == sorted(order[m::2].tolist())
        for name in ("labels", "weights"):
            kept = [np.sort(x[name][x["places"] >= 0]).tolist() for x in (whole, halves)]
            assert kept[0] == kept[1]
        assert (whole["ids"] == MASK).sum() == (halves["ids"] == MASK).sum() > 0


SHORT = [pair([FIRST + n], [FIRST + 100 + n], label) for n, label in enumerate([0, 1, 0.25, UNKNOWN] * 16)]


@pytest.mark.parametrize("hiding", [TOKENS, SPANS, LABELS, SIDES, Hiding(None, 0.5)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["sure", "soft"])
def test_no_label_is_lost_among_many_short_pairs(hiding, soft):
    """As many pairs a row as there can be, of each a label, whose words are two where it is not sure."""
    given = [one._replace(label=0.25) for one in SHORT] if soft else SHORT
    made, numbers = batches(given, hiding, batch_size=64, steps=3), number_of(given, hiding)
    assert made.form.length // 5 > texts_of(made.form.length) / 2  # pairs of a row
    for batch in of_steps(made, 3):
        found = framed_of(batch)
        assert sorted(numbers[ids] for ids, _ in found) == [*range(64)]
        for ids, words in found:
            assert [*words] == words_of(given[numbers[ids]]) or hiding.sides and not words


@pytest.mark.parametrize("masks", ["tokens", "spans"])
def test_what_is_beyond_the_guessed_is_not_hidden(monkeypatch, masks):
    """Where far more is chosen than a row has room for."""
    monkeypatch.setattr("retrieval.matching.hiding.RATE", 0.95)
    monkeypatch.setattr("retrieval.matching.batches.RATE", 0.02)
    for known in ([one._replace(label=0.25) for one in SHORT], pairs(64, 9, labels=(0, 1, 0.25))):
        made = batches(known, Hiding(masks), batch_size=64, steps=3)
        numbers, full = number_of(known, TOKENS), 0
        for batch in of_steps(made, 3):
            # What is not guessed stands there as it is: put back what is, and every pair is whole, with its label.
            found = framed_of(batch)
            assert sorted(numbers[ids] for ids, _ in found) == [*range(64)]
            assert all([*words] == words_of(known[numbers[ids]]) for ids, words in found)
            full += int((batch["places"] >= 0).all(1).sum())
        assert full > 3


def test_a_row_is_seldom_full():
    """Of tokens hidden at the rate itself nearly all are guessed."""
    made = batches(given := pairs(64, 9, labels=(0, 1, 0.25)), batch_size=64, steps=12)
    found = of_steps(made, 12)
    assert not any((batch["places"] >= 0).all(1).any() for batch in found)
    ids = sum(sum(cut(len(x.a), len(x.b), MOST)) for x in given) * 12
    hidden = sum(((x["places"] >= 0) & ~np.isin(x["labels"], [NO, YES])).sum() for x in found)
    assert abs(hidden / ids - RATE) < 5 * (RATE * (1 - RATE) / ids) ** 0.5


def test_processes_pack_their_own_pairs():
    """Two processes' parts are the pairs of the whole, half of them each and hidden alike."""
    given = pairs(40)
    made, numbers = batches(given), number_of(given, TOKENS)
    whole = of_steps(made, 5)
    rows = made._rows
    made._parts = 2
    for step, (part, other) in enumerate(zip(*(of_steps(made, 5, share=Share(n, 2)) for n in range(2)), strict=True)):
        order = made._order(0)[8 * step : 8 * step + 8].tolist()
        for share, held in ((part, order[:4]), (other, order[4:])):
            assert sorted(numbers[ids] for ids, _ in framed_of(share)) == sorted(held)
            assert len(share["ids"]) == rows and made.form.rows == 2 * rows
        assert sorted(framed_of(part) + framed_of(other)) == sorted(framed_of(whole[step]))
        assert (part["ids"] == MASK).sum() + (other["ids"] == MASK).sum() == (whole[step]["ids"] == MASK).sum()


def test_rows_are_cut_over_the_devices():
    """Of eight devices each has equally many rows; the pairs are those of one device."""
    given = pairs(40)
    found, alone = batches(given, mesh=make_mesh(MeshConfig(data=4, fsdp=2))), batches(given)
    assert found.form.rows % 8 == 0
    for one, other in zip(of_steps(found, 3), of_steps(alone, 3), strict=True):
        assert sorted(framed_of(one)) == sorted(framed_of(other))
