"""How close written summaries come to their references: Rouge-1, Rouge-2, Rouge-L and BLEU on characters.

The figures are those of T5-PEGASUS's finetune.py (March 2021), to the last bit: the characters of both texts, separated
by spaces and lower-cased, go to the package `rouge`, whose newest release was then 1.0.0, and to nltk's `sentence_bleu`
with smoothing method 1; an empty summary scores 0, and the mean is over the examples. `rouge` is unmaintained, so its
rules are written out here, the odd ones too:

* Rouge-1 and Rouge-2 count a repeated n-gram as often as both texts have it (1.0.1 and 0.3.2 count it once),
but Rouge-L
  counts the distinct characters of a longest common subsequence. So Rouge-L may exceed Rouge-1, as it does in some of
  the published figures.
* A full stop "." (not 。) ends a sentence and is no character; Rouge-L takes the union over all pairs of sentences.
* BLEU counts a blank as a character, and the blanks beside it as none, while Rouge does not see blanks: a text with
blanks between its words may have a BLEU near 0. So `evaluate` gives figures of folded texts (`fold`) beside these.

Against nltk and `rouge`: tests/parity/test_evaluation.py.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tyro.conf import Positional

from pegasus_zh.text.lines import is_blank, is_blank_line
from pegasus_zh.text.overlap import longest_common
from pegasus_zh.text.pairs import PAIR_FILES
from pegasus_zh.text.records import cells, read_rows, text_of
from pegasus_zh.text.sources import find_sources
from pegasus_zh.text.wordpieces import normalise
from training.experiment.statistics import RESAMPLES, bounds_of_means
from training.files.atomic import write_json
from training.files.errors import DataError
from training.telling import showing, tell

METRICS = {"rouge-1": "Rouge-1", "rouge-2": "Rouge-2", "rouge-l": "Rouge-L", "bleu": "BLEU"}  # and their headings
Scores = Mapping[str, np.ndarray]  # metric -> one figure per example, 0 to 1
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class EvaluateTextsConfig:
    """Score what models wrote against references: Rouge and BLEU on characters, with 95 % bootstrap intervals.

    Files over the same references are also compared with the first, example by example. Where blanks, accents or the
    width of letters and marks make a difference, there are figures without them, too.
    """

    files: Positional[tuple[str, ...]]
    """.jsonl, .json or .csv with a reference and what was written, or .tsv (reference TAB written), also .gz and .zst:
    one file a system."""
    reference_field: str = "reference"
    """The field or column with the summary wanted."""
    written_field: str = "written"
    """The field or column with the summary to score."""
    json: str = ""
    """A file for the figures, as fractions of 1."""


def evaluate(config: EvaluateTextsConfig) -> list[dict]:
    """Prints a table in percent and returns its figures, those of `--json`. Raises DataError."""
    if not config.files:
        raise DataError("no files given; name those with what was written, such as written.jsonl")
    if config.json and any(Path(config.json).absolute() == Path(name).absolute() for name in config.files):
        raise DataError(f"--json {config.json}: a file that is scored; name a new one")
    paths = [source.path for source in find_sources(config.files, PAIR_FILES)]
    systems = [read_pairs(path, config.reference_field, config.written_field) for path in paths]
    found = [scores(*system) for system in systems]
    report = _table(paths, systems, found)
    folded = [_folded(*system, x) for system, x in zip(systems, found, strict=True)]
    if any(not np.array_equal(x[name], y[name]) for x, y in zip(found, folded, strict=True) for name in x):
        tell("folded (one width and one case, without accents and blanks):")
        for row, other in zip(report, _table(paths, systems, folded), strict=True):
            row["folded"] = {name: other[name] for name in ("scores", "difference") if name in other}
    if config.json:
        write_json(Path(config.json), {"files": report})
    return report


def _table(paths: Sequence[str], systems: Sequence[tuple[list[str], list[str]]], found: Sequence[Scores]) -> list[dict]:
    """Tells the figures of each file, and of each further one the difference from the first."""
    width = max(map(len, paths)) + 2  # the line of a difference is indented
    tell(f"{'':{width}}  {'n':>7}" + "".join(f"  {heading:<22}" for heading in METRICS.values()).rstrip())
    report: list[dict] = []
    for path, (references, _), values in zip(paths, systems, found, strict=True):
        row = {"file": path, "examples": len(references), "scores": (figures := _figures(values))}
        tell(f"{path:{width}}  {len(references):7,}" + _line(figures, ""))
        if report and references == systems[0][0]:
            row["difference"] = difference = _figures(values, found[0])
            tell(f"{'  - ' + paths[0]:{width}}  {'':7}" + _line(difference, "+"))
        elif report:
            tell(f"  not the references of {paths[0]}: no difference")
        report.append(row)
    return report


def fold(text: str) -> str:
    """The text without what tokenizers change: of one width (NFKC: ，is , to mT5's), of one case, without accents and
    blanks, which bert4keras sets by rules of its own."""
    return "".join(unicodedata.normalize("NFKC", normalise(text)).split())


def _folded(references: Sequence[str], written: Sequence[str], found: Scores) -> Scores:
    """The scores of folded texts, of which those are known that folding does not change."""
    pairs = [(fold(a), fold(b)) for a, b in zip(references, written, strict=True)]
    lower = zip(references, written, strict=True)
    changed = [n for n, (pair, (a, b)) in enumerate(zip(pairs, lower, strict=True)) if pair != (a.lower(), b.lower())]
    folded = {name: values.copy() for name, values in found.items()}
    if changed:
        for name, values in scores(*zip(*(pairs[n] for n in changed), strict=True)).items():
            folded[name][changed] = values
    return folded


def read_pairs(path: str, reference_field: str, written_field: str) -> tuple[list[str], list[str]]:
    """(references, written) of a file, blank lines left out. Raises DataError with file, line and remedy."""
    references, written = [], []
    for row in read_rows(path, (reference_field, written_field)):
        if is_blank_line(row.data or b""):
            continue
        found = cells(row)
        if isinstance(found, list):
            if len(found) != 2:
                raise DataError(f"{row.place}: {len(found)} column(s); a line is reference TAB written")
            found = dict(zip((reference_field, written_field), found, strict=True))
        if reference_field not in found and set(found) <= {
            "source",
            "answers",
            written_field,
        }:  # scripts.generate's own
            raise DataError(
                f"{row.place}: no reference to score against; write for a .tsv (reference TAB source), .csv or .jsonl "
                "that has one"
            )
        references.append(text_of(found, reference_field, row.place, "--reference-field"))
        written.append(text_of(found, written_field, row.place, "--written-field"))
        if is_blank(references[-1]):
            raise DataError(f"{row.place}: the reference is empty; leave such examples out, for all systems")
    if not references:
        raise DataError(f"{path}: no examples, only blank lines; write the file again")
    return references, written


def scores(references: Sequence[str], candidates: Sequence[str]) -> dict[str, np.ndarray]:
    """Rouge-1, Rouge-2, Rouge-L (F) and BLEU of each candidate: float64 [n] by metric, from 0 to 1. Raises ValueError
    for lists of different lengths."""
    pairs = zip(references, candidates, strict=True)
    progress = tqdm(
        pairs, "evaluate", len(references), unit="example", delay=3, leave=False, disable=not showing() or None
    )
    table = np.array([_score(*pair) for pair in progress]).reshape(-1, len(METRICS))
    return dict(zip(METRICS, table.T, strict=True))


def intervals(
    scores: Scores, against: Scores | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The 95 % bootstrap interval (percentiles of resampled means) of each metric's mean over the examples.

    With `against`, another system's scores of the same examples, that of the mean difference: resampling examples keeps
    each pair together, so what makes an example hard for both cancels.
    """
    values = np.stack([scores[name] if against is None else scores[name] - against[name] for name in scores], axis=1)
    bounds = bounds_of_means(values, resamples, seed).T.tolist()
    return {name: (low, high) for name, (low, high) in zip(scores, bounds, strict=True)}


def _figures(found: Scores, against: Scores | None = None) -> dict[str, dict]:
    bounds = intervals(found, against)
    means = {name: x.mean() - (0 if against is None else against[name].mean()) for name, x in found.items()}
    return {name: {"mean": float(means[name]), "low": bounds[name][0], "high": bounds[name][1]} for name in found}


def _line(figures: dict[str, dict], sign: str) -> str:
    """The cells of a row in percent; `sign` "+" marks positive differences."""
    cells = [[f"{100 * x[key]:{sign}.2f}" for key in ("mean", "low", "high")] for x in figures.values()]
    return "".join(f"  {f'{mean} [{low}, {high}]':<22}" for mean, low, high in cells).rstrip()


def _score(reference: str, candidate: str) -> tuple[float, float, float, float]:
    # In this order, as there: the few capitals whose small letter is two characters stay one unit.
    reference, candidate = (" ".join(text).lower() for text in (reference, candidate))
    if not candidate.strip():
        return 0.0, 0.0, 0.0, 0.0
    return *_rouge(_sentences(reference), _sentences(candidate)), _bleu(reference.split(" "), candidate.split(" "))


def _sentences(spaced: str) -> list[list[str]]:
    """The characters of each sentence; one of spaces alone, as between two full stops, is an empty string."""
    return [part.split() or [""] for part in spaced.split(".") if part]


def _rouge(reference: list[list[str]], candidate: list[list[str]]) -> tuple[float, float, float]:
    wanted, found = sum(reference, []), sum(candidate, [])
    one, two = (_f_score(_overlap(wanted, found, n), len(wanted) + 1 - n, len(found) + 1 - n) for n in (1, 2))
    common = set().union(*(longest_common(r, c) for r in reference for c in candidate))
    return one, two, _f_score(len(common), len(set(wanted)), len(set(found)))


def _f_score(overlap: int, wanted: int, found: int) -> float:
    if not overlap:
        return 0.0
    precision, recall = overlap / found, overlap / wanted
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def _overlap(wanted: list[str], found: list[str], n: int) -> int:
    """How many n-grams the two share, repeated ones as often as both have them."""
    counts, limits = (Counter(zip(*(units[k:] for k in range(n)), strict=False)) for units in (found, wanted))
    return sum(min(count, limits[ngram]) for ngram, count in counts.items() if ngram in limits)


def _bleu(reference: list[str], candidate: list[str]) -> float:
    """Sentence BLEU of 1- to 4-grams; 0.1 stands for the matches of an order without any (smoothing method 1)."""
    overlaps = [_overlap(reference, candidate, n) for n in range(1, 5)]
    if not overlaps[0]:
        return 0.0
    brevity = min(1.0, math.exp(1 - len(reference) / len(candidate)))
    precisions = ((overlap or 0.1) / max(1, len(candidate) + 1 - n) for n, overlap in enumerate(overlaps, 1))
    return brevity * math.exp(math.fsum(0.25 * math.log(p) for p in precisions))
