"""Texts that are found by meaning: questions to an index, and how well it answers them."""

import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pegasus_zh.text.lines import is_blank
from pegasus_zh.text.losses import Losses, counting
from retrieval.search.index import Index, make_index
from retrieval.search.store import read, whitened_unit
from retrieval.texts import is_number, read_columns, read_texts
from retrieval.vectors.encoding import all_vectors, encoder
from retrieval.vectors.source import SentenceEncoder
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.ranges import check_ranges
from training.telling import tell

_TURNS = frozenset("LRE RLE LRO RLO PDF LRI RLI FSI PDI".split())  # Unicode's classes of marks that turn what follows


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """How an index is asked."""

    folder: str
    """The index."""
    model: str = ""
    """Where its model is, if no longer where the index was built with it."""
    breadth: int = 16
    """Cells that ivf and pq look into, or width of hnsw's search: slower, and nearer to exact."""
    recall: float = 1.0
    """Of kind exact on a TPU: the share of the nearest that its approximate maxima are to find; 1 finds all."""

    def __post_init__(self):
        check_ranges(self, breadth=1)
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall is {self.recall}: it must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class QueryConfig(AskConfig):
    """Find the texts nearest to each question, of a file or at a prompt."""

    input: str = ""
    """.txt, .jsonl, .json, .csv or .tsv; - is standard input; none gives a prompt, or what is piped in."""
    field: str = "text"
    """The JSON field with a question."""
    k: int = 5
    """How many are shown."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, k=(1, 1 << 20))


@dataclass(frozen=True, kw_only=True)
class EvaluateIndexConfig(AskConfig):
    """Does the index find what belongs to a question? MRR@k, recall, time;
    of an approximate one also what exact search finds."""

    pairs: str
    """Question TAB text of the index: .tsv, .csv, .jsonl or .json, also .gz and .zst."""
    k: int = 10
    """Of MRR@k and recall@k."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, k=(1, 1 << 20))


@dataclass(frozen=True, kw_only=True)
class ServeConfig(AskConfig):
    """A page and a JSON API over an index: /, and /api/search?q=…&k=…"""

    host: str = "127.0.0.1"
    """0.0.0.0: reachable from other machines."""
    port: int = 8000
    """Of the page."""
    writer: str = ""
    """A model that writes similar sentences, as for scripts.similar_questions; by default the index's own, if it was
    trained to write."""

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, port=(1, 1 << 16))


@dataclass(frozen=True)
class Hit:
    """A text that was found."""

    text: str
    score: float  # the cosine
    place: int  # the text's number in the index, from 0


@dataclass(frozen=True)
class Searcher:
    """An index that is open: questions in, texts out."""

    index: Index
    texts: Sequence[str]
    vectors: Callable[[Sequence[str]], np.ndarray]  # of questions, as those of the texts
    source: SentenceEncoder  # the model of the index
    lost: Callable[[], Losses]  # of the questions so far

    def unanswerable(self, question: str) -> str:
        """Why nothing can be found for it, if so: any two texts of unknown characters are the same to a model."""
        if is_blank(question):
            return "no text"
        ids = self.source.text.tokenizer.encode(question)
        return (
            ""
            if {*ids} - {self.source.text.tokenizer.unk_id}
            else "none of its characters is in the model's vocabulary"
        )

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """Of each question the k nearest texts, the best first. Raises DataError for a question without text, or of
        unknown characters alone."""
        for number, question in enumerate(questions, 1):
            if reason := self.unanswerable(question):
                raise DataError(f"question {number}: {reason}")
        found = self.index.search(self.vectors(questions), min(k, max(len(self.index), 1)))
        return [
            [Hit(self.texts[place], float(score), int(place)) for score, place in zip(*row, strict=True) if place >= 0]
            for row in zip(found.scores, found.places, strict=True)
        ]


def open_searcher(folder: Path | str, *, model: str = "", breadth: int = 16, recall: float = 1.0) -> Searcher:
    """The index in a folder with its model, which may lie elsewhere now, on all devices. Raises DataError for what does
    not belong together."""
    stored = read(Path(folder), model=model, breadth=breadth, recall=recall)
    mesh, (tokenizer, lost) = make_mesh(MeshConfig()), counting(stored.source.text.tokenizer)
    with jax.set_mesh(mesh):
        source, pooling = stored.source, stored.about.pooling
        encode = encoder(source.text._replace(tokenizer=tokenizer), [pooling], stored.encoding)
        encode = source.finish(encode, pooling, source.prompt_of_questions)

    def vectors(questions: Sequence[str]) -> np.ndarray:
        with jax.set_mesh(mesh):
            return whitened_unit(all_vectors(encode, questions), stored.whitening)

    return Searcher(stored.index, stored.texts, vectors, stored.source, lost)


def open_as_asked(config: AskConfig) -> Searcher:
    return open_searcher(config.folder, model=config.model, breadth=config.breadth, recall=config.recall)


def query(config: QueryConfig) -> None:
    """Answers each question in turn, a blank one too, or asks for them at a prompt. Raises DataError."""
    if given := config.input or ("" if sys.stdin.isatty() else "-"):
        questions = list(read_texts(given, config.field, blank=True))
        if not any(questions):
            raise DataError(f"{given}: no question in it")
        searcher = open_as_asked(config)
        reasons = [searcher.unanswerable(question) for question in questions]
        asked = [question for question, reason in zip(questions, reasons, strict=True) if not reason]
        hits = iter(searcher.search(asked, config.k) if asked else [])
        for question, reason in zip(questions, reasons, strict=True):
            tell(shown(question))
            tell(f"  {reason}" if reason else "\n".join(_line(hit) for hit in next(hits)))
        searcher.lost().report_any(given)
        return
    searcher = open_as_asked(config)
    tell("Ctrl-D ends it")
    while True:
        try:
            question = input("? ")
        except EOFError:
            return
        if not question.strip():
            continue
        if reason := searcher.unanswerable(question):
            tell(f"  {reason}")
            continue
        for hit in searcher.search([question], config.k)[0]:
            tell(_line(hit))


def _line(hit: Hit) -> str:
    return f"  {hit.score:.3f}  {shown(hit.text)}"


def shown(text: str) -> str:
    """On one line, as a terminal can show it: line ends, control characters and changes of direction are escaped; what
    joins the parts of an emoji, and wide blanks, are not."""
    return "".join(repr(c)[1:-1] if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in _TURNS


class Scores(NamedTuple):
    """How well an index answers questions; from 0 to 1, but for the time."""

    mrr: float
    recall: float  # of the right text among the k
    overlap: float  # with the k of exact search
    milliseconds: float  # of a question, many searched at once


def evaluate(config: EvaluateIndexConfig) -> Scores:
    """Scores the index. Raises DataError for a text that it does not have, with its line."""
    searcher = open_as_asked(config)
    places: dict[str, int] = {}
    for place, text in enumerate(searcher.texts):
        places.setdefault(text, place)
    questions, wanted, missing = [], [], []
    for row in read_columns(config.pairs):
        if len(row.columns) != 2:
            remedy = (
                "keep those that are alike, without their label" if is_number(row.columns[-1]) else "as by cut -f1,2"
            )
            raise DataError(f"{row.place}: {len(row.columns)} column(s); a line is question TAB text, {remedy}")
        if row.columns[1] not in places:
            missing.append(row.place)
        questions.append(row.columns[0])
        wanted.append(places.get(row.columns[1], -1))
    if not questions:
        raise DataError(f"{config.pairs}: no pair in it")
    if missing:
        raise DataError(
            f"{missing[0]}: its text is not in the index, nor those of {len(missing) - 1:,} further lines; put them in "
            "with scripts.search add, or remove the lines"
        )
    vectors = searcher.vectors(questions)
    searcher.lost().report_any(config.pairs)
    searcher.index.search(vectors, config.k)  # compiles, and reads what is on disk
    begin = time.perf_counter()
    found = searcher.index.search(vectors, config.k)
    milliseconds = 1000 * (time.perf_counter() - begin) / len(questions)
    # A text that is in the index twice is the same text.
    same = np.array([places[text] for text in searcher.texts] + [-1])  # -1: fewer than k were found
    mrr, recall = ranking(same[found.places], np.array(wanted))
    overlap = 1.0
    if searcher.index.kind not in ("exact", "flat") or config.recall < 1:
        tell(f"{len(searcher.texts):,} texts are encoded again, to be searched exactly")
        exact = make_index("exact", searcher.index.dimensions)
        exact.add(searcher.vectors(searcher.texts))
        both = zip(same[found.places], same[exact.search(vectors, config.k).places], strict=True)
        overlap = float(np.mean([len({*a} & {*b}) / len({*b}) for a, b in both]))
    tell(
        f"{len(questions):,} questions, {len(searcher.texts):,} texts: MRR@{config.k} {mrr:.4f}, "
        f"recall@{config.k} {recall:.4f}, {overlap:.1%} of what exact search finds; {milliseconds:.3f} ms a question, "
        "its encoding not counted"
    )
    return Scores(mrr, recall, overlap, milliseconds)


def ranking(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """MRR@k and recall@k of places [Q, k], of which one [Q] is right."""
    right = found == wanted[:, None]
    ranks = np.where(right.any(1), right.argmax(1) + 1, np.inf)
    return float(np.mean(1 / ranks)), float(np.mean(right.any(1)))
