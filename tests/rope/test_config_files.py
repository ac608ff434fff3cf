"""Other people's configs: which file it is, and what its numbers may be."""

from pathlib import Path

import pytest

from rope.config_files import config_in, number
from training.files.errors import DataError


def test_which_file_is_the_config(tmp_path):
    names = []
    for name in ("tokenizer_config.json", "sentence_bert_config.json", "t5_config.json"):
        (tmp_path / name).touch()
        names.append(config_in(tmp_path))
    assert names == [None, None, tmp_path / "t5_config.json"]
    (tmp_path / "other_config.json").touch()
    with pytest.raises(DataError, match="other_config.json and t5_config.json; leave the one that belongs"):
        config_in(tmp_path)
    for name in ("bert_config.json", "config.json"):
        (tmp_path / name).touch()
        assert config_in(tmp_path) == tmp_path / name


NUMBERS = {
    "size": 3,
    "rate": 0.5,
    "zero": 0,
    "negative": -1,
    "words": "3",
    "true": True,
    "large": 1 << 24,
}


@pytest.mark.parametrize(("name", "kind"), [("size", int), ("size", float), ("rate", float), ("zero", float)])
def test_numbers(name, kind):
    value = number(NUMBERS, name, Path("config.json"), kind)
    assert value == NUMBERS[name] and type(value) is kind


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize("name", ["negative", "words", "true", "large", "none", "nan"])
def test_what_is_no_number(name, kind):
    with pytest.raises(DataError, match=f"config.json: {name} is .*; give the config.json that belongs"):
        number(NUMBERS | {"nan": float("nan")}, name, Path("config.json"), kind)


def test_what_is_no_size():
    for name, about in (("zero", NUMBERS), ("rate", NUMBERS), ("num_layers", {"num_layers": 10_000})):
        with pytest.raises(DataError, match=f"config.json: {name} is "):
            number(about, name, Path("config.json"), int)
