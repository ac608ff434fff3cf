"""The folder of an index: vectors that are searched, their texts, the whitening, and how a question is to be encoded.

    about.json           what all is, and which version
    index.3              the vectors, as retrieval.search.index has them
    texts.3.jsonl        the texts, in the same order
    whitening.safetensors

Adding writes the next version beside the last; about.json, which is replaced at one instant, says which one is read.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import numpy as np
import tyro

from retrieval.search.index import REBUILD, Index, Kind, load_index, make_index
from retrieval.texts import read_texts
from retrieval.vectors.arrays import open_vectors, unit
from retrieval.vectors.encoding import Encoding
from retrieval.vectors.files import encode_file
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from retrieval.vectors.whitening import Whitening, load_whitening, moments, whiten
from training.files.atomic import atomic_write, check_new, read_json, write_json
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.files.locks import locked
from training.mesh import MeshConfig, make_mesh
from training.partition import Dtype
from training.ranges import check_ranges
from training.telling import tell

WHITENING, ABOUT = "whitening.safetensors", "about.json"
PIECE = 1 << 16  # vectors in memory at a time
SAMPLE = 1 << 18  # of which ivf and pq learn


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Encode texts and build an index of them."""

    model: str
    """A work folder of scripts.pretrain_encoder or scripts.simcse, or a folder of transformers or
    sentence-transformers, whose prompts of documents and of queries are put before texts and questions."""
    texts: str
    """.txt (one text a line), .jsonl, .json or .csv (see --field) or .tsv (the last column), also .gz and .zst."""
    folder: str
    """The new folder of the index."""
    kind: Kind = "exact"
    """exact: all compared, on the devices; flat, ivf, hnsw, pq: FAISS, on a CPU."""
    pooling: Pooling | Literal["auto"] = "auto"
    """cls (P1), pooler (P2: SimBERT, RoFormer-Sim), mean (P3), first-last (P4), last-two or pooler-tanh; auto:
    what the model was tuned with, as its folder says it, else mean."""
    whiten: int = 0
    """Whiten the vectors, fitted on these texts, and keep so many dimensions: a third searches several times as fast.
    0: no whitening."""
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
    """Add texts to an index, encoded as those in it; what it has already is left out."""

    texts: str
    """As of build."""
    folder: str
    """The index."""
    model: str = ""
    """Where its model is, if no longer where the index was built with it."""
    field: str = "text"
    """The JSON field with a text."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What an index is made with."""

    model: str
    encoder: str  # the fingerprint of the model, its config and its tokenizer
    kind: Kind
    pooling: Pooling
    max_length: int
    dtype: Dtype
    whitening: str  # its fingerprint; empty where there is none
    version: int
    texts: int


@dataclass(frozen=True)
class Stored:
    """What a folder has."""

    about: About
    index: Index
    texts: list[str]
    whitening: Whitening | None
    source: SentenceEncoder

    @property
    def encoding(self) -> Encoding:
        return Encoding(max_length=self.about.max_length, dtype=self.about.dtype)


def build(config: BuildConfig) -> None:
    """Builds `config.folder`, whole or not at all; a command that ended before goes on with the vectors it had.
    Raises DataError."""
    folder = disk_path(config.folder, "--folder").resolve()  # a link's folder, not the link, is what is written
    check_new(folder)
    source = load_sentence_encoder(config.model)
    pooling, encoding = source.choose(config.pooling), source.encoding(config.encoding)
    if config.whiten > (width := source.width(pooling)):
        raise DataError(f"--whiten {config.whiten}: the model's vectors have {width} dimensions; give fewer")
    make_index(config.kind, width)  # raises where its library is missing
    mesh, prompt = make_mesh(config.mesh), source.prompt_of_documents
    encoded = encode_file(
        source, config.texts, folder, mesh, field=config.field, pooling=pooling, encoding=encoding, prompt=prompt
    )
    vectors = open_vectors(encoded.path)
    whitening = whiten(moments([vectors]), config.whiten) if config.whiten else None
    dimensions = whitening.kernel.shape[1] if whitening else vectors.shape[1]
    index = make_index(config.kind, dimensions, mesh=mesh)
    step = -(-len(vectors) // SAMPLE)  # over the whole file, which may be sorted
    if config.kind in ("ivf", "pq"):
        index.learn(whitened_unit(vectors[::step], whitening), len(vectors))
    _add(index, vectors, np.arange(len(vectors)), whitening)
    about = About(
        model=str(Path(config.model).absolute()),
        encoder=source.fingerprint,
        kind=config.kind,
        pooling=pooling,
        max_length=encoding.length,
        dtype=config.encoding.dtype,
        whitening=whitening.fingerprint if whitening else "",
        version=0,
        texts=len(index),
    )
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        if whitening:
            whitening.save(temporary / WHITENING)
        _write(temporary, index, read_texts(config.texts, config.field), about)
        check_new(folder)  # another command may have built it meanwhile
    encoded.path.unlink(missing_ok=True)
    size = (folder / "index.0").stat().st_size
    tell(f"{folder}: {len(index):,} texts, {dimensions} dimensions, {config.kind}, {size:,} bytes of vectors")


def add(config: AddConfig) -> None:
    """Adds texts to the index in `config.folder`, which is there as before or with all of them. Raises DataError."""
    folder = disk_path(config.folder, "--folder")
    _read_about(folder / ABOUT)  # before a folder is made to be locked
    with locked(folder):
        stored = read(folder, model=config.model)
        about, index = stored.about, stored.index
        encoded = encode_file(
            stored.source,
            config.texts,
            folder,
            make_mesh(MeshConfig()),
            field=config.field,
            pooling=about.pooling,
            encoding=stored.encoding,
            prompt=stored.source.prompt_of_documents,
        )
        known, texts, numbers = {*stored.texts}, list(stored.texts), []
        for number, text in enumerate(read_texts(config.texts, config.field)):
            if text not in known:
                known.add(text)
                texts.append(text)
                numbers.append(number)
        if len(numbers) < encoded.count:
            tell(
                f"{config.texts}: {encoded.count - len(numbers):,} of its "
                f"{encoded.count:,} texts are in {folder} already"
            )
        if numbers:
            _add(index, open_vectors(encoded.path), np.array(numbers), stored.whitening)
            about = replace(about, version=about.version + 1, texts=len(index))
            _write(folder, index, texts, about)
        encoded.path.unlink(missing_ok=True)
        for path in folder.glob("*.*"):  # what is no more, and what a killed command had not got to
            if re.fullmatch(r"(index|texts)\.\d+(\.jsonl)?", path.name) and path.name not in _names(about.version):
                path.unlink()
    tell(f"{folder}: {about.texts:,} texts")


def _add(index: Index, vectors: np.ndarray, numbers: np.ndarray, whitening: Whitening | None) -> None:
    for first in range(0, len(numbers), PIECE):
        index.add(whitened_unit(vectors[numbers[first : first + PIECE]], whitening))


def whitened_unit(vectors: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Vectors [n, D] whitened, and of length 1: float32 [n, K]."""
    return unit(np.asarray(vectors, np.float32) if whitening is None else whitening(vectors))


def _names(version: int) -> tuple[str, str]:
    return f"index.{version}", f"texts.{version}.jsonl"


def _write(folder: Path, index: Index, texts: Iterable[str], about: About) -> None:
    vectors, lines = (folder / name for name in _names(about.version))
    index.save(vectors)
    with atomic_write(lines) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    write_json(folder / ABOUT, asdict(about))


def _read_about(path: Path) -> About:
    if not path.exists():
        folder, state = path.parent, "holds no index" if path.parent.exists() else "no such folder"
        raise DataError(
            f"{folder}: {state}; make one with scripts.search build --model MODEL --texts FILE --folder {folder}"
        )
    fields, kinds = read_json(path, REBUILD), get_type_hints(About)
    for name, kind in kinds.items():
        if (
            type(fields.get(name)) is not (int if kind is int else str)
            or get_args(kind)
            and fields[name] not in get_args(kind)
        ):
            raise DataError(f"{path}: {name} is {fields.get(name)!r}; {REBUILD}")
    return About(**{name: fields[name] for name in kinds})


def read(folder: Path, *, model: str = "", breadth: int = 16, recall: float = 1.0) -> Stored:
    """The index in a folder with its model, which may lie elsewhere now, on all devices. Raises DataError for what does
    not belong together."""
    about = _read_about(folder / ABOUT)
    vectors, lines = (folder / name for name in _names(about.version))
    try:
        texts = list(read_texts(str(lines)))
        index = load_index(vectors, about.kind, breadth=breadth, recall=recall, mesh=make_mesh(MeshConfig()))
    except DataError:
        if _read_about(folder / ABOUT).version == about.version:
            raise
        return read(folder, model=model, breadth=breadth, recall=recall)  # texts were added meanwhile
    whitening = load_whitening(folder / WHITENING) if about.whitening else None
    if whitening and whitening.fingerprint != about.whitening:
        raise DataError(f"{folder / WHITENING}: not the one that the index was built with; {REBUILD}")
    model = model or about.model
    if not Path(model).exists():
        raise DataError(f"{model}: the model of {folder} is not there; give its folder as --model")
    about = replace(about, model=str(Path(model).absolute()))
    source = load_sentence_encoder(model)
    if source.fingerprint != about.encoder:
        raise DataError(
            f"{model}: its weights, config or vocabulary are not those that {folder} was built with; "
            f"bring those back, or {REBUILD}"
        )
    dimensions = whitening.kernel.shape[1] if whitening else source.width(about.pooling)
    if index.dimensions != dimensions or not len(index) == len(texts) == about.texts:
        raise DataError(
            f"{folder}: {len(index):,} vectors of {index.dimensions} dimensions, {len(texts):,} texts of "
            f"{about.texts:,}, and a model that makes {dimensions} do not belong together; {REBUILD}"
        )
    return Stored(about, index, texts, whitening, source)
