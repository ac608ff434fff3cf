"""A report on what encodings of positions do: pictures and figures, each beside the law that it checks."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rope import report_extensions, report_images, report_rows
from rope.angles import SINUSOIDAL, schedule
from rope.extension import Extension, base_of
from rope.report_page import Section, page
from training.ranges import check_ranges
from training.whole import write_bytes, write_json

Encoding = Literal["sinusoidal", "rotary", "axial", "mixed", "buckets"]

# Each section once, where any of its encodings is asked for, in the order of reading.
SECTIONS: dict[Callable[["ReportConfig"], Section], set[str]] = {
    report_rows.sinusoidal_scores: {"sinusoidal"},
    report_rows.rotary_scores: {"rotary"},
    report_rows.decay_and_limit: {"sinusoidal", "rotary"},
    report_rows.schedules: {"sinusoidal", "rotary"},
    report_rows.unequal_diagonal: {"sinusoidal"},
    report_extensions.bounds: {"rotary"},
    report_extensions.extensions: {"rotary"},
    report_images.images: {"axial", "mixed"},
    report_images.groups: {"axial", "mixed"},
    report_rows.buckets: {"buckets"},
}


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What encodings of positions do, as one page: `report.html`, its pictures, and the figures as JSON."""

    encodings: tuple[Encoding, ...] = ("sinusoidal", "rotary", "axial", "mixed", "buckets")
    """Added sines and cosines; turned queries and keys; of images, an axis a half or both mixed; T5's buckets."""
    theta: str = SINUSOIDAL
    """Frequencies: 10000^-t (any base), t^2 (any exponent), t."""
    compare: tuple[str, ...] = ("10000^-t", "1000^-t", "t^2", "t")
    """Frequencies whose decay is compared in one picture."""
    mixed_theta: str = "10^-t"
    """Frequencies of mixed positions, before they are learned."""
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
        check_ranges(self, size=2, length=(2, 8193), side=(2, 65), buckets=4, max_distance=2, seed=(0, 1 << 31))
        if not self.encodings or not self.compare:
            raise ValueError("encodings and compare must name one or more")
        for theta in (self.theta, self.mixed_theta, *self.compare):
            schedule(theta)
        images = [x for x in self.encodings if x in ("axial", "mixed")]
        if self.size % (4 if images else 2):
            wanted = f"a multiple of 4 for {' and '.join(images)} positions" if images else "even"
            raise ValueError(f"size is {self.size}: it must be {wanted}")
        if self.buckets % 4 or self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"{self.buckets} buckets up to distance {self.max_distance}: "
                "buckets must be a multiple of 4 and the distance more than half of them"
            )
        if self.extension.method in ("ntk", "dynamic", "yarn"):
            base_of(self.theta)


def position_report(config: ReportConfig, say: Callable[[str], None] = print) -> Path:
    """Makes the report and returns the page's path.

    Says each section's finding as it is made. Raises ValueError where the folder cannot be written to, before any work.
    """
    folder = Path(config.folder).absolute()
    check_folder(folder)
    made = []
    for section, encodings in SECTIONS.items():
        if encodings & set(config.encodings):
            made.append(section(config))
            say(f"{made[-1].title}: {made[-1].says}\n")
    for section in made:
        write_bytes(folder / f"{section.name}.png", section.picture)
    settings = {name: value for name, value in asdict(config).items() if name != "folder"}
    write_json(folder / "figures.json", {"config": settings, "figures": {s.name: dict(s.figures) for s in made}})
    e = config.extension
    shown = settings | {"extension": f"{e.method}, factor {e.factor:g}, trained {e.trained}, window {e.window}"}
    text = page(
        "Encodings of positions",
        "Each picture checks the formula above it; every number is of this run.",
        {
            name.replace("_", " "): ", ".join(value) if isinstance(value, tuple) else value
            for name, value in shown.items()
        },
        made,
    )
    write_bytes(folder / "report.html", text.encode())
    say(f"{folder / 'report.html'}")
    return folder / "report.html"


def check_folder(folder: Path) -> None:
    """Makes the folder. Raises ValueError where that, or writing there, is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, "Permission denied")
    except OSError as error:
        raise ValueError(f"folder is {folder}: it cannot be written to ({error.strerror})") from None
