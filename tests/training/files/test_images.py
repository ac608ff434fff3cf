"""Labelled images: IDX files, scikit-learn's digits, a prepared dataset, and parts that do not meet."""

import gzip
import io
import struct

import numpy as np
import pytest

from training.files.errors import DataError
from training.files.images import IDX_IMAGES, IDX_LABELS, Images, read_idx, read_images, split_images


def idx(magic, array):
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes()


def write_pair(folder, name, pixels, labels, end=""):
    write = (lambda path, content: path.write_bytes(gzip.compress(content))) if end else lambda p, c: p.write_bytes(c)
    write(folder / f"{name}-images-idx3-ubyte{end}", idx(IDX_IMAGES, pixels))
    write(folder / f"{name}-labels-idx1-ubyte{end}", idx(IDX_LABELS, labels))


@pytest.fixture
def pair(tmp_path):
    random = np.random.default_rng(0)
    pixels, labels = random.integers(256, size=(7, 4, 6)), np.arange(7) % 3
    write_pair(tmp_path, "t10k", pixels, labels, ".gz")
    return tmp_path, pixels, labels


def test_a_file_and_a_folder_of_several_are_read(pair):
    folder, pixels, labels = pair
    for data in (folder, folder / "t10k-images-idx3-ubyte.gz"):
        found = read_images(str(data))
        np.testing.assert_array_equal(found.pixels, (pixels / 255).astype(np.float32)[..., None])
        np.testing.assert_array_equal(found.labels, labels)
    write_pair(folder, "train", pixels[:2], labels[:2])
    np.testing.assert_array_equal(read_images(str(folder)).labels, [*labels, *labels[:2]])
    write_pair(folder, "small", pixels[:2, :3], labels[:2])
    with pytest.raises(ValueError, match="images of different sizes; name one of small-images"):
        read_images(str(folder))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images-idx3", lambda c: gzip.compress(c)[:-20], "broken or truncated gzip"),
        ("images-idx3", lambda c: b"not gzip", "broken or truncated gzip"),
        ("images-idx3", lambda c: gzip.compress(c[:-1]), r"183 bytes, where its sizes \(7, 4, 6\) need 184"),
        ("images-idx3", lambda c: gzip.compress(c + b"0"), "185 bytes"),
        ("images-idx3", lambda c: gzip.compress(c[:10]), r"10 bytes, where its sizes \(7,\) need"),
        ("images-idx3", lambda c: gzip.compress(b""), "begins with nothing"),
        ("images-idx3", lambda c: gzip.compress(idx(IDX_LABELS, np.zeros(3))), "begins with 00000801.* 00000803"),
        ("labels-idx1", lambda c: gzip.compress(idx(IDX_LABELS, np.zeros(6))), "6 labels for the 7 images of t10k"),
        ("labels-idx1", None, "no t10k-labels-idx1-ubyte.* beside it"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(pair, name, change, message):
    path = pair[0] / f"t10k-{name}-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(change(content)) if change else path.unlink()
    with pytest.raises(ValueError, match=message) as found:
        read_images(str(pair[0]))
    assert "\n" not in str(found.value) and str(pair[0]) in str(found.value)


def test_what_is_not_there_is_said(tmp_path):
    for data, message in (
        (tmp_path, "no .*-images-idx3-ubyte"),
        (tmp_path / "missing", "no such file or folder"),
    ):
        with pytest.raises(ValueError, match=message):
            read_images(str(data))
    (tmp_path / "digits.png").write_bytes(b"")
    with pytest.raises(ValueError, match="not named as MNIST's files are"):
        read_images(str(tmp_path / "digits.png"))
    with pytest.raises(ValueError, match="No such file"):
        read_idx(tmp_path / "gone", IDX_IMAGES)


@pytest.mark.parametrize(
    "save, message",
    [
        (lambda file: np.save(file, np.zeros((3, 2, 2))), "no .npz, or a damaged one"),
        (lambda file: file.write(b"text"), "no .npz, or a damaged one"),
        (lambda file: np.savez(file, images=np.float32(1)), r"images of shape \(\)"),
        (lambda file: np.savez(file, images=np.zeros((3, 2, 2), complex)), "its images are complex128"),
        (lambda file: np.savez(file, images=np.full((3, 2, 2), np.nan)), "no finite number"),
        (lambda file: np.savez(file, images=np.array([None] * 3)), "no arrays can be read"),
        (lambda file: np.savez(file, x=np.zeros((3, 2, 2))), "no array images or x_train; it has: x"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, save, message):
    with open(path := tmp_path / "images.npz", "wb") as file:
        save(file)
    with pytest.raises(ValueError, match=message) as error:
        read_images(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_integers_are_bytes_or_black_and_white(tmp_path):
    for most in (255, 1):
        np.savez(tmp_path / "images.npz", images=np.uint8([[[0, most], [most, 0]]]))
        np.testing.assert_array_equal(read_images(str(tmp_path / "images.npz")).pixels[0, :, :, 0], [[0, 1], [1, 0]])


def test_digits_come_with_scikit_learn():
    pytest.importorskip("sklearn")
    found = read_images(None)
    assert found.pixels.shape == (1797, 8, 8, 1) and found.pixels.dtype == np.float32
    assert (found.pixels.min(), found.pixels.max()) == (0, 1) and set(found.labels) == {*range(10)}


def test_parts_do_not_meet_and_no_order_changes_them():
    random = np.random.default_rng(0)
    images = Images(random.random((30, 4, 4, 1), np.float32), np.arange(30, dtype=np.int32))
    parts = split_images(images, 8, 4)
    assert [len(part.labels) for part in parts] == [8, 4, 18]
    assert sorted(np.concatenate([part.labels for part in parts])) == [*range(30)]
    order = [*random.permutation(30), 3, 4, 5]  # three come twice
    other = split_images(Images(images.pixels[order], images.labels[order]), 8, 4)
    for one, same in zip(parts, other, strict=True):
        np.testing.assert_array_equal(one.pixels, same.pixels)
        np.testing.assert_array_equal(one.labels, same.labels)
    with pytest.raises(ValueError, match="30 different images, and 30 of them are held out"):
        split_images(images, 20, 10)


def test_a_prepared_dataset_is_read_without_tensorflow(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from PIL import Image

    class TinyDigits(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(5), "test": self._generate_examples(2)}

        def _generate_examples(self, n):
            for i in range(n):
                file = io.BytesIO()  # as a PNG: to encode an array would take TensorFlow
                Image.fromarray(np.full((4, 4), 51 * i, np.uint8)).save(file, "png")
                yield i, {"image": io.BytesIO(file.getvalue()), "label": i % 3}

    TinyDigits(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))  # read from TFDS_DATA_DIR at import
    found = read_images("tfds:tiny_digits")
    assert found.pixels.shape == (5, 4, 4, 1) and len(read_images("tfds:tiny_digits:test").labels) == 2
    order = np.argsort(found.pixels[:, 0, 0, 0])
    np.testing.assert_allclose(found.pixels[order, 3, 3, 0], [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)
    np.testing.assert_array_equal(found.labels[order], [0, 1, 2, 0, 1])
    for name, message in {
        "tfds:no_such_dataset": "not found",
        "tfds:tiny_digits:validation": "validation",
        "tfds:mnist": "nothing in",
    }.items():
        with pytest.raises(ValueError, match=f"not readable.*{message}.*tfds build") as error:
            read_images(name)
        assert "\n" not in str(error.value)


def test_arrays_of_an_npz(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(5)[:, None])
    found = read_images(str(tmp_path / "a.npz"))
    np.testing.assert_allclose(found.pixels[..., 0], pixels / 255, atol=1e-6)
    np.testing.assert_array_equal(found.labels, np.arange(5))
    np.savez(tmp_path / "b.npz", images=pixels / 255)  # without labels all are of one
    assert set(read_images(str(tmp_path / "b.npz")).labels) == {0}


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_of_an_npz_are_last_or_first(tmp_path, channels):
    pixels = np.random.default_rng(0).random((5, 4, 6, channels), np.float32)
    for order in (pixels, pixels.transpose(0, 3, 1, 2)):
        np.savez(tmp_path / "a.npz", images=order)
        np.testing.assert_array_equal(read_images(str(tmp_path / "a.npz")).pixels, pixels)


BAD_ARRAYS = {
    "another name": ({"pixels": np.zeros((2, 2, 2))}, "no array images or x_train; it has: pixels"),
    "a pickle": ({"images": np.array([{}, {}], object)}, "no arrays can be read from it"),
    "no number": ({"images": np.full((2, 2, 2), np.nan)}, "a value that is no finite number"),
    "another range": (
        {"images": np.full((2, 2, 2), 7.0)},
        "images from 7.0 to 7.0; give bytes, or numbers from 0 to 1",
    ),
    "labels in words": ({"images": np.zeros((2, 2, 2)), "labels": np.array(["a", "b"])}, "they must be integers"),
    "labels below 0": (
        {"images": np.zeros((2, 2, 2)), "labels": np.array([-1, 1])},
        "labels from -1 to 1; they must count from 0",
    ),
    "labels too large": ({"images": np.zeros((2, 2, 2)), "labels": np.array([0, 1 << 32])}, "they must count from 0"),
    "channels at either end": (
        {"images": np.zeros((2, 3, 8, 1))},
        "(2, 3, 8, 1) are 3 x 8 with channels last, or 8 x 1 with channels first",
    ),
    "opacity": ({"images": np.zeros((2, 8, 8, 4))}, "their channels, 1 or 3, must be last or first"),
    "fewer labels": ({"images": np.zeros((2, 2, 2)), "labels": np.zeros(1, int)}, "with 1 labels"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_an_npz_that_is_no_set_of_images(kind, tmp_path):
    arrays, expected = BAD_ARRAYS[kind]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as error:
        read_images(str(tmp_path / "a.npz"))
    assert expected in str(error.value) and "a.npz" in str(error.value)


def test_a_folder_of_pictures(tmp_path):
    from matplotlib.image import imsave

    pixels = np.random.default_rng(0).random((4, 3, 5, 3))
    for n, image in enumerate(pixels):
        (tmp_path / f"class {n // 2}").mkdir(exist_ok=True)
        imsave(tmp_path / f"class {n // 2}" / f"{n}.png", image)
    found = read_images(str(tmp_path))
    np.testing.assert_allclose(found.pixels, pixels, atol=1 / 255)
    np.testing.assert_array_equal(found.labels, [0, 0, 1, 1])
    imsave(tmp_path / "class 1" / "4.png", pixels[0, :2])
    with pytest.raises(DataError, match=r"4\.png: \(2, 5, 3\), where 0\.png is \(3, 5, 3\); all must have one size"):
        read_images(str(tmp_path))
    (tmp_path / "class 1" / "4.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"4\.png: no picture can be read from it"):
        read_images(str(tmp_path))
