"""A report on what encodings of positions do: pictures and figures, each beside the law that it checks."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rope.report import extensions, images, laws, rows
from rope.report.config import ReportConfig
from training.experiment.page import Section
from training.experiment.report import write_report
from training.files.buckets import disk_path
from training.telling import tell

# Each section once, where any of its encodings is asked for, in the order of reading.
SECTIONS: dict[Callable[[ReportConfig], Section], set[str]] = {
    rows.sinusoidal_scores: {"sinusoidal"},
    rows.rotary_scores: {"rotary"},
    rows.decay_and_limit: {"sinusoidal", "rotary"},
    rows.schedules: {"sinusoidal", "rotary"},
    rows.unequal_diagonal: {"sinusoidal"},
    extensions.bounds: {"rotary"},
    extensions.extensions: {"rotary"},
    images.images: {"axial", "mixed"},
    images.groups: {"axial", "mixed"},
    laws.laws: {"golden", "sections", "spherical", "lie"},
    rows.buckets: {"buckets"},
}


def position_report(config: ReportConfig) -> Path:
    """Makes the report and returns the page's path.

    Says each section's finding as it is made. Raises ValueError where the folder cannot be written to, before any work.
    """
    folder = disk_path(config.folder, "--folder").absolute()
    check_folder(folder)
    made = []
    for make, encodings in SECTIONS.items():
        if encodings & set(config.encodings):
            made.append(make(config))
            tell(f"{made[-1].title}: {made[-1].says}\n")
    settings = {name: value for name, value in asdict(config).items() if name != "folder"}
    e = config.extension
    write_report(
        folder,
        "figures",
        "Encodings of positions",
        made,
        settings | {"extension": f"{e.method}, factor {e.factor:g}, trained {e.trained}, window {e.span}"},
        lead="Each picture checks the formula above it; every number is of this run.",
        json={"config": settings, "figures": {s.name: dict(s.figures) for s in made}},
    )
    tell(f"{folder / 'report.html'}")
    return folder / "report.html"


def check_folder(folder: Path) -> None:
    """Makes the folder. Raises ValueError where that, or writing there, is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, "Permission denied")
    except OSError as error:
        raise ValueError(f"folder is {folder}: it cannot be written to ({error.strerror})") from None
