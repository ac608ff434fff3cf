"""Files of tensors by name: written and read to the bit, damaged ones refused in a line that names file and remedy."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from training.files.errors import DataError
from training.files.weights import check_fit, empty, fill, hollow, open_weights, refuse_others, write_safetensors

TENSORS = {"word": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.float32([1.0 + 2**-20, -2])}


def opened(folder: Path, tensors=TENSORS, dtype: str = "float32", **options):
    write_safetensors(folder / "model.safetensors", tensors.items(), dtype, **options)
    return open_weights(folder)


def test_what_is_written_is_read_to_the_bit_and_by_the_library_too(tmp_path):
    stored, file = opened(tmp_path, TENSORS | {"turned": TENSORS["word"].T})
    assert file.name == "model.safetensors"
    slots = {"word": np.empty((2, 3), np.float32), "bias": np.empty(2, np.float32), "turned": np.empty((2, 3)).T}
    check_fit(slots, stored, file, "a toy")
    fill(slots, stored)
    for name, x in safetensors.load_file(file).items():
        np.testing.assert_array_equal(slots[name], x)
    np.testing.assert_array_equal(slots["turned"].T, TENSORS["word"])
    np.testing.assert_array_equal(slots["bias"], TENSORS["bias"])


def test_half_types_round_all_but_what_is_exact(tmp_path):
    stored, _ = opened(tmp_path, dtype="bfloat16", exact=("bias",))
    assert {name: x.dtype for name, x in stored.items()} == {"word": "bfloat16", "bias": "float32"}
    np.testing.assert_array_equal(stored["bias"].read(), TENSORS["bias"])
    np.testing.assert_array_equal(stored["word"].read().astype(np.float32), TENSORS["word"])


def test_slots_are_made_of_an_initialiser_without_computing_it():
    def init(key: jax.Array):
        return {"table": jax.random.normal(key, (10**6, 10**6)), "scale": jnp.ones(3)}

    found = hollow(init)
    assert found["table"].shape == (10**6, 10**6) and found["table"].strides == (0, 0)
    found = empty(lambda key: {"scale": jnp.ones(3, jnp.bfloat16)})["scale"]
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.flags.writeable


WRONG = {
    "no tensor 'more'; the checkpoint is not whole, or not of a toy: copy": {
        "word": (2, 3),
        "bias": (2,),
        "more": (1,),
    },
    "model.safetensors: a tensor 'bias', which a toy of this config does not have; give the folder's": {"word": (2, 3)},
    r"model.safetensors: 'word' has the shape \(2, 3\), and \(3, 2\) by its config; give": {
        "word": (3, 2),
        "bias": (2,),
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit(message, tmp_path):
    stored, file = opened(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        check_fit({name: np.empty(shape) for name, shape in WRONG[message].items()}, stored, file, "a toy")
    assert "\n" not in str(error.value)
    check_fit({"word": np.empty((2, 3))}, stored, file, "a toy", ignored=["bias", "not there"])


def test_integers_are_no_weights(tmp_path):
    safetensors.save_file({"word": np.arange(6)}, tmp_path / "model.safetensors")
    stored, file = open_weights(tmp_path)
    with pytest.raises(DataError, match="'word' is I64; only float32, float16, bfloat16 are read"):
        check_fit({"word": np.empty(6)}, stored, file, "a toy")


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_file_cut_off(kept, tmp_path):
    _, file = opened(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        DataError, match=r"model.safetensors: not a whole .safetensors file \(.*\); copy or fetch it again"
    ):
        open_weights(tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    for name in ("model.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 409988000\n")
        with pytest.raises(DataError, match=f"{name}: a pointer of Git LFS and not the file itself; fetch that"):
            open_weights(tmp_path)
        (tmp_path / name).unlink()


def test_weights_in_files_that_are_not_read_are_named(tmp_path):
    refuse_others(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(DataError, match="weights in model-00001-of-00002.safetensors, but neither .* nor an index"):
        refuse_others(tmp_path)
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(DataError, match="an adapter alone, as of LoRA, without its model; merge them"):
        refuse_others(tmp_path)


def shards(folder: Path, places: dict[str, str]) -> None:
    for file in set(places.values()):
        part = {name: TENSORS[name] for name in TENSORS if places.get(name) == file}
        write_safetensors(folder / file, part.items(), "float32")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards(tmp_path):
    shards(tmp_path, {"word": "a.safetensors", "bias": "b.safetensors"})
    stored, index = open_weights(tmp_path)
    assert index.name == "model.safetensors.index.json" and stored.keys() == TENSORS.keys()
    np.testing.assert_array_equal(stored["bias"].read(), TENSORS["bias"])
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    with pytest.raises(DataError, match="b.safetensors: no tensor 'bias', which model.safetensors.index.json says"):
        open_weights(tmp_path)
    write_safetensors(tmp_path / "b.safetensors", TENSORS.items(), "float32")
    with pytest.raises(DataError, match="'word' is in two of its shards"):
        open_weights(tmp_path)


def test_an_index_stays_in_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"word": "../a.safetensors"}}))
    with pytest.raises(DataError, match="no weight_map from tensors to the names of files beside it"):
        open_weights(tmp_path)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(DataError, match="neither model.safetensors nor pytorch_model.bin, nor an index of either's"):
        open_weights(tmp_path)
