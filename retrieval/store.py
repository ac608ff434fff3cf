"""The folder of an index: vectors that are searched, their texts, the whitening, and how a question is to be encoded.

    about.json           what all is, and which version
    index.3              the vectors, as retrieval.index has them
    texts.3.jsonl        the texts, in the same order
    whitening.safetensors

Adding writes the next version beside the last; about.json, which is replaced at one instant, says which one is read.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.embed import EmbedConfig, Encoded, encode_file, pooling_of
from retrieval.encode import Encoding
from retrieval.index import Index, Kind, load_index, make_index
from retrieval.pooling import Pooling
from retrieval.texts import read_texts
from retrieval.vectors import open_vectors, unit
from retrieval.whitening import Whitening, load_whitening, moments, whiten
from rope.huggingface import Pooler
from training.errors import DataError
from training.lock import locked
from training.mesh import MeshConfig, make_mesh
from training.ranges import check_ranges
from training.weights import fingerprint
from training.whole import check_new, read_json, whole, write_json

WHITENING, ABOUT = "whitening.safetensors", "about.json"
PIECE = 1 << 16  # vectors in memory at a time
SAMPLE = 1 << 18  # of which ivf and pq learn
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
    pooling: Pooling | Literal["auto"] = "auto"
    """cls (P1), pooler (P2), mean (P3), first-last (P4) or last-two; auto: what scripts.simcse tuned the model with, else mean."""
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


class Stored(NamedTuple):
    """What a folder has."""

    about: dict[str, Any]
    index: Index
    texts: list[str]
    whitening: Whitening | None
    source: TextEncoder

    @property
    def encoding(self) -> Encoding:
        return Encoding(max_length=self.about["max_length"], dtype=self.about["dtype"])


def build(config: BuildConfig, say: Callable[[str], None] = print) -> None:
    """Builds `config.folder`, whole or not at all; a command that ended before goes on with the vectors it had. Raises DataError."""
    folder = Path(config.folder)
    check_new(folder)
    source = load_text_encoder(config.model, pooler=config.pooler, say=say)
    if config.whiten > source.config.width:
        raise DataError(
            f"--whiten {config.whiten}: the model's vectors have {source.config.width} dimensions; give fewer"
        )
    make_index(config.kind, source.config.width)  # raises where its library is missing
    same = {name: getattr(config, name) for name in ("model", "pooling", "field", "encoding", "mesh")}
    encoded = encode_file(EmbedConfig(input=config.texts, out=str(folder), **same), source, say)
    vectors = open_vectors(encoded.path)
    whitening = whiten(moments([vectors]), config.whiten, say=say) if config.whiten else None
    dimensions = whitening.kernel.shape[1] if whitening else vectors.shape[1]
    index = make_index(config.kind, dimensions, mesh=make_mesh(config.mesh))
    step = -(-len(vectors) // SAMPLE)  # over the whole file, which may be sorted
    if config.kind in ("ivf", "pq"):
        index.learn(ready(vectors[::step], whitening), len(vectors))
    _add(index, vectors, whitening)
    about = {
        "model": str(Path(config.model).absolute()),
        "weights": fingerprint(source.model),
        "kind": config.kind,
        "pooling": pooling_of(source, config.pooling),
        "pooler": config.pooler,
        "max_length": config.encoding.max_length,
        "dtype": config.encoding.dtype,
        "version": 0,
        "last": encoded.identity,
    }
    with whole(folder) as temporary:
        temporary.mkdir()
        if whitening:
            whitening.save(temporary / WHITENING)
        _write(temporary, index, read_texts(config.texts, config.field), about)
    encoded.path.unlink()
    size = (folder / "index.0").stat().st_size
    say(f"{folder}: {len(index):,} texts, {dimensions} dimensions, {config.kind}, {size:,} bytes of vectors")


def add(config: AddConfig, say: Callable[[str], None] = print) -> None:
    """Adds texts to the index in `config.folder`, which is there as before or with all of them. Raises DataError."""
    folder = Path(config.folder)
    read_json(folder / ABOUT, REBUILD)
    with locked(folder):
        stored = read(folder, say=say)
        about = stored.about
        same = {name: about[name] for name in ("model", "pooling")}
        encode = EmbedConfig(input=config.texts, out=str(folder), field=config.field, encoding=stored.encoding, **same)
        encoded: Encoded = encode_file(encode, stored.source, say)
        if encoded.identity == about["last"]:
            encoded.path.unlink()
            raise DataError(f"{config.texts}: the texts that were put into {folder} last; they are in it")
        _add(stored.index, open_vectors(encoded.path), stored.whitening)
        changed = {"version": about["version"] + 1, "last": encoded.identity}
        _write(folder, stored.index, [*stored.texts, *read_texts(config.texts, config.field)], about | changed)
        encoded.path.unlink()
        for name in _names(about["version"]):
            (folder / name).unlink(missing_ok=True)
    say(f"{folder}: {len(stored.index):,} texts")


def _add(index: Index, vectors: np.ndarray, whitening: Whitening | None) -> None:
    for first in range(0, len(vectors), PIECE):
        index.add(ready(vectors[first : first + PIECE], whitening))


def ready(vectors: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Whitened, and of length 1."""
    return unit(np.asarray(vectors, np.float32) if whitening is None else whitening(vectors))


def _names(version: int) -> tuple[str, str]:
    return f"index.{version}", f"texts.{version}.jsonl"


def _write(folder: Path, index: Index, texts: Iterable[str], about: dict[str, Any]) -> None:
    vectors, lines = (folder / name for name in _names(about["version"]))
    index.save(vectors)
    with whole(lines) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    write_json(folder / ABOUT, about | {"texts": len(index), "dimensions": index.dimensions})


def read(folder: Path, *, breadth: int = 16, recall: float = 1.0, say: Callable[[str], None] = print) -> Stored:
    """The index in a folder with its model, on all devices. Raises DataError for what does not belong together."""
    about = read_json(folder / ABOUT, REBUILD)
    names = {
        "model",
        "weights",
        "kind",
        "pooling",
        "pooler",
        "max_length",
        "dtype",
        "version",
        "last",
        "texts",
        "dimensions",
    }
    if missing := names - set(about):
        raise DataError(f"{folder / ABOUT}: no {min(missing)}; {REBUILD}")
    vectors, lines = (folder / name for name in _names(about["version"]))
    try:
        texts = list(read_texts(str(lines)))
        index = load_index(vectors, about["kind"], breadth=breadth, recall=recall, mesh=make_mesh(MeshConfig()))
    except DataError:
        if read_json(folder / ABOUT, REBUILD).get("version") == about["version"]:
            raise
        return read(folder, breadth=breadth, recall=recall, say=say)  # texts were added meanwhile
    whitening = load_whitening(folder / WHITENING) if (folder / WHITENING).exists() else None
    source = load_text_encoder(about["model"], pooler=about["pooler"], say=say)
    if (found := fingerprint(source.model)) != about["weights"]:
        raise DataError(
            f"{about['model']}: its weights are {found}, and {folder} was built with {about['weights']}; bring those back, or {REBUILD}"
        )
    width = source.config.width
    made = width if whitening is None else whitening.kernel.shape[1] if len(whitening.mean) == width else None
    if index.dimensions != made or not len(index) == len(texts) == about["texts"]:
        raise DataError(
            f"{folder}: {len(index):,} vectors of {index.dimensions} dimensions, {len(texts):,} texts of {about['texts']:,}, and a "
            f"model that makes {made or width} do not belong together; {REBUILD}"
        )
    return Stored(about, index, texts, whitening, source)
