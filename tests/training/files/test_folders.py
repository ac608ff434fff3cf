"""What a folder is: the kinds in their order, and what is none."""

import pytest

from training.files.errors import DataError
from training.files.folders import kind_of_folder

FILES = {
    "model.safetensors": "huggingface",
    "pytorch_model.bin.index.json": "huggingface",
    "model.ckpt-10.index": "tensorflow",
    "best_model.weights": "keras",
    "checkpoints/": "run",
    "10/": "run",
}


@pytest.mark.parametrize("name", FILES)
def test_a_kind_each(name, tmp_path):
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert kind_of_folder(tmp_path) == FILES[name]


def test_the_first_that_it_may_be(tmp_path):
    found = []
    for name in reversed(FILES):
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
        found.append(kind_of_folder(tmp_path))
    assert found == ["run", "run", "keras", "tensorflow", "huggingface", "huggingface"]


def test_no_model(tmp_path):
    for path, message in ((tmp_path, "no model here: neither checkpoints/"), (tmp_path / "x", "no such folder; give")):
        with pytest.raises(DataError, match=message):
            kind_of_folder(path)
    (tmp_path / "flax_model.msgpack").touch()
    with pytest.raises(DataError, match="weights in flax_model.msgpack, but neither"):
        kind_of_folder(tmp_path)
