"""The config of a ViT, and which sizes of heads and width its positions need."""

from dataclasses import dataclass
from typing import Literal

from rope.layers.transformer import TransformerConfig
from rope.positions.angles import schedule
from training.ranges import check_ranges

Positions = Literal[
    "axial",
    "mixed",
    "flat",
    "sinusoidal",
    "learned",
    "none",
    "mixed-layers",
    "golden",
    "normalised",
    "spherical",
    "lie",
]

# What a head's size must be a multiple of, what it must not be below, and what the model's width is a multiple of.
HEADS = {"axial": 4, "normalised": 4, "mixed": 2, "mixed-layers": 2, "golden": 2, "flat": 2}
LEAST = {"spherical": 3, "lie": 2}
WIDTHS = {"sinusoidal": 4}


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    norm: Literal["post", "pre"] = "pre"
    """LayerNorm before each branch, as ViT has it, and once after the last."""
    epsilon: float = 1e-6
    """LayerNorm's epsilon."""
    patch: int = 16
    """Height and width of a patch in pixels."""
    channels: int = 3
    """Of an image: 1 grey, 3 colours."""
    classes: int = 1000
    """Of the classification."""
    positions: Positions = "axial"
    """axial: rotary, half of a head by row and half by column; mixed: rotary, each pair by a learned direction; flat:
    rotary, by number in reading order; sinusoidal: half of the width by row and half by column, added; learned: a
    table, added; none; mixed-layers: mixed, each layer its own; golden: as mixed, by even directions, not learned;
    normalised: axial, the image from -1 to 1, stretched at random in training; spherical: triplets of a head on
    spheres, learned; lie: all of a head by learned generators."""
    theta: str = "100^-t"
    """Frequencies of all but learned ones: 100^-t, 10^-t, … An image has tens of patches a side where a text has
    thousands of tokens, so the base is smaller."""
    grid: tuple[int, int] = (14, 14)
    """learned: rows and columns of the table, in patches; other images interpolate it."""
    shift: float = 0.0
    """normalised, in training: each axis is moved by up to so much, of an image from -1 to 1."""
    jitter: float = 1.0
    """normalised, in training: each axis is stretched by up to so much, or its inverse; 1 changes nothing."""
    rescale: float = 2.0
    """normalised, in training: both axes are stretched alike by up to so much, or its inverse; 1 changes nothing."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, patch=1, channels=1, classes=1, shift=0, jitter=1, rescale=1)
        schedule(self.theta)
        if min(self.grid) < 1:
            raise ValueError(f"grid is {self.grid}: it must be 1 x 1 or more")
        multiples = HEADS.get(self.positions, 1), WIDTHS.get(self.positions, 1)
        sizes = {"width / heads": self.head_size, "width": self.width}
        for (label, value), multiple in zip(sizes.items(), multiples, strict=True):
            if value % multiple:
                wanted = "an even head size" if multiple == 2 else f"a multiple of {multiple}, pairs for both axes"
                raise ValueError(f"{label} is {value}: {self.positions} positions need {wanted}")
        if self.head_size < (least := LEAST.get(self.positions, 1)):
            raise ValueError(
                f"width / heads is {self.head_size}: {self.positions} positions turn {least} dimensions together"
            )
