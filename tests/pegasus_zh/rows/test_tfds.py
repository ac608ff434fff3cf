"""A prepared set by tensorflow-datasets: the same rows, without TensorFlow."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import pegasus_zh
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packed_rows import PackedRows, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.tfds import tfds_builder
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.errors import DataError

CORPUS = str(Path(pegasus_zh.__file__).parent / "corpus" / "train.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Shards without anything held out among those with."""
    folder = tmp_path_factory.mktemp("set")
    tokenizer = PegasusTokenizer(train_pegasus_vocabulary(read_documents([CORPUS]), 1000))
    config = PrepareConfig(data=(CORPUS,), shard_megabytes=0.01, eval_fraction=0.05, workers=1)
    prepare(ExamplesConfig(max_source=128, max_target=48), config, tokenizer, folder)
    assert len(list(folder.glob("eval-*"))) < len(list(folder.glob("train-*")))
    return folder


def assert_same(source, rows: PackedRows) -> None:
    assert len(source) == len(rows) > 1
    for n in (0, len(rows) // 2, len(rows) - 1):
        row = {name: array[0] for name, array in rows.batch([n]).items()}
        np.testing.assert_equal(source[n], row)


def test_rows_are_those_that_are_trained_on(folder):
    rows, builder = open_rows(folder), tfds_builder(folder)
    assert_same(builder.as_data_source("train"), rows.train)
    assert_same(builder.as_data_source()["eval"], rows.heldout)
    assert builder.info.splits["train"].num_examples == len(rows.train)
    (some,) = builder.as_data_source("train[5:7]").__getitems__([1])
    sent = pickle.loads(pickle.dumps(builder.as_data_source("train")))  # as to a worker process
    np.testing.assert_equal(some, sent[6])
    assert {name: (x.shape, x.dtype) for name, x in some.items()} == {
        name: (x.shape, x.np_dtype) for name, x in builder.info.features.items()
    }
    assert "tensorflow" not in sys.modules


def test_what_is_no_set_is_told(tmp_path):
    with pytest.raises(DataError, match="no prepared set"):
        tfds_builder(tmp_path)
