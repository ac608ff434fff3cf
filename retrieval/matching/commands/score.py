"""What scripts.match_anonymised score does."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.matching import score as scoring
from retrieval.matching.pairs import Wanted, read_rows
from training.experiment.report import png
from training.files.atomic import write_bytes
from training.files.errors import DataError
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Tell how good predictions are against labels."""

    data: str
    """Labelled pairs."""
    predictions: str
    """What predict wrote of the same rows."""
    picture: str = ""
    """A .png of calibration and ROC."""
    numbers: bool = False
    """Texts must be numbers between blanks."""


def score(config: ScoreConfig) -> None:
    """Tells AUC, accuracy and calibration. Raises DataError."""
    rows = [row for row in read_rows(config.data, Wanted(config.numbers, labels=True)) if row]
    labels = np.array([row.label for row in rows], np.float64)
    lines = Path(config.predictions).read_text(encoding="utf-8").splitlines()
    if len(lines) != len(rows):
        raise DataError(f"{config.predictions}: {len(lines):,} lines, and {config.data} has {len(rows):,} rows")
    usable = np.array([line != "" for line in lines])
    try:
        scores = np.array([float(line) for line in lines if line])
    except ValueError as error:
        raise DataError(f"{config.predictions}: {error}; give what predict wrote") from None
    if not np.isfinite(scores).all():
        raise DataError(f"{config.predictions}: a score is not finite; predict again")
    labels = labels[usable]
    found, area = scoring.score(scores, labels), scoring.auc_interval(scores, labels)
    tell(
        f"AUC {area.text(4)}; accuracy {found.accuracy:.4f} at {found.threshold:.4f}; calibration error "
        f"{found.calibration:.4f}; {len(labels):,} rows, {int(labels.sum()):,} alike, "
        f"{int((~usable).sum()):,} without score"
    )
    if config.picture:
        write_bytes(Path(config.picture), png(scoring.picture(found, scores, labels)))
        tell(f"{config.picture}: calibration and ROC")
