"""Batches: a function of (seed, step) alone, the same from any number of processes; every row once an epoch."""

import os
import resource
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pegasus_zh
from pegasus_zh.rows.dataset import eval_batches, train_batches
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packed_rows import PreparedRows, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.errors import DataError
from training.mesh import Share

CORPUS = str(Path(pegasus_zh.__file__).parent / "corpus" / "train.jsonl")
CONFIG = PrepareConfig(
    data=(CORPUS,),
    shard_megabytes=0.05,
    eval_fraction=0.2,
    workers=1,
)
EXAMPLES = ExamplesConfig(max_source=128, max_target=48, row_source=256, row_target=96)


@pytest.fixture(scope="module")
def tokenizer() -> PegasusTokenizer:
    return PegasusTokenizer(train_pegasus_vocabulary(read_documents([CORPUS]), 3000))


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    prepare(EXAMPLES, CONFIG, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def prepared(folder) -> PreparedRows:
    return open_rows(folder)


def identities(batch: dict[str, np.ndarray]) -> list[bytes]:
    return [row.tobytes() for row in batch["source"]]


def assert_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def joined(shares: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}


def test_arrays(prepared):
    batch = next(train_batches(prepared.train, batch_size=8, seed=0))
    source = {"source", "source_segments"}
    target = {"target", "target_inputs", "target_segments"}
    assert {name: array.shape for name, array in batch.items()} == (
        {name: (8, 256) for name in source} | {name: (8, 96) for name in target}
    )
    assert all(array.dtype == np.int32 for array in batch.values())
    assert ((batch["target_inputs"] == 101) == (np.diff(batch["target_segments"], prepend=0) > 0)).all()


@given(st.sampled_from([1, 2, 4]), st.integers(0, 2**32), st.integers(0, 10**9))
@settings(max_examples=20)
def test_processes_share_one_batch(prepared, processes, seed, step):
    """The shares, one after another, are the batch that one process alone would read: at any step, at once."""
    position = {"batch_size": 8, "seed": seed, "start_step": step}
    shares = [next(train_batches(prepared.train, **position, share=Share(p, processes))) for p in range(processes)]
    assert_equal(joined(shares), next(train_batches(prepared.train, **position)))


def test_starting_at_a_step_is_skipping_to_it(prepared):
    batches = list(islice(train_batches(prepared.train, batch_size=8, seed=3), 30))
    for start in (1, 7, 29):
        assert_equal(next(train_batches(prepared.train, batch_size=8, seed=3, start_step=start)), batches[start])


def test_batches_of_one_are_those_of_eight(prepared):
    one = islice(train_batches(prepared.train, batch_size=1, seed=3), 8)
    assert_equal(joined(list(one)), next(train_batches(prepared.train, batch_size=8, seed=3)))


def test_every_epoch_has_each_row_once_in_another_order(prepared):
    rows = prepared.train
    everything = identities(rows.batch(range(len(rows))))
    assert len(set(everything)) == len(rows) > 30
    size = 7  # does not divide the epoch: batches run on over its end
    batches = islice(train_batches(prepared.train, batch_size=size, seed=5), -(-2 * len(rows) // size))
    stream = [row for batch in batches for row in identities(batch)]
    first, second = stream[: len(rows)], stream[len(rows) : 2 * len(rows)]
    assert sorted(first) == sorted(second) == sorted(everything)
    assert first != second and first != everything
    other = next(train_batches(prepared.train, batch_size=size, seed=6))
    assert identities(other) != first[:size]


@pytest.mark.parametrize(("processes", "size"), [(1, 8), (2, 12), (4, 28), (4, 1000)])
def test_evaluation_reads_every_row_once_in_order(prepared, processes, size):
    rows = prepared.heldout
    shares = [eval_batches(prepared.heldout, batch_size=size, share=Share(p, processes)) for p in range(processes)]
    batches = [joined(list(step)) for step in zip(*shares, strict=True)]
    assert len(batches) == -(-len(rows) // size)
    everything = joined(batches)
    empty = {name: array[len(rows) :] for name, array in everything.items()}
    assert_equal({name: array[: len(rows)] for name, array in everything.items()}, rows.batch(range(len(rows))))
    assert not any(array.any() for array in empty.values())


def test_no_document_is_both_for_training_and_evaluation(prepared):
    train, held_out = prepared.train, prepared.heldout
    assert not set(identities(train.batch(range(len(train))))) & set(identities(held_out.batch(range(len(held_out)))))


def test_a_missing_unfinished_or_foreign_set_is_refused(folder, tokenizer, tmp_path):
    with pytest.raises(DataError, match="no prepared set: run scripts/prepare.py"):
        open_rows(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match="an unfinished set: run scripts/prepare.py"):
        open_rows(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="manifest.json is damaged"):
        open_rows(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(
        DataError, match="holds a set of format 99, and this version reads format 2: delete that folder"
    ):
        open_rows(tmp_path)
    assert len(open_rows(folder, tokenizer.fingerprint, verify=True).train)
    with pytest.raises(DataError, match="another tokenizer .*pegasus, 3000 ids.*prepare"):
        open_rows(folder, "0" * 64)
    with pytest.raises(ValueError, match="9 does not divide among 2"):
        train_batches(open_rows(folder).train, batch_size=9, seed=0, share=Share(0, 2))


def test_damaged_shards_are_refused(tokenizer, tmp_path):
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)
    path = tmp_path / "train-00001.array_record"
    content = path.read_bytes()
    middle = 70_000  # past the first block's records
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    with pytest.raises(DataError, match="train-00001.array_record is damaged"):
        open_rows(tmp_path, verify=True)
    path.write_bytes(
        b"".join(bytes([byte ^ 255]) if 200 < i < 60_000 else bytes([byte]) for i, byte in enumerate(content))
    )
    rows = open_rows(tmp_path).train
    with pytest.raises(DataError, match=r"\(train\): a row cannot be read"):
        rows.batch(range(len(rows)))
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="train-00001.array_record has .* bytes: run scripts/prepare.py again"):
        open_rows(tmp_path)
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path)  # as the message says
    assert len(open_rows(tmp_path, verify=True).train)


def test_a_set_need_not_have_both_splits(tokenizer, tmp_path):
    every = prepare(
        ExamplesConfig(), PrepareConfig(data=(CORPUS,), eval_fraction=0, workers=1), tokenizer, tmp_path / "all"
    )
    assert every.heldout is None and len(every.train)
    config = PrepareConfig(data=(CORPUS,), eval_fraction=1 - 1e-9, workers=1)
    with pytest.raises(DataError, match="no rows to train on: .*--eval-fraction"):
        prepare(ExamplesConfig(), config, tokenizer, tmp_path / "none")


def test_a_set_of_another_format_is_refused_with_the_remedy(tokenizer, tmp_path):
    """The same command, once the folder is gone, makes the same files again."""
    prepare(EXAMPLES, CONFIG, tokenizer, tmp_path / "set")
    for name in ("settings.json", "manifest.json"):
        path = tmp_path / "set" / name
        path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    for opened in (lambda: open_rows(tmp_path / "set"), lambda: prepare(EXAMPLES, CONFIG, tokenizer, tmp_path / "set")):
        with pytest.raises(
            DataError, match="set holds a set of format 1, .* reads format 2: delete that folder and run"
        ):
            opened()


def test_many_shards_raise_the_limit_of_open_files(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        open_rows(folder)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_go_with_the_iterator(prepared):
    batches = train_batches(prepared.train, batch_size=4, seed=0)
    next(batches)
    assert any("grain" in thread.name for thread in threading.enumerate())
    batches.close()
    end = time.monotonic() + 10
    while any("grain" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_open_iterator_does_not_hold_up_the_exit(folder):
    program = (
        "from pegasus_zh.rows.dataset import train_batches\n"
        "from pegasus_zh.rows.packed_rows import open_rows\n"
        f"batches = train_batches(open_rows({str(folder)!r}).train, batch_size=4, seed=0)\n"
        "print(next(batches)['source'].shape)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "(4, 256)\n" and not done.stderr, done.stderr
