"""Mixtures: shares as close as whole rows allow, every row of a set once before any comes again, the same for all."""

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pegasus_zh
from pegasus_zh.pretrain import PretrainConfig, parse
from pegasus_zh.rows.dataset import eval_batches, train_batches
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.mixture import Round
from pegasus_zh.rows.packed_rows import open_mixture, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.errors import DataError
from training.mesh import Share

CORPUS = Path(pegasus_zh.__file__).parent / "corpus" / "train.jsonl"
EXAMPLES = ExamplesConfig(max_source=128, max_target=48, row_source=256, row_target=96)
WEIGHTS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[Path]:
    """Three sets of different documents, and one more with other rows."""
    folder, lines = tmp_path_factory.mktemp("sets"), CORPUS.read_text().splitlines()
    tokenizer = PegasusTokenizer(train_pegasus_vocabulary((json.loads(line)["text"] for line in lines), 1000))
    made = []
    for name, first, last, row in (("a", 0, 40, 256), ("b", 40, 60, 256), ("c", 60, 70, 256), ("d", 70, 80, 288)):
        (folder / f"{name}.jsonl").write_text("\n".join(lines[first:last]))
        config = PrepareConfig(data=(str(folder / f"{name}.jsonl"),), eval_fraction=0.2, workers=1)
        prepare(replace(EXAMPLES, row_source=row), config, tokenizer, folder / name)
        made.append(folder / name)
    return made


@given(WEIGHTS)
def test_any_prefix_has_its_shares(weights):
    turns, total, had = Round.of(weights), sum(weights), Counter()
    for n in range(2 * total):
        turn, before = turns[n]
        assert before == had[turn]
        had[turn] += 1
        assert all(abs(had[k] - (n + 1) * weight / total) < 1 for k, weight in enumerate(weights))


@given(WEIGHTS, st.integers(1, 9))
def test_only_the_shares_count(weights, times):
    many, once = Round.of([times * weight for weight in weights]), Round.of(weights)
    assert [many[n] for n in range(100)] == [once[n] for n in range(100)]


@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 2**32), st.integers(0, 10**9), st.sampled_from([2, 4]))
@settings(max_examples=10, deadline=None)
def test_a_batch_is_of_its_number_alone(sets, weights, seed, step, processes):
    """At any step at once, and the shares of processes are together what one alone reads."""
    rows = open_mixture(sets[:3], weights).train
    from_there = train_batches(rows, batch_size=8, seed=seed, start_step=step)
    before = train_batches(rows, batch_size=8, seed=seed, start_step=step + 1)
    shares = [
        next(train_batches(rows, batch_size=8, seed=seed, start_step=step, share=Share(p, processes)))
        for p in range(processes)
    ]
    whole = next(from_there)
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([share[name] for share in shares]))
    np.testing.assert_array_equal(next(from_there)["source"], next(before)["source"])


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 1, 1), (1, 2, 7)])
def test_no_row_comes_again_before_all_of_its_set_came(sets, weights):
    mixture = open_mixture(sets[:3], weights)
    whose = {}
    for number, folder in enumerate(sets[:3]):
        rows = open_rows(folder).train
        whose |= {row.tobytes(): number for row in rows.batch(range(len(rows)))["source"]}
    assert len(whose) == len(mixture.train) == sum(mixture.train.sizes)
    batches = islice(train_batches(mixture.train, batch_size=10, seed=5), 3 * len(mixture.train) // 10)
    seen = [row.tobytes() for batch in batches for row in batch["source"]]
    for number, size in enumerate(mixture.train.sizes):
        of_set = [row for row in seen if whose[row] == number]
        assert abs(len(of_set) - len(seen) * weights[number] / sum(weights)) < 1
        for first in range(0, len(of_set), size):
            epoch = of_set[first : first + size]
            assert len({*epoch}) == len(epoch)


def test_what_is_held_out_of_each_is_evaluated_once(sets):
    alone = [open_rows(folder).heldout for folder in sets[:3]]
    mixture = open_mixture(sets[:3], (3, 1, 1))
    assert mixture.heldout
    found = [row for batch in eval_batches(mixture.heldout, batch_size=1) for row in batch["source"].tolist()]
    assert found == [row for rows in alone if rows for row in rows.batch(range(len(rows)))["source"].tolist()]


def test_identity(sets):
    """One set is itself; of several, sets, their order and their shares count."""
    assert open_mixture(sets[:1], (7,)).fingerprint == open_rows(sets[0]).manifest.fingerprint
    given = [(sets[:2], (1, 1)), (sets[:2], (2, 1)), (sets[1::-1], (1, 1)), (sets[:3], (1, 1, 1))]
    assert len({open_mixture(*of).fingerprint for of in given}) == len(given)
    assert open_mixture(sets[:2], (4, 4)).fingerprint == open_mixture(sets[:2]).fingerprint


def test_refused(sets, tmp_path):
    with pytest.raises(DataError, match="/d cannot be mixed with .*/a: its row is 288 of source .* not 256 of source"):
        open_mixture([sets[0], sets[3]])
    with pytest.raises(DataError, match="--prepared names a set twice"):
        open_mixture([sets[0], sets[0]])
    (tmp_path / "another name").symlink_to(sets[0])
    with pytest.raises(DataError, match="--prepared names a set twice"):
        open_mixture([sets[0], tmp_path / "another name"])
    for weights in ((1,), (1, 0), (1, -1), (1, 10_000)):
        with pytest.raises(DataError, match="^--weights .*one whole number of 1 or more for each of the 2 sets"):
            open_mixture(sets[:2], weights)
    with pytest.raises(DataError, match="^--weights are of the sets of --prepared"):
        PretrainConfig(weights=(1, 2))


def test_the_command_line():
    config = parse(["--prepared", "a", "b", "--weights", "3", "1"])
    assert config.prepared == ("a", "b") and config.weights == (3, 1)
