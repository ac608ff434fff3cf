"""Checkpoints of TensorFlow written and read: the same function; and what bert4keras does not compute is refused."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from rope.encoder.bert4keras import write_checkpoint
from rope.encoder.load import load_encoder
from rope.encoder.roformer import RoFormerConfig
from tests.rope.encoder.random_encoder import BERT, ROFORMER, outputs, random_encoder, random_rows
from training.files.errors import DataError

ALONE = replace(ROFORMER, embedding=None, pooler="linear")
CASES = {
    "roformer": (ROFORMER, "roformer"),
    "roformer-sim": (ALONE, "roformer"),
    "half": (replace(ALONE, layout="half"), "roformer"),
    "bert": (BERT, "bert"),
    "simbert": (replace(BERT, pooler="linear"), "bert"),
    "sinusoidal": (replace(BERT, positions="sinusoidal"), "bert"),
    "no head": (replace(BERT, head=False), "bert"),
}


def write(out: Path, config: RoFormerConfig) -> str:
    return write_checkpoint(out, random_encoder(config), config, {}, lambda folder: (folder / "vocab.txt").touch())


@pytest.mark.parametrize("name", CASES)
def test_the_same_function_comes_back(tmp_path: Path, name: str) -> None:
    config, kind = CASES[name]
    assert write(tmp_path / "out", config) == kind
    found = load_encoder(tmp_path / "out")
    assert found.config.pooler == config.pooler and found.pooling is None
    rows = random_rows(config)
    ours, theirs = outputs(random_encoder(config), rows, config), outputs(found.model, rows, found.config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max()), ours, theirs)
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"bert_config.json", "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001", "vocab.txt"}
    about = json.loads((tmp_path / "out" / "bert_config.json").read_text())
    assert about["hidden_act"] == "gelu" and ("embedding_size" in about) == (name == "roformer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gelu": "tanh"}, "since bert4keras has no such roformer: gelu is tanh, there erf"),
        ({"epsilon": 1e-5}, "epsilon is 1e-05, there 1e-12"),
        ({"norm": "pre"}, "since bert4keras has no such RoFormer or BERT: norm is pre: there every norm is post"),
        ({"theta": "1000^-t"}, "theta is 1000\\^-t"),
    ],
)
def test_what_bert4keras_has_not_is_one_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        write(tmp_path / "out", replace(ROFORMER, **change))
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(DataError, match="exists already; name another folder"):
        write(tmp_path / "out", ROFORMER)
