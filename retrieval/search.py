"""Texts that are found by meaning: an index of their vectors, with the texts and the way to encode a question beside it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tyro

from pegasus_zh.text_encoder import load_text_encoder
from retrieval.embed import EmbedConfig, embed_file, open_vectors
from retrieval.encode import Encoding, encoder
from retrieval.index import Index, Kind, load_index, make_index
from retrieval.pooling import Pooling
from retrieval.texts import read_columns, read_texts
from retrieval.whitening import Whitening, load_whitening, moments, whiten
from rope.huggingface import Pooler
from training.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.ranges import check_ranges
from training.weights import fingerprint
from training.whole import check_new, read_json, whole, write_json

INDEX, TEXTS, WHITENING, ABOUT = "index", "texts.txt", "whitening.safetensors", "about.json"
PIECE = 1 << 15  # vectors mapped and added at a time; FAISS learns its cells of the first
LEARN = 1 << 18  # of which ivf and pq have so many
REBUILD = "build the index again"


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Encode texts and build an index of them."""

    model: str
    """A work folder of scripts.pretrain_encoder or scripts.simcse, or a Hugging Face folder."""
    texts: str
    """.txt (one text a line), .jsonl (see --field) or .tsv (the last column), also .gz."""
    folder: str
    """The new folder of the index."""
    kind: Kind = "exact"
    """exact: all compared, on the devices; flat, ivf, hnsw, pq: FAISS, on a CPU."""
    pooling: Pooling = "mean"
    """cls (P1), pooler (P2), mean (P3), first-last (P4) or last-two."""
    pooler: Pooler = "auto"
    """Of a Hugging Face folder whose config.json does not say it: tanh (BERT), linear (SimBERT, RoFormer-Sim)."""
    whiten: int = 0
    """Whiten the vectors, fitted on these texts, and keep so many dimensions: a third searches several times as fast. 0: no whitening."""
    field: str = "text"
    """The JSON field with a text."""
    encoding: tyro.conf.OmitArgPrefixes[Encoding] = dataclasses.field(default_factory=Encoding)
    """Lengths and batches."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        check_ranges(self, whiten=0)


@dataclass(frozen=True, kw_only=True)
class AddConfig:
    """Add texts to an index, encoded as those in it."""

    texts: str
    """As of build."""
    folder: str
    """The index."""
    field: str = "text"
    """The JSON field with a text."""


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """Find the texts nearest to each question, of a file or at a prompt."""

    folder: str
    """The index."""
    input: str = ""
    """.txt, .jsonl or .tsv; - is standard input; none gives a prompt."""
    k: int = 5
    """How many are shown."""
    breadth: int = 16
    """Cells that ivf and pq look into, or width of hnsw's search: slower, and nearer to exact."""

    def __post_init__(self):
        check_ranges(self, k=1, breadth=1)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Does the index find what belongs to a question? MRR@k, recall, time; of an approximate one also what exact search finds."""

    folder: str
    """The index."""
    pairs: str
    """.tsv of question TAB text of the index, also .gz."""
    k: int = 10
    """Of MRR@k and recall@k."""
    breadth: int = 16
    """As of query."""

    def __post_init__(self):
        check_ranges(self, k=1, breadth=1)


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """A page and a JSON API over an index: /, and /api/search?q=…&k=…"""

    folder: str
    """The index."""
    host: str = "127.0.0.1"
    """0.0.0.0: reachable from other machines."""
    port: int = 8000
    """Of the page."""
    breadth: int = 16
    """As of query."""


class Hit(NamedTuple):
    text: str
    score: float  # the cosine
    place: int  # the text's number in the index, from 0


@dataclass(frozen=True)
class Searcher:
    """An index that is open: questions in, texts out."""

    index: Index
    texts: Sequence[str]
    vectors: Callable[[Sequence[str]], np.ndarray]  # of questions, as those of the texts

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """Of each question the k nearest texts, the best first. Raises DataError for a question without text."""
        if wrong := [number for number, text in enumerate(questions, 1) if not text.strip()]:
            raise DataError(f"question {wrong[0]}: no text")
        found = self.index.search(self.vectors(questions), k)
        return [
            [Hit(self.texts[place], float(score), int(place)) for score, place in zip(*row, strict=True) if place >= 0]
            for row in zip(found.scores, found.places, strict=True)
        ]


def build(config: BuildConfig, say: Callable[[str], None] = print) -> None:
    """Builds `config.folder`, whole or not at all; a command that was killed goes on with the vectors it had. Raises DataError."""
    folder = Path(config.folder)
    check_new(folder)
    names = ("model", "pooling", "pooler", "field", "encoding", "mesh")
    same = {name: getattr(config, name) for name in names}
    encoded = _encode(EmbedConfig(input=config.texts, out=str(_vectors(folder)), **same), say)
    source = load_text_encoder(config.model, pooler=config.pooler, say=say)
    pieces = [encoded[first : first + PIECE] for first in range(0, len(encoded), PIECE)]
    whitening = whiten(moments(pieces), config.whiten, say=say) if config.whiten else None
    mesh = make_mesh(config.mesh)
    index = make_index(config.kind, whitening.kernel.shape[1] if whitening else encoded.shape[1], mesh=mesh)
    _add(index, encoded, whitening)
    about = {
        "model": str(Path(config.model).absolute()),
        "weights": fingerprint(source.model),
        "kind": config.kind,
        "pooling": config.pooling,
        "pooler": config.pooler,
        "max_length": config.encoding.max_length,
        "dtype": config.encoding.dtype,
    }
    _write(folder, index, whitening, read_texts(config.texts, config.field), about)
    _vectors(folder).unlink()
    say(
        f"{folder}: {len(index):,} texts, {index.dimensions} dimensions, {config.kind}, {_size(folder):,} bytes of vectors"
    )


def add(config: AddConfig, say: Callable[[str], None] = print) -> None:
    """Adds texts to the index in `config.folder`, which is there as before or with all of them. Raises DataError."""
    folder = Path(config.folder)
    about, texts, whitening = _read(folder)
    same = {name: about[name] for name in ("model", "pooling", "pooler")}
    encoding = Encoding(max_length=about["max_length"], dtype=about["dtype"])
    _check_model(folder, about, load_text_encoder(about["model"], pooler=about["pooler"], say=say).model)
    made = EmbedConfig(input=config.texts, out=str(_vectors(folder)), field=config.field, encoding=encoding, **same)
    encoded = _encode(made, say)
    index = load_index(folder / INDEX, about["kind"])
    _add(index, encoded, whitening)
    _write(folder, index, whitening, [*texts, *read_texts(config.texts, config.field)], about)
    _vectors(folder).unlink()
    say(f"{folder}: {len(index):,} texts")


def _vectors(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.vectors.npy")


def _encode(config: EmbedConfig, say: Callable[[str], None]) -> np.ndarray:
    embed_file(config, say)
    return open_vectors(config.out)


def _add(index: Index, encoded: np.ndarray, whitening: Whitening | None) -> None:
    for first in range(0, len(encoded), LEARN):
        index.add(_ready(encoded[first : first + LEARN], whitening))


def _ready(vectors: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Whitened, and of length 1."""
    vectors = np.asarray(vectors, np.float32) if whitening is None else whitening(vectors)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)


def _write(folder: Path, index: Index, whitening: Whitening | None, texts, about: dict) -> None:
    with whole(folder) as temporary:
        temporary.mkdir()
        index.save(temporary / INDEX)
        if whitening:
            whitening.save(temporary / WHITENING)
        with open(temporary / TEXTS, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(text + "\n" for text in texts)
        write_json(temporary / ABOUT, about | {"texts": len(index), "dimensions": index.dimensions})


def _size(folder: Path) -> int:
    return (folder / INDEX).stat().st_size


def _read(folder: Path) -> tuple[dict, list[str], Whitening | None]:
    about = read_json(folder / ABOUT, REBUILD)
    names = {"model", "weights", "kind", "pooling", "pooler", "max_length", "dtype", "texts", "dimensions"}
    if missing := names - set(about):
        raise DataError(f"{folder / ABOUT}: no {min(missing)}; {REBUILD}")
    texts = [text for _, (text,) in read_columns(str(folder / TEXTS))]
    if len(texts) != about["texts"]:
        raise DataError(f"{folder / TEXTS}: {len(texts):,} texts, and the index has {about['texts']:,}; {REBUILD}")
    return about, texts, load_whitening(folder / WHITENING) if (folder / WHITENING).exists() else None


def _check_model(folder: Path, about: dict, model) -> None:
    if (found := fingerprint(model)) != about["weights"]:
        raise DataError(
            f"{about['model']}: its weights are {found}, and {folder} was built with {about['weights']}; bring those back, or {REBUILD}"
        )


def open_searcher(folder: Path | str, *, breadth: int = 16, say: Callable[[str], None] = print) -> Searcher:
    """The index in a folder with its model, on all devices. Raises DataError for what does not belong together."""
    folder = Path(folder)
    about, texts, whitening = _read(folder)
    source = load_text_encoder(about["model"], pooler=about["pooler"], say=say)
    _check_model(folder, about, source.model)
    width = source.config.width if whitening is None else len(whitening.mean)
    mesh = make_mesh(MeshConfig())
    index = load_index(folder / INDEX, about["kind"], breadth=breadth, mesh=mesh)
    dimensions = width if whitening is None else whitening.kernel.shape[1]
    if width != source.config.width or index.dimensions != dimensions or len(index) != len(texts):
        raise DataError(
            f"{folder}: {len(index):,} vectors of {index.dimensions} dimensions, {len(texts):,} texts and a model that makes "
            f"{dimensions} do not belong together; {REBUILD}"
        )
    encoding = Encoding(max_length=about["max_length"], dtype=about["dtype"])
    with jax.set_mesh(mesh):
        encode = encoder(source, [about["pooling"]], encoding)

    def vectors(questions: Sequence[str]) -> np.ndarray:
        with jax.set_mesh(mesh):
            return _ready(np.concatenate([part.vectors[:, 0] for part in encode(questions)]), whitening)

    return Searcher(index, texts, vectors)


def query(config: QueryConfig, say: Callable[[str], None] = print) -> None:
    """Answers each question, or asks for them at a prompt. Raises DataError."""
    if config.input:
        questions = list(read_texts(config.input))
        searcher = open_searcher(config.folder, breadth=config.breadth)
        for question, hits in zip(questions, searcher.search(questions, config.k), strict=True):
            say(question)
            say("\n".join(f"  {hit.score:.3f}  {hit.text}" for hit in hits))
        return
    searcher = open_searcher(config.folder, breadth=config.breadth)
    while True:
        try:
            question = input("? ")
        except EOFError:
            return
        if question.strip():
            for hit in searcher.search([question], config.k)[0]:
                say(f"  {hit.score:.3f}  {hit.text}")


class Scores(NamedTuple):
    mrr: float
    recall: float  # of the right text among the k
    overlap: float  # with the k of exact search
    milliseconds: float  # of a question, many searched at once


def evaluate(config: EvaluateConfig, say: Callable[[str], None] = print) -> Scores:
    """Scores the index. Raises DataError for a text that it does not have, with its line."""
    searcher = open_searcher(config.folder, breadth=config.breadth)
    places: dict[str, int] = {}
    for place, text in enumerate(searcher.texts):
        places.setdefault(text, place)
    questions, wanted = [], []
    for line, columns in read_columns(config.pairs):
        if len(columns) != 2:
            raise DataError(f"{line}: {len(columns)} column(s); a line is question TAB text")
        if columns[1] not in places:
            raise DataError(f"{line}: its text is not in the index; build it of all of them")
        questions.append(columns[0])
        wanted.append(places[columns[1]])
    if not questions:
        raise DataError(f"{config.pairs}: no pair in it")
    vectors = searcher.vectors(questions)
    searcher.index.search(vectors, config.k)  # compiles, and reads what is on disk
    begin = time.perf_counter()
    found = searcher.index.search(vectors, config.k)
    milliseconds = 1000 * (time.perf_counter() - begin) / len(questions)
    # A text that is in the index twice is the same text.
    same = np.array([places[text] for text in searcher.texts])
    mrr, recall = ranking(np.where(found.places < 0, -1, same[found.places]), np.array(wanted))
    overlap = 1.0
    if searcher.index.kind not in ("exact", "flat"):
        exact = make_index("exact", searcher.index.dimensions)
        exact.add(searcher.vectors(searcher.texts))
        wanted_places = exact.search(vectors, config.k).places
        overlap = float(
            np.mean([len({*a} & {*b}) / len({*b}) for a, b in zip(found.places, wanted_places, strict=True)])
        )
    say(
        f"{len(questions):,} questions, {len(searcher.texts):,} texts: MRR@{config.k} {mrr:.4f}, recall@{config.k} {recall:.4f}, "
        f"{overlap:.1%} of what exact search finds; {milliseconds:.3f} ms a question"
    )
    return Scores(mrr, recall, overlap, milliseconds)


def ranking(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """MRR@k and recall@k of places [Q, k], of which one [Q] is right."""
    right = found == wanted[:, None]
    ranks = np.where(right.any(1), right.argmax(1) + 1, np.inf)
    return float(np.mean(1 / ranks)), float(np.mean(right.any(1)))
