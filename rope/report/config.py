"""What a report on encodings of positions is about."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from rope.positions.angles import SINUSOIDAL, schedule
from rope.positions.extension import Extension, check_fits
from training.ranges import check_ranges

Encoding = Literal["sinusoidal", "rotary", "axial", "mixed", "buckets", "golden", "sections", "spherical", "lie"]


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What encodings of positions do, as one page: `report.html`, its pictures, and the figures as JSON."""

    encodings: tuple[Encoding, ...] = get_args(Encoding)
    """Added sines and cosines; turned queries and keys; of images, an axis a half or both mixed; T5's buckets; of
    images too, even directions, an axis every other pair, spheres, and generators that are drawn."""
    theta: str = SINUSOIDAL
    """Frequencies: 10000^-t (any base), t^2 (any exponent), t."""
    compare: tuple[str, ...] = ("10000^-t", "1000^-t", "t^2", "t")
    """Frequencies whose decay is compared in one picture."""
    mixed_theta: str = "10^-t"
    """Frequencies of mixed positions, before they are learned, of golden and of spherical ones."""
    size: int = 64
    """Dimensions of a head, or of a sinusoidal vector."""
    length: int = 2048
    """Positions of a row."""
    side: int = 14
    """Cells of an image's side: axial and mixed."""
    extension: Extension = field(default_factory=lambda: Extension(factor=4))
    """How rotary positions go beyond the trained length; all methods are compared at its factor and window."""
    buckets: int = 32
    """T5's buckets."""
    max_distance: int = 128
    """T5: the distance from which on all share a bucket."""
    seed: int = 0
    """Of what is drawn: queries and keys, unequal diagonals, mixed directions, biases."""
    folder: str = "runs/positions"
    """Where report.html, figures.json and the pictures go."""

    def __post_init__(self):
        check_ranges(self, size=(2, 4097), length=(2, 8193), side=(2, 65), buckets=4, max_distance=2, seed=(0, 1 << 31))
        if not self.encodings or not self.compare:
            raise ValueError("encodings and compare must name one or more")
        for theta in (self.theta, self.mixed_theta, *self.compare):
            schedule(theta)
        images = [x for x in self.encodings if x in ("axial", "mixed")]
        if self.size % (4 if images else 2):
            wanted = f"a multiple of 4 for {' and '.join(images)} positions" if images else "even"
            raise ValueError(f"size is {self.size}: it must be {wanted}")
        if self.size < 4 and {"sections", "spherical"} & set(self.encodings):
            raise ValueError(f"size is {self.size}: it must be 4 or more for sections and spherical positions")
        if self.buckets % 4 or self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"{self.buckets} buckets up to distance {self.max_distance}: "
                "buckets must be a multiple of 4 and the distance more than half of them"
            )
        if self.extension.method == "hierarchical":
            raise ValueError(
                "extension.method is hierarchical, which continues learned positions: the report is on rotary ones"
            )
        check_fits(self.extension, self.size, self.theta)
        if self.extension.long_factors:
            replace(self.extension, method="longrope")  # which is compared then
