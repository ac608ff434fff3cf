"""What scripts.match_anonymised score does."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pegasus_zh.text.documents import OnBadRecord
from retrieval.matching import score as scoring
from retrieval.matching.pairs import Wanted, read_rows, told
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
    on_bad_record: OnBadRecord = "stop"
    """skip: rows that cannot be used are left out, with their lines of the predictions; counted by reason."""


def score(config: ScoreConfig) -> None:
    """Tells AUC, accuracy and calibration. Raises DataError."""
    bad: Counter[str] = Counter()
    rows = [*read_rows(config.data, Wanted(numbers=False, labels=True), config.on_bad_record, bad)]
    lines = Path(config.predictions).read_text(encoding="utf-8").splitlines()
    if len(lines) != len(rows):
        raise DataError(f"{config.predictions}: {len(lines):,} lines, and {config.data} has {len(rows):,} rows")
    if bad:
        tell(f"{config.data}: left out {told(bad)}")
    usable = [(row.label, line) for row, line in zip(rows, lines, strict=True) if row and line]
    labels = np.array([label for label, _ in usable], np.float64)
    try:
        scores = np.array([float(line) for _, line in usable])
    except ValueError as error:
        raise DataError(f"{config.predictions}: {error}; give what predict wrote") from None
    if not np.isfinite(scores).all():
        raise DataError(f"{config.predictions}: a score is not finite; predict again")
    found, area = scoring.score(scores, labels), scoring.auc_interval(scores, labels)
    tell(
        f"AUC {area.text(4)}; accuracy {found.accuracy:.4f} at {found.threshold:.4f}; calibration error "
        f"{found.calibration:.4f}; {len(labels):,} rows, {int(labels.sum()):,} alike, "
        f"{sum(map(bool, rows)) - len(labels):,} without score"
    )
    if config.picture:
        write_bytes(Path(config.picture), png(scoring.picture(found, scores, labels)))
        tell(f"{config.picture}: calibration and ROC")
