"""What scripts.match_anonymised predict does."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax

from pegasus_zh.text.documents import OnBadRecord
from retrieval.matching.matcher import load_matcher
from retrieval.matching.pairs import Reader, told
from retrieval.matching.predict import Window, predicted, scorer, written
from retrieval.pairs.same import one_line
from training.files.atomic import atomic_write, check_out_file
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.ranges import check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Write how probable it is that each pair is alike: a number a line, in the order of the rows."""

    model: tuple[str, ...]
    """Folders of folds of train; of several the mean of their probabilities."""
    data: str
    """Pairs of any number; a label is not looked at. - is standard input."""
    out: str
    """A file of a number a line."""
    pasted: bool = False
    """Rows as text TAB text TAB probability, as train --soft takes them; bad rows are left out."""
    both_orders: bool = False
    """The mean of both orders of a pair; takes twice the time."""
    average: int = 1
    """Checkpoints of each model whose weights are averaged."""
    on_bad_record: OnBadRecord = "stop"
    """skip: an empty line for a bad row, counted by reason."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        check_lists(self, model=None)
        check_ranges(self, average=1)


def told_of(windows: Iterator[Window]) -> Iterator[Window]:
    """With a bar, from the first on: before it a file may be refused."""
    bar = None
    for window in windows:
        bar = progress_bar(0, 0, "row") if bar is None else bar
        yield window
        bar.update(len(window))
    if bar is not None:
        bar.close()


def predict(config: PredictConfig) -> None:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    out = disk_path(config.out, "--out")
    check_out_file(out, [config.data])
    matchers = [load_matcher(folder, config.average) for folder in config.model]
    readers = [Reader(matcher.source.tokenizer) for matcher in matchers]
    if len({reader.numbers for reader in readers}) > 1:
        raise DataError(f"{', '.join(config.model)}: some read numbers and others plain text; give models of one kind")
    bad: Counter[str] = Counter()
    with (
        jax.set_mesh(make_mesh(config.mesh)),
        atomic_write(out) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        scores = [scorer(matcher, config.both_orders) for matcher in matchers]
        windows = predicted(config.data, scores, readers, config.on_bad_record, bad)
        for window in told_of(windows):
            for row, p in window:
                line = "" if p is None else written(p)
                if not config.pasted:
                    file.write(f"{line}\n")
                elif row:
                    file.write(f"{one_line(row.a)}\t{one_line(row.b)}\t{line}\n")
    for reader, folder in zip(readers, config.model, strict=True):
        reader.tell(folder)
    if bad:
        tell(f"{config.data}: {told(bad)}: {'left out' if config.pasted else 'an empty line each'}")
