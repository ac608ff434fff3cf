"""Labelled images of few classes, such as digits, from what is at hand.

| data                         | is                                                                                  |
|------------------------------|-------------------------------------------------------------------------------------|
| nothing                      | scikit-learn's 1,797 digits of 8 x 8 pixels, which come with it                     |
| a folder                     | all pairs of IDX files in it, as MNIST comes: `*-images-idx3-ubyte[.gz]` and labels |
| such a file                  | that pair alone                                                                     |
| a folder of pictures         | PNG and JPEG files in it, all of one size, labelled by their folders, if any        |
| `FILE.npz`                   | arrays `images` or `x_train`, and `labels` or `y_train`                             |
| `FILE.npy`                   | an array of images, all of one label                                                |
| `tfds:NAME[/CONFIG][:SPLIT]` | an already prepared dataset with the features `image` and `label`; split "train"    |

Arrays are [n, H, W], [n, H, W, channels] or [n, channels, H, W] of 1 or 3 channels; on pictures see
pictures.py.
"""

import gzip
import hashlib
import math
import re
import zipfile
import zlib
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.files.datasets import open_dataset
from training.files.errors import DataError
from training.files.pictures import pictures_in, read_pictures
from training.telling import tell

IDX_IMAGES, IDX_LABELS = 0x803, 0x801  # unsigned bytes, of three dimensions and of one
ARRAYS = (("images", "x_train"), ("labels", "y_train"))
NAME = re.compile(r"(.*)images([-.])idx3-ubyte(\.gz)?")


class Images(NamedTuple):
    pixels: np.ndarray  # float32 [n, H, W, channels], from 0 to 1
    labels: np.ndarray  # int32 [n], from 0


def fingerprint(*parts: Images) -> str:
    """sha256 of pixels and labels."""
    digest = hashlib.sha256()
    for array in chain.from_iterable(parts):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_images(data: str | None) -> Images:
    """What `data` names (see above). Raises DataError, one line with the file or dataset and the remedy."""
    if data is None:
        from sklearn.datasets import load_digits  # a second: only where it is used

        digits = load_digits()
        return _images("scikit-learn's digits", digits.images / 16, digits.target)
    if data.startswith("tfds:"):
        return _dataset(data)
    path = Path(data)
    if path.suffix in (".npy", ".npz"):
        return _arrays(path)
    pairs = [path] if path.is_file() else sorted(p for p in path.glob("*") if NAME.fullmatch(p.name))
    if not pairs:
        if pictures := pictures_in(path):
            return _images(data, *read_pictures(path, pictures))
        wanted = "no *-images-idx3-ubyte[.gz] and no pictures in it" if path.is_dir() else "no such file or folder"
        raise DataError(f"{data}: {wanted}; give MNIST's files or folder, a folder of pictures, an .npz, or tfds:NAME")
    found = [_idx_pair(pair) for pair in pairs]
    if len({pixels.shape[1:] for pixels, _ in found}) > 1:
        raise DataError(
            f"{data}: its files hold images of different sizes; name one of {', '.join(p.name for p in pairs)}"
        )
    pixels, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    return _images(data, pixels / 255, labels)


def _images(name: str, pixels: np.ndarray, labels: np.ndarray) -> Images:
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or not len(pixels) or len(pixels) != len(labels):
        raise DataError(f"{name}: images of shape {pixels.shape} with {len(labels)} labels; each needs one label")
    if not 0 <= labels.min() <= labels.max() < 1 << 31:
        raise DataError(f"{name}: labels from {labels.min()} to {labels.max()}; they must count from 0")
    return Images(pixels.astype(np.float32), labels.astype(np.int32))


def _arrays(path: Path) -> Images:
    if path.suffix == ".npz" and path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: no .npz, or a damaged one; numpy.savez writes them")
    try:
        file = np.load(path, allow_pickle=False)  # a pickle could run anything
        if path.suffix == ".npy":
            found, names = [file, None], ""
        else:
            with file:
                found = [next((file[n] for n in names if n in file), None) for names in ARRAYS]
                names = ", ".join(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: no arrays can be read from it ({error})") from error
    pixels, labels = found
    if pixels is None:
        raise DataError(f"{path}: no array {' or '.join(ARRAYS[0])}; it has: {names}")
    if pixels.dtype.kind not in "uif" or not np.isfinite(pixels).all():
        raise DataError(f"{path}: its images are {pixels.dtype}, or have a value that is no finite number")
    if pixels.ndim not in (3, 4):
        raise DataError(f"{path}: images of shape {pixels.shape}; they must be [n, H, W] or [n, H, W, channels]")
    if pixels.ndim == 4:
        pixels = _channels_last(path, pixels)
    if pixels.dtype.kind in "ui":
        if pixels.max(initial=0) > 1:
            pixels = pixels / 255
        else:
            tell(f"{path}: whole numbers 0 and 1 are taken for black and white, and not for bytes of 0 to 255")
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= 1:
        raise DataError(f"{path}: images from {pixels.min()} to {pixels.max()}; give bytes, or numbers from 0 to 1")
    labels = np.zeros(len(pixels), int) if labels is None else labels.reshape(-1)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels of {labels.dtype}; they must be integers")
    return _images(str(path), pixels, labels)


def _channels_last(path: Path, pixels: np.ndarray) -> np.ndarray:
    """[n, H, W, 1 or 3] of images whose channels are last or first. Raises DataError where either may be."""
    first, last = (pixels.shape[axis] in (1, 3) for axis in (1, 3))
    if first and last:
        _, a, b, c = pixels.shape
        raise DataError(
            f"{path}: images of shape {pixels.shape} are {a} x {b} with channels last, or {b} x {c} with channels "
            "first; save those of one channel as [n, H, W], or pad them to other sides"
        )
    if not first and not last:
        raise DataError(f"{path}: images of shape {pixels.shape}; their channels, 1 or 3, must be last or first")
    if first:
        tell(f"{path}: images of shape {pixels.shape} have their channels first")
    return np.moveaxis(pixels, 1, 3) if first else pixels


def _idx_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [n, H, W] and labels [n] of a file of images and the labels beside it, compressed or not."""
    if not (name := NAME.fullmatch(path.name)):
        raise DataError(f"{path}: not named as MNIST's files are, such as t10k-images-idx3-ubyte.gz")
    names = [f"{name[1]}labels{name[2]}idx1-ubyte{end}" for end in ("", ".gz")]
    beside = [path.with_name(n) for n in names if path.with_name(n).exists()]
    if not beside:
        raise DataError(f"{path}: no {names[0]}[.gz] beside it with the labels")
    images, labels = read_idx(path, IDX_IMAGES), read_idx(beside[0], IDX_LABELS)
    if len(images) != len(labels):
        raise DataError(f"{beside[0]}: {len(labels):,} labels for the {len(images):,} images of {path.name}")
    return images, labels


def read_idx(path: Path, magic: int) -> np.ndarray:
    """The uint8 array of an IDX file: a magic number whose last byte counts the dimensions, their sizes, the values.

    Raises DataError, one line with the file, where it is another kind of file or has too few or too many bytes.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: broken or truncated gzip ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    begin = 4 + 4 * (magic & 0xFF)
    head = np.frombuffer(content[: len(content[:begin]) // 4 * 4], ">u4")
    if not len(head) or head[0] != magic:
        raise DataError(
            f"{path}: begins with {content[:4].hex() or 'nothing'}, an IDX file of this kind with {magic:08x}"
        )
    shape = tuple(map(int, head[1:]))
    if len(content) < begin or len(content) != begin + math.prod(shape):
        raise DataError(f"{path}: {len(content):,} bytes, where its sizes {shape} need {begin + math.prod(shape):,}")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def _dataset(name: str) -> Images:
    dataset, _, split = name.removeprefix("tfds:").partition(":")
    source, builder = open_dataset(dataset, split or "train", name)
    if missing := {"image", "label"} - {*builder.info.features}:
        raise DataError(
            f"{name}: no feature {' and '.join(sorted(missing))}; it has: {', '.join(builder.info.features)}"
        )
    examples = [source[n] for n in range(len(source))]
    if len(shapes := {example["image"].shape for example in examples}) != 1:
        raise DataError(f"{name}: {len(shapes)} sizes of images; all must have one size")
    return _images(name, np.stack([e["image"] for e in examples]) / 255, np.array([e["label"] for e in examples]))


def split_images(images: Images, *held: int) -> list[Images]:
    """Parts of so many images, and the rest, by a hash of the pixels: no seed and no order of the file changes them.

    An image that comes twice is taken once. Raises DataError where nothing is left to train on.
    """
    ranks: dict[bytes, int] = {}
    for number, pixels in enumerate(images.pixels):
        ranks.setdefault(hashlib.sha256(np.ascontiguousarray(pixels).data).digest(), number)
    order = [number for _, number in sorted(ranks.items())]
    if len(order) <= sum(held):
        raise DataError(
            f"{len(order):,} different images, and {sum(held):,} of them are held out; give more, or hold out fewer"
        )
    ends = [0, *np.cumsum(held), len(order)]
    return [Images(*(part[order[begin:end]] for part in images)) for begin, end in pairwise(ends)]
