"""A folder of pictures as pixels and labels: as a viewer shows them, whatever their names, modes and orientation.

Pictures with transparency are all laid on one ground: white, as on a page; or black, where some would not be seen on
white. A picture's label is the name of its folder; `train` and `test` and the like above or instead of it are none.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.files.errors import DataError, line
from training.telling import tell

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # that are read under such a name
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}  # Pillow's, and as what
CLEAR = {"1": "LA", "L": "LA", "LA": "LA", "P": "RGBA", "PA": "RGBA", "RGB": "RGBA", "RGBA": "RGBA"}  # transparent ones
DEEP = ("I", "I;16", "I;16B", "I;16L")  # greys of 16 bits
PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")
GROUNDS = {"white": 1.0, "black": 0.0}
SEEN = 0.25  # how far from its ground some of a picture must be


def pictures_in(folder: Path) -> list[Path]:
    """PNG and JPEG files in it and its folders, by their names; none that are hidden, as macOS puts beside others."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def read_pictures(folder: Path, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, H, W, 1 or 3] from 0 to 1 and int [n], of pictures that are all of one size.

    Raises DataError, one line with the file, for what is no picture, or one that might be read in two ways.
    """
    labels, found, shape = _labels(folder, paths), list[np.ndarray](), None
    for path in paths:
        pixels = _pixels(path)
        seen = (*pixels.shape[:2], pixels.shape[2] - _alpha(pixels))
        if seen != (shape := shape or seen):
            raise DataError(f"{path}: {seen}, where {paths[0].name} is {shape}; all must have one size")
        found.append(pixels)
    return np.stack(_on_ground(folder, paths, found)), labels


def _alpha(pixels: np.ndarray) -> int:
    """How many of the channels are of opacity: one of greys' 2 and colours' 4."""
    return int(pixels.shape[2] in (2, 4))


def _pixels(path: Path) -> np.ndarray:
    """float32 [H, W, channels] from 0 to 1, opacity last where some of the picture is not opaque."""
    from PIL import Image, ImageOps

    Image.init()  # else it knows some of the formats alone
    try:
        with Image.open(path, formats=FORMATS) as opened:
            several = getattr(opened, "n_frames", 1)
            if several > 1 and opened.format != "MPO":  # as phones write, and of which the first is the picture
                raise ValueError(f"{several} pictures in one file")
            image = ImageOps.exif_transpose(opened)
        clear = image.has_transparency_data
        if image.mode in DEEP and not clear:
            return np.asarray(image, np.float32)[..., None] / 65535
        if not (mode := (CLEAR if clear else MODES).get(image.mode)):
            raise ValueError(f"mode {image.mode}{' with transparency' * clear}; save it as an ordinary PNG")
        pixels = np.asarray(image.convert(mode), np.float32) / 255
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise DataError(f"{path}: no picture can be read from it ({line(error)}); mend it, or move it away") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels[..., :-1] if clear and pixels[..., -1].min() == 1 else pixels


def _on_ground(folder: Path, paths: Sequence[Path], found: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The pictures without transparency, all on the ground on which none is lost that would be seen on the other."""
    if not any(map(_alpha, found)):
        return [*found]
    lost: dict[str, Path] = {}  # by ground, the first
    for path, pixels in zip(paths, found, strict=True):
        if _alpha(pixels):
            white, black = (float(abs(_laid(pixels, ground) - ground).max()) for ground in GROUNDS.values())
            if min(white, black) < SEEN and white != black:
                lost.setdefault("white" if white < black else "black", path)
    if len(lost) == len(GROUNDS):
        raise DataError(
            f"{lost['white']}: transparent, and not to be seen on white, as {lost['black']} is not on black; "
            "lay the pictures on a ground of their own first"
        )
    ground = "black" if "white" in lost else "white"
    tell(f"{folder}: transparent pictures are laid on {ground}")
    return [_laid(pixels, GROUNDS[ground]) for pixels in found]


def _laid(pixels: np.ndarray, ground: float) -> np.ndarray:
    if not _alpha(pixels):
        return pixels
    opacity = pixels[..., -1:]
    return pixels[..., :-1] * opacity + ground * (1 - opacity)


def _labels(folder: Path, paths: Sequence[Path]) -> np.ndarray:
    below = [path.relative_to(folder).parts[:-1] for path in paths]
    names = [tuple(part for part in parts if part.lower() not in PARTS) for parts in below]
    by_name: dict[tuple[str, ...], tuple[str, ...]] = {}
    for name in names:
        if name != (other := by_name.setdefault(name[-1:], name)):
            raise DataError(
                f"{folder}: {'/'.join(other)} and {'/'.join(name)} may be one label or two; "
                "give one folder a name of its own, or --data a folder that has one of them"
            )
    numbers = {name: number for number, name in enumerate(sorted({*names}))}
    return np.array([numbers[name] for name in names])
