"""TensorFlow's checkpoints without TensorFlow: what is written is read, and no changed byte goes unnoticed. That
TensorFlow reads them, and is read, is tested in tests/parity/test_tensorflow_encoders.py."""

from pathlib import Path

import numpy as np
import pytest
from tensorboardX.crc32c import CRC_INIT, crc_finalize, crc_update

from training.files.crc32c import crc32c
from training.files.errors import DataError
from training.files.tensor_bundle import open_bundle, write_bundle
from training.files.tensorflow_files import open_checkpoint

RANDOM = np.random.default_rng(0)
TENSORS = {f"bert/layer_{i}/kernel": RANDOM.standard_normal((3, i + 1)).astype("f4") for i in range(20)}
TENSORS |= {
    "bert/bias": np.zeros(0, "f4"),
    "scalar": np.array(3.5, "f4"),
    "A": np.arange(600, dtype="f4").reshape(2, 300).T,
}


def test_the_checksum_is_that_of_the_standard() -> None:
    known = {b"\0" * 32: 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}
    for data, wanted in known.items():  # RFC 3720, B.4, and the catalogue's check
        assert crc32c(np.frombuffer(data, np.uint8)) == wanted
    for size in (0, 1, 2, 3, 100, 70_001):
        data = RANDOM.integers(0, 256, size).astype(np.uint8)
        assert crc32c(data) == crc_finalize(crc_update(CRC_INIT, data.tobytes()))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt", TENSORS)
    found = open_bundle(tmp_path / "model.ckpt.index")
    assert [*found] == sorted(TENSORS)
    for name, x in TENSORS.items():
        assert (found[name].shape, found[name].dtype) == (x.shape, "float32")
        np.testing.assert_array_equal(found[name].read(), x)


@pytest.mark.parametrize("end", ["index", "data-00000-of-00001"])
def test_no_changed_byte_goes_unnoticed(tmp_path: Path, end: str) -> None:
    write_bundle(tmp_path / "model.ckpt", TENSORS)
    content = (file := tmp_path / f"model.ckpt.{end}").read_bytes()
    places = RANDOM.integers(0, len(content), 60) if end != "index" else [*range(len(content))][::7]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(place) % 8
        file.write_bytes(changed)
        try:
            found = open_bundle(tmp_path / "model.ckpt.index")
            same = found.keys() == TENSORS.keys() and all(
                np.array_equal(found[k].read(), x) for k, x in TENSORS.items()
            )
        except (ValueError, IndexError):
            continue
        assert same and end == "index"  # in the block of metadata, or in the footer, where nobody reads


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_part_of_a_checkpoint_is_one_line(tmp_path: Path, keep: float) -> None:
    write_bundle(tmp_path / "model.ckpt", TENSORS)
    content = (file := tmp_path / "model.ckpt.index").read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(DataError, match="model.ckpt.index: not a whole checkpoint .*; copy or fetch it again") as error:
        open_checkpoint(tmp_path)
    assert "\n" not in str(error.value)
