"""What scripts.match_anonymised does: anonymise, align, train, predict, score."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from pegasus_zh.text.documents import OnBadRecord
from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.alignment.methods import METHODS
from retrieval.matching.alignment.statistics import of_numbers, of_plain
from retrieval.matching.alignment.table import Alignment, of_key, read_key, right
from retrieval.matching.alphabet import LEAST, count_numbers, make_alphabet
from retrieval.matching.anonymise import anonymised, private_map, write_key
from retrieval.matching.pairs import Reader, Wanted, read_pairs, read_rows, told
from retrieval.matching.predict import load_matcher, predicted, scorer
from retrieval.matching.score import auc_interval, picture, score
from retrieval.matching.start import reading_numbers
from retrieval.matching.train import Fold, MatchingRecipe, heldout_scores, train_matcher
from retrieval.texts import read_texts
from retrieval.vectors.source import load_alone
from rope.encoder.huggingface import write_encoder
from training.experiment.report import png
from training.files.atomic import atomic_write, check_out_file, write_bytes
from training.files.errors import DataError
from training.flags import FLAT, one_of
from training.launch import LaunchConfig, hold, joined
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.ranges import check_lists, check_ranges
from training.telling import tell

KEY = "key"  # a method


@dataclass(frozen=True, kw_only=True)
class AnonymiseConfig:
    """Write texts as numbers by a private map, to measure with; rows, columns and labels stay."""

    data: tuple[str, ...]
    """Files of pairs (text TAB text [TAB label]) or of texts; all together have one map."""
    folder: str
    """Where the anonymised files go, under their own names as .tsv, and key.tsv, the map."""
    seed: int = 0
    """Of the map."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, seed=(0, 1 << 32))


def anonymise(config: AnonymiseConfig) -> None:
    """Writes the files, each whole or not at all. Raises DataError, with file, line and remedy."""
    folder, wanted = Path(config.folder), Wanted(numbers=False, labels=False, single=True)
    names = [Path(path).name.split(".")[0] for path in config.data]
    if len({*names}) < len(names):
        raise DataError(f"{', '.join(config.data)}: two files have one name up to the first dot; rename one")
    if "key" in names:
        raise DataError("a file is named key, as the map is; rename it")
    rows = {name: [*read_rows(path, wanted)] for name, path in zip(names, config.data, strict=True)}
    of = private_map((text for one in rows.values() for row in one if row for text in (row.a, row.b)), config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in rows.items():
        lines = ("\t".join([*(anonymised(x, of) for x in (row.a, row.b) if x), *row.rest]) for row in one if row)
        write_bytes(folder / f"{name}.tsv", "".join(f"{line}\n" for line in lines).encode())
        tell(f"{folder / name}.tsv: {len(one):,} rows")
    write_key(folder / "key.tsv", of)
    tell(f"{folder / 'key.tsv'}: {len(of):,} characters and their numbers; keep it apart")


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Find which character each number may be, and write the encoder that reads numbers so."""

    model: str
    """An encoder of plain text: a run of scripts.pretrain_encoder, or a Hugging Face folder with a masked language
    model's head."""
    data: tuple[str, ...]
    """All anonymised texts there are: files of pairs, labelled or not, or of texts."""
    folder: str
    """Where the new encoder goes, a folder for transformers, and alignment.tsv."""
    plain: tuple[str, ...] = ()
    """Plain texts to compare with: .txt, .tsv, .jsonl …; the more of the same kind the better."""
    field: str = "text"
    """The field or column with a plain text."""
    counts: str = ""
    """Instead of plain texts, for --method rank: a JSON object of tokens and how often they come."""
    method: Annotated[str, one_of([*METHODS, KEY])] = "context"
    """rank: by frequency alone, as the seed; transport: Gromov-Wasserstein of the commonest; context: by what stands
    beside; key: what --key says."""
    key: str = ""
    """number TAB character, where it is known: the alignment is scored by it."""
    least: int = LEAST
    """Occurrences of a number that has a row of its own."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, least=1)
        if bool(self.plain) == bool(self.counts) and self.method != KEY:
            raise ValueError("plain and counts: give one of the two")
        if self.counts and self.method not in ("rank", KEY):
            raise ValueError(
                f"method is {self.method}, which counts do not serve: give texts by --plain, or --method rank"
            )
        if self.method == KEY and not self.key:
            raise ValueError("method is key: give --key FILE")


def align(config: AlignConfig) -> Alignment:
    """Writes `config.folder`, whole or not at all. Raises DataError."""
    source = load_alone(config.model)
    texts = list(anonymised_texts(config.data))
    counts = count_numbers(texts)
    alphabet = make_alphabet(counts, config.least)
    numbers = alphabet.vocabulary[len(SPECIALS) :]
    tell(
        f"{len(texts):,} texts of {counts.total():,} numbers, {len(counts):,} different; {len(numbers):,} come "
        f"{config.least} times or more, {sum(counts[x] for x in numbers) / counts.total():.1%} of the texts"
    )
    key = read_key(config.key) if config.key else {}
    found = aligned(config, source, texts, numbers, key)
    weights = np.array([counts[x] for x in numbers], np.float64)
    made = reading_numbers(source, alphabet, found.shares)

    def more(folder: Path) -> None:
        alphabet.save(folder)
        found.write(folder / "alignment.tsv", weights)

    write_encoder(config.folder, made.model, made.config, write_more=more)
    if key:
        score = right(found, weights, key)
        tell(f"right by {config.key}: {score.characters:.1%} of the numbers, {score.text:.1%} of the texts")
    shown = ", ".join(
        f"{number} {found.tokens[row.argmax()]} ({row.max():.2f})"
        for number, row in zip(numbers[:20], found.shares[:20], strict=True)
    )
    tell(f"the commonest seem to be {shown}")
    tell(
        f"{config.folder}: a --model for scripts.match_anonymised train; alignment.tsv in it says which number is what"
    )
    return found


def anonymised_texts(paths: Sequence[str]) -> Iterator[str]:
    """Each text of files of pairs or of texts of numbers. Raises DataError."""
    for path in paths:
        for row in read_rows(path, Wanted(numbers=True, labels=False, single=True)):
            if row:
                yield from (x for x in (row.a, row.b) if x)


def aligned(
    config: AlignConfig, source: TextEncoder, texts: Sequence[str], numbers: list[str], key: dict[str, str]
) -> Alignment:
    """By `config.method`."""
    tokenizer = source.tokenizer
    if not isinstance(tokenizer, PegasusTokenizer):
        raise DataError(f"{config.model}: its tokenizer is no vocab.txt")
    tokens = tokenizer.vocabulary
    if config.method == KEY:
        return Alignment(numbers, tokens, of_key(numbers, tokens, key))
    ours, theirs = of_numbers(texts, numbers), of_plain(plain_texts(config.plain, config.field), tokenizer)
    if config.counts:  # of neighbours it says nothing
        theirs = theirs._replace(counts=_counts(config.counts, tokenizer))
    if not theirs.counts.any():
        raise DataError("no token of the model's vocabulary in the plain text; give other --plain")
    with closing(progress_bar(0, 0, "turn")) as bar:

        def turn(done: int, turns: int) -> None:
            bar.total = turns
            bar.update()

        return Alignment(numbers, tokens, METHODS[config.method](ours, theirs, turn))


def plain_texts(paths: Sequence[str], field: str) -> Iterator[str]:
    """Those of all files. Raises DataError."""
    return chain.from_iterable(read_texts(path, field) for path in paths)


def _counts(path: str, tokenizer: PegasusTokenizer) -> np.ndarray:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        counts = np.array([float(found.get(token, 0)) for token in tokenizer.vocabulary])
        counts.resize(tokenizer.vocab_size)  # with those that were added
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no JSON object of tokens and counts ({error}); write one") from None
    counts[: len(SPECIALS)] = 0
    return counts


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a classifier of pairs, on labelled and unlabelled ones; the same command goes on."""

    model: str
    """What is begun with: a folder of align, or any encoder with a masked language model's head, for plain text."""
    data: tuple[str, ...]
    """Labelled pairs: text TAB text TAB 0 or 1."""
    unlabelled: tuple[str, ...] = ()
    """Pairs, or texts, without label, of which the language is learned; such as those to be predicted."""
    folder: str = "runs/matching"
    """Where everything of the run goes: fold-N of each fold."""
    folds: int = 10
    """Rows are cut into so many folds, row i into fold i % folds."""
    fold: tuple[int, ...] = (0,)
    """Folds to hold out, a model each; its rows are predicted, in heldout.tsv."""
    soft: tuple[str, ...] = ()
    """Pairs whose label is a probability, such as others' predictions; they are always trained on."""
    on_bad_record: OnBadRecord = "stop"
    """skip: leave bad rows out and count them by reason."""
    recipe: Annotated[MatchingRecipe, FLAT] = field(default_factory=MatchingRecipe)
    """What trains."""
    launch: Annotated[LaunchConfig, FLAT] = field(default_factory=LaunchConfig)
    """On what it runs."""

    def __post_init__(self):
        check_lists(self, data=None, fold=range(self.folds))
        check_ranges(self, folds=2)


def train(config: TrainConfig) -> None:
    """Runs, or goes on with, the training in `config.folder`. Raises DataError and ValueError."""
    joined(config.launch)
    with hold(config.folder, config.launch):
        source = load_alone(config.model)
        reader, skip = Reader(source.tokenizer), config.on_bad_record
        read = partial(read_pairs, reader=reader, on_bad_record=skip)
        labelled = read(config.data, wanted=Wanted(reader.numbers, labels=True))
        more = read(config.unlabelled, wanted=Wanted(reader.numbers, labels=False, single=True))
        more += read(config.soft, wanted=Wanted(reader.numbers, labels=True, soft=True))
        reader.tell("the pairs")
        if len({pair.label for pair in labelled}) == 1:
            raise DataError(f"{', '.join(config.data)}: all labels are {labelled[0].label:g}; both are needed")
        mesh, folder = make_mesh(config.launch.mesh), Path(config.folder)
        for number in config.fold:
            fold, run = Fold(number, config.folds), folder / f"fold-{number}"
            trained = train_matcher(config.recipe, source, labelled, more, fold, mesh, run)
            if not trained.finished:
                return
            with jax.set_mesh(mesh):
                found = heldout_scores(config.recipe, source, trained.state.model, labelled, fold)
            held = [(n, pair.label) for n, pair in enumerate(labelled) if fold.holds(n)]
            lines = (f"{n + 1}\t{label:g}\t{p:.6f}\n" for (n, label), p in zip(held, found.tolist(), strict=True))
            write_bytes(run / "heldout.tsv", "".join(lines).encode())
            labels = np.array([label for _, label in held])
            if len({*labels.tolist()}) == 2:
                area = auc_interval(found, labels)
                tell(f"{run}: AUC {area.text(4)} on {len(held):,} held-out rows; heldout.tsv has their scores")
            else:
                tell(
                    f"{run}: all {len(held):,} held-out rows have the same label, so there is no AUC; where labels "
                    "come in turns, shuffle the rows or give other --folds"
                )


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


def predict(config: PredictConfig) -> None:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    out = Path(config.out)
    check_out_file(out, [config.data])
    matchers = [load_matcher(folder, config.average) for folder in config.model]
    readers = [Reader(matcher.source.tokenizer) for matcher in matchers]
    if len({reader.numbers for reader in readers}) > 1:
        raise DataError(f"{', '.join(config.model)}: some read numbers and others plain text; give models of one kind")
    bad: Counter[str] = Counter()
    bar = progress_bar(0, 0, "row")
    with (
        jax.set_mesh(make_mesh(config.mesh)),
        atomic_write(out) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        scores = [scorer(matcher, config.both_orders) for matcher in matchers]
        for window in predicted(config.data, scores, readers, config.on_bad_record, bad):
            for row, p in window:
                if config.pasted:
                    file.write(f"{row.a}\t{row.b}\t{p:.6f}\n" if row else "")
                else:
                    file.write("\n" if p is None else f"{p:.6f}\n")
            bar.update(len(window))
    bar.close()
    for reader, folder in zip(readers, config.model, strict=True):
        reader.tell(folder)
    if bad:
        tell(f"{config.data}: {told(bad)}: {'left out' if config.pasted else 'an empty line each'}")


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


def score_file(config: ScoreConfig) -> None:
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
    found, area = score(scores, labels), auc_interval(scores, labels)
    tell(
        f"AUC {area.text(4)}; accuracy {found.accuracy:.4f} at {found.threshold:.4f}; calibration error "
        f"{found.calibration:.4f}; {len(labels):,} rows, {int(labels.sum()):,} alike, "
        f"{int((~usable).sum()):,} without score"
    )
    if config.picture:
        write_bytes(Path(config.picture), png(picture(found, scores, labels)))
        tell(f"{config.picture}: calibration and ROC")
