"""What scripts.match_anonymised score does."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pegasus_zh.text.documents import OnBadRecord
from retrieval.matching import score as scoring
from retrieval.matching.pairs import Wanted, read_rows, told
from training.experiment.report import png
from training.files.atomic import check_out_file, write_bytes
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Tell how good predictions are against labels: of a file's rows, or of what folds held out."""

    data: str = ""
    """Labelled pairs."""
    predictions: str = ""
    """What predict wrote of the same rows."""
    heldout: tuple[str, ...] = ()
    """Instead of these, heldout.tsv of folds of train."""
    picture: str = ""
    """A .png of calibration and ROC."""
    on_bad_record: OnBadRecord = "stop"
    """skip: rows that cannot be used are left out, with their lines of the predictions; counted by reason."""

    def __post_init__(self):
        if bool(self.data and self.predictions) == bool(self.heldout) or bool(self.data) != bool(self.predictions):
            raise ValueError("predictions of what? give --data and --predictions, or --heldout alone")


def score(config: ScoreConfig) -> None:
    """Tells AUC, accuracy and calibration. Raises DataError."""
    if config.picture:
        check_out_file(disk_path(config.picture, "--picture"), [config.data, config.predictions, *config.heldout])
    if config.heldout:
        folds = [_heldout(path) for path in config.heldout]
        scores, labels = (np.concatenate(found) for found in zip(*folds, strict=True))
        area, more = scoring.estimate_auc([scoring.parts_of_auc(*fold) for fold in folds]), f"{len(folds)} folds"
    else:
        scores, labels, without = _predicted(config)
        area, more = scoring.auc_interval(scores, labels), f"{without:,} without score"
    found = scoring.score(scores, labels)
    tell(
        f"AUC {area.text(4)}; accuracy {found.accuracy:.4f} at {found.threshold:.4f}; calibration error "
        f"{found.calibration:.4f}; {len(labels):,} rows, {int(labels.sum()):,} alike, {more}"
    )
    if config.picture:
        write_bytes(disk_path(config.picture, "--picture"), png(scoring.picture(found, scores, labels)))
        tell(f"{config.picture}: calibration and ROC")


def _predicted(config: ScoreConfig) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores and labels of a file's rows, and how many have no score."""
    bad: Counter[str] = Counter()
    rows = [*read_rows(config.data, Wanted(numbers=False, labels=True), config.on_bad_record, bad)]
    lines = Path(config.predictions).read_text(encoding="utf-8").splitlines()
    if len(lines) != len(rows):
        raise DataError(f"{config.predictions}: {len(lines):,} lines, and {config.data} has {len(rows):,} rows")
    if bad:
        tell(f"{config.data}: left out {told(bad)}")
    usable = [(row.label, line) for row, line in zip(rows, lines, strict=True) if row and line]
    labels = np.array([label for label, _ in usable], np.float64)
    return _scores([line for _, line in usable], config.predictions), labels, sum(map(bool, rows)) - len(labels)


def _heldout(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels."""
    rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").splitlines()]
    if not rows or any(len(row) != 3 or row[1] not in ("0", "1") for row in rows):
        raise DataError(f"{path}: no heldout.tsv of train (row TAB label TAB probability); give that of a fold")
    return _scores([row[2] for row in rows], path), np.array([float(row[1]) for row in rows])


def _scores(lines: list[str], path: str) -> np.ndarray:
    try:
        scores = np.array([float(line) for line in lines])
    except ValueError as error:
        raise DataError(f"{path}: {error}; give what predict wrote") from None
    if not np.isfinite(scores).all():
        raise DataError(f"{path}: a score is not finite; predict again")
    return scores
