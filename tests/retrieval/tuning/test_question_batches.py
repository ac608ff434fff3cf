"""Batches have both directions of each pair, whatever host packs them; what is too long is cut at its longer side."""

import numpy as np
import pytest

from retrieval.vectors.encoding import pack, texts_of
from tests.retrieval.tuning.small_questions import MAX_LENGTH, batches, questions
from tests.retrieval.vectors.test_encoding import TOKENIZER
from training.loop import LoopConfig
from training.mesh import WHOLE, Share


def sequences_of(batch: dict[str, np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """(source, target) of each direction, in the order of the examples, out of the packed rows."""
    found, texts = [], texts_of(batch["ids"].shape[1])
    for place in batch["places"].reshape(-1):
        row, number = divmod(int(place), texts)
        here = batch["segments"][row] == number + 1
        ids, types = batch["ids"][row][here], batch["types"][row][here]
        found.append((ids[types == 0].tolist(), ids[types == 1].tolist()))
    return found


def test_batches_have_both_directions_of_each_pair() -> None:
    known, loop = questions(), LoopConfig(batch_size=6, accumulate=2, seed=1)
    made = batches(loop, corrupted=0.0)
    begin, end = TOKENIZER.frame_source([], 3)
    for step in range(5):
        batch = made.batch(step, WHOLE)
        assert batch["ids"].shape == (2 * made.form.rows, made.form.length)
        # Example e went to microbatch e % 2, and row r of the batch to r % 2: undone, as training.loop.to_mesh does.
        for m in range(2):
            part = {name: x[m::2] for name, x in batch.items()}
            wanted = []
            for one, two in part["texts"]:
                a, b = known.ids[one].tolist(), known.ids[two].tolist()
                wanted += [([begin, *a, end], [*b, end]), ([begin, *b, end], [*a, end])]
            assert sequences_of(part) == wanted
            predicted = [(row, t + 1) for row, places in enumerate(part["targets"]) for t in places if t >= 0]
            assert sorted(predicted) == sorted(zip(*map(list, np.nonzero(part["types"])), strict=True))
            for (row, t), label in zip(predicted, part["labels"][part["targets"] >= 0], strict=True):
                assert part["ids"][row, t] == label


@pytest.mark.parametrize("corrupted", [0.0, 0.5])
def test_what_is_too_long_is_cut_at_its_longer_side(corrupted: float) -> None:
    """By bert4keras's rule: an id at a time."""
    made, cut = batches(LoopConfig(batch_size=6, seed=0), corrupted=corrupted), 0
    made._max_length = 14
    for step in range(10):
        drawn = made._drawn(step)
        for group in made._microbatches(0):
            texts = drawn.texts[group]
            sources = np.where(drawn.corrupted[group], made._cut[texts], made._plain[texts]).reshape(-1)
            targets = made._plain[texts[:, ::-1]].reshape(-1) - 1
            for *sides, source, target in zip(sources, targets, *made._lengths(drawn, group), strict=True):
                cut += sum(sides) > 14
                while sum(sides) > 14:
                    sides[int(np.argmax(sides))] -= 1
                assert sides == [source, target] and source >= 3 and target >= 1
    assert cut > 10


def test_hosts_pack_their_own_examples() -> None:
    """Two hosts' parts are the examples of the whole, each text as in the whole batch."""
    loop = LoopConfig(batch_size=8, seed=4)
    made = batches(loop)
    whole = sequences_of(made.batch(1, WHOLE))
    made._parts = 2
    made._rows = len(pack([MAX_LENGTH] * 8, MAX_LENGTH))
    for part in range(2):
        found = made.batch(1, Share(part, 2))
        found["places"] = found["places"] - part * made._rows * texts_of(made._room)
        assert sequences_of(found) == whole[8 * part : 8 * part + 8]
