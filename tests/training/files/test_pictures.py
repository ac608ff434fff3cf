"""Pictures as they come from elsewhere: transparent, turned, under other names, of any mode; and their labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.listening import listening
from training.files.errors import DataError
from training.files.images import read_images

INK = np.zeros((4, 6), bool)
INK[1:3, 2] = True


def save(path: Path, pixels, mode: str | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def inked(ink, seed: int = 0, opacity: int = 255) -> np.ndarray:
    """uint8 [H, W, 4]: ink of one colour, and round it any colours that are not seen."""
    pixels = np.random.default_rng(seed).integers(256, size=(*INK.shape, 4), dtype=np.uint8)
    pixels[..., 3] = opacity * INK
    pixels[INK, :3] = ink
    return pixels


@pytest.mark.parametrize(
    "ink, ground", [(0, 1.0), (255, 0.0), (90, 1.0), ((200, 0, 0), 1.0), (235, 0.0), ((255, 255, 120), 1.0)]
)
def test_what_is_transparent_is_laid_on_the_ground_that_shows_the_ink(tmp_path, ink, ground):
    for seed in range(2):
        save(tmp_path / f"{seed}.png", inked(ink, seed))
    with listening() as told:
        found = read_images(str(tmp_path)).pixels
    assert found.shape == (2, 4, 6, 3)
    np.testing.assert_allclose(found[:, INK], np.broadcast_to(np.array(ink) / 255, (2, 2, 3)), atol=1e-6)
    assert (found[:, ~INK] == ground).all()
    assert told == [f"{tmp_path}: transparent pictures are laid on {'white' if ground else 'black'}"]


def test_half_of_an_ink_is_half_of_the_ground(tmp_path):
    save(tmp_path / "a.png", inked(0, opacity=128))
    np.testing.assert_allclose(read_images(str(tmp_path)).pixels[0, INK], 1 - 128 / 255, atol=1e-6)


def test_inks_that_need_two_grounds_are_refused(tmp_path):
    save(tmp_path / "dark.png", inked(0))
    save(tmp_path / "light.png", inked(255))
    with pytest.raises(DataError, match=r"light\.png: transparent, and not to be seen on white, as .*dark\.png is not"):
        read_images(str(tmp_path))


def test_what_is_opaque_or_wholly_transparent_decides_no_ground(tmp_path):
    save(tmp_path / "0.png", np.full((4, 6, 4), 255, np.uint8))
    with listening() as told:
        assert (read_images(str(tmp_path)).pixels == 1).all() and not told
    save(tmp_path / "1.png", np.zeros((4, 6, 4), np.uint8))
    save(tmp_path / "2.png", inked(255))
    assert (read_images(str(tmp_path)).pixels[1] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("end", ["jpg", "png"])
def test_pictures_are_turned_as_their_exif_says(tmp_path, orientation, end):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # in the corner at the top, left
    # How a camera that was held so has it: https://exiftool.org/TagNames/EXIF.html, Orientation.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright.T[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / f"a.{end}", stored, exif=exif)
    np.testing.assert_allclose(read_images(str(tmp_path)).pixels[0, ..., 0], upright / 255, atol=0.02)


def test_files_are_read_by_what_is_in_them(tmp_path):
    flat = np.full((8, 8), 51, np.uint8)
    save(tmp_path / "0.png", flat)
    save(tmp_path / "1.png", flat, format="JPEG")
    save(tmp_path / "2.JPG", flat, format="PNG")
    save(tmp_path / "3.png" / "in a folder.png", flat)
    (tmp_path / "4.png").mkdir()
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves")
    found = read_images(str(tmp_path))
    np.testing.assert_allclose(found.pixels, np.full((4, 8, 8, 1), 0.2), atol=0.01)
    assert found.labels.tolist() == [0, 0, 0, 1]


RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)
MODES = {
    "16 bits": (RAMP.astype(np.uint16) * 257, None, {}, RAMP / 255),
    "black and white": (Image.fromarray(RAMP > 100), None, {}, RAMP > 100),
    "palette": (Image.fromarray(COLOURS).quantize(24), None, {}, COLOURS / 255),
    "transparent palette": (
        Image.fromarray(COLOURS).quantize(24),
        None,
        {"transparency": bytes(24)},  # all of it
        np.ones((4, 6, 3)),
    ),
    "grey with opacity": (np.stack([0 * RAMP, RAMP], -1), None, {}, 1 - RAMP / 255),
    "grey with a transparent one": (np.where(INK, 0, 77).astype(np.uint8), None, {"transparency": 77}, ~INK),
    "CMYK": (Image.fromarray(np.full((4, 6, 3), (255, 0, 51), np.uint8)), "CMYK", {"format": "JPEG"}, (1, 0, 0.2)),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(name, tmp_path):
    pixels, mode, options, expected = MODES[name]
    save(tmp_path / "a.png", pixels, mode, **options)
    found = read_images(str(tmp_path)).pixels[0]
    expected = np.asarray(expected, float)
    expected = expected[..., None] if expected.shape == RAMP.shape else expected
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.012)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: damaged(save(path, COLOURS)), "no picture can be read from it"),
        (lambda path: path.write_bytes(b""), "no picture can be read from it"),
        (lambda path: save(path, np.zeros((4, 6), np.float32), format="TIFF"), "no picture can be read from it"),
        (
            lambda path: save(
                path, RAMP, format="GIF", save_all=True, append_images=[Image.fromarray(RAMP[::-1].copy())]
            ),
            "2 pictures in one file",
        ),
        (lambda path: save(path, RAMP.astype(np.uint16), transparency=0), "mode I;16 with transparency"),
    ],
)
def test_what_is_no_picture_is_refused_by_name_and_nobody_told_to_delete_it(tmp_path, make, message):
    make(path := tmp_path / "a.png")
    with pytest.raises(DataError, match=message) as error:
        read_images(str(tmp_path))
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert "delete" not in str(error.value)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    save(tmp_path / "a.png", RAMP)
    with pytest.raises(DataError, match=r"a\.png: no picture can be read from it \(DecompressionBombError"):
        read_images(str(tmp_path))


def labels_of(folder: Path, *names: str) -> list[int]:
    for number, name in enumerate(names):
        save(folder / name / f"{number}.png", RAMP)
    return read_images(str(folder)).labels.tolist()


def test_train_and_test_are_parts_and_no_labels(tmp_path):
    parts = [f"{part}/{label}" for part in ("testing", "Training") for label in range(3)]
    assert sorted(labels_of(tmp_path / "both", *parts)) == [0, 0, 1, 1, 2, 2]
    assert read_images(str(tmp_path / "both" / "testing")).labels.tolist() == [0, 1, 2]
    assert labels_of(tmp_path / "parts", "train", "test") == [0, 0]
    assert labels_of(tmp_path / "split below", "a/train", "a/test", "b/train") == [0, 0, 1]
    assert labels_of(tmp_path / "deeper", "x/a", "x/b", "y/c") == [0, 1, 2]


def test_folders_of_one_name_under_others_are_refused(tmp_path):
    with pytest.raises(DataError, match="cats/small and dogs/small may be one label or two"):
        labels_of(tmp_path, "cats/small", "cats/large", "dogs/small")
