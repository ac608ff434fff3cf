"""A file of texts -> a file of vectors, written as it goes; the same command goes on where one was killed."""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import tyro
from array_record.python.array_record_module import ArrayRecordWriter

from pegasus_zh.text.losses import counting
from retrieval.texts import read_texts
from retrieval.vectors.arrays import check_finite, unit
from retrieval.vectors.encoding import Encode, Encoding, check_length, encoder
from retrieval.vectors.pooling import Pooling, check_poolings
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from retrieval.vectors.whitening import load_whitening
from training.files.atomic import atomic_write, resumable_write
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.telling import tell

FORMATS = (".npy", ".parquet", ".array_record")
GROUP = 1 << 14  # rows read, or written to Parquet, at a time


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Make a vector of each text of a file."""

    model: str
    """A work folder of scripts.pretrain_encoder or scripts.simcse, or a folder of transformers or
    sentence-transformers (BERT, RoBERTa-wwm, BGE, text2vec, RoFormer, SimBERT, RoFormer-Sim)."""
    input: str
    """.txt (one text a line), .jsonl, .json or .csv (see --field) or .tsv (the last column), also .gz and .zst."""
    out: str
    """The vectors, in the order of the texts:
    .npy (float32 [n, D]), .parquet (text, vector) or .array_record (each float32 [D])."""
    pooling: Pooling | Literal["auto"] = "auto"
    """cls (P1), pooler (P2: SimBERT, RoFormer-Sim), mean (P3), first-last (P4), last-two or pooler-tanh; auto:
    what the model was tuned with, as its folder says it, else mean."""
    prompt: str = ""
    """The name of a prompt of a sentence-transformers folder, put before every text; by default the folder's default
    one, if any."""
    field: str = "text"
    """The JSON field with a text."""
    whitening: str = ""
    """What scripts.whiten made of vectors of the same model and pooling: applied to these."""
    normalise: bool = False
    """Vectors of length 1, whose products are cosines."""
    on_long: Literal["cut", "stop"] = "cut"
    """Texts of more than --max-length ids: cut them and say how many, or stop at the first."""
    step: int | None = None
    """Which checkpoint of several; by default the newest undamaged one."""
    encoding: tyro.conf.OmitArgPrefixes[Encoding] = dataclasses.field(default_factory=Encoding)
    """Lengths and batches."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""


def embed_file(config: EmbedConfig) -> tuple[int, int]:
    """Writes `config.out`, whole or not at all, and returns the number of its vectors and their width.

    Raises DataError for texts and models that cannot be used, and for a vector with NaN, with the line.
    """
    out = Path(config.out)
    if out.suffix not in FORMATS:
        raise DataError(f"--out {out}: vectors are written as {', '.join(FORMATS)}")
    if out.is_dir():
        raise DataError(f"--out {out}: a folder; name a new file in it")
    source = load_sentence_encoder(config.model, step=config.step)
    made = encode_file(config, source, source.prompt(config.prompt))
    _CONVERT[out.suffix](made.path, out, config)
    return made.count, made.width


@dataclass(frozen=True)
class Encoded:
    path: Path  # a hidden .npy beside what is to be made of it
    identity: str  # of texts, model and settings
    count: int
    width: int


def encode_file(config: EmbedConfig, source: SentenceEncoder, prompt: str = "") -> Encoded:
    """The vectors of the input, in a file that is named by what they are made of:
    one that is there is whole, and taken. `prompt` is put before every text."""
    config = dataclasses.replace(config, encoding=source.encoding(config.encoding))
    pooling, model = source.choose(config.pooling), source.text.config
    check_poolings([pooling], model, config.model)
    check_length(model, config.encoding.length)
    if config.input == "-":
        raise DataError("--input -: texts are read twice, so give a file")
    texts = _Texts(config, prompt)
    count = sum(1 for _ in texts)
    if not count:
        raise DataError(f"{config.input}: no text in it")
    map_ = load_whitening(config.whitening) if config.whitening else None
    width = map_(np.zeros(source.width(pooling), np.float32)).shape[-1] if map_ else source.width(pooling)
    limits = (config.encoding.length, config.encoding.dtype, config.on_long, config.normalise)
    made_by = (source.fingerprint, map_.fingerprint if map_ else "")
    settings = repr((limits, pooling, count, texts.digest, made_by))
    identity = hashlib.sha256(settings.encode()).hexdigest()[:12]
    path = Path(config.out).absolute()
    path = path.with_name(f".{path.name}.{identity}.npy")
    if not path.exists():
        with resumable_write(path, identity) as file, jax.set_mesh(make_mesh(config.mesh)):
            tokenizer, lost = counting(source.text.tokenizer)
            encode = encoder(source.text._replace(tokenizer=tokenizer), [pooling], config.encoding)
            _encode(
                config, source.finish(encode, pooling), map_ or (lambda vectors: vectors), file, (count, width), texts
            )
            if (losses := lost()).unknown:  # of texts that are cut it is said already
                losses.report(config.input)
    return Encoded(path, identity, count, width)


class _Texts:
    """The input's texts after the prompt, read anew by each pass, and the digest of those of the last one."""

    def __init__(self, config: EmbedConfig, prompt: str):
        self._config, self._prompt, self.digest = config, prompt, ""

    def __iter__(self) -> Iterator[str]:
        digest = hashlib.sha256()
        for text in read_texts(self._config.input, self._config.field):
            text = self._prompt + text
            digest.update(json.dumps(text).encode() + b"\n")
            yield text
        self.digest = digest.hexdigest()


def _encode(
    config: EmbedConfig,
    encode: Encode,
    map_: Callable,
    file: IO[bytes],
    shape: tuple[int, int],
    texts: "_Texts",
) -> None:
    """Writes what is missing of the .npy file."""
    (count, width), digest = shape, texts.digest
    done = _resume(file, _npy_header(count, width), width)
    bar, long = progress_bar(done, count, unit="text"), _Long(config, done)
    for part in encode(islice(texts, done, None)):
        vectors = part.vectors[:, 0]
        long.count(part.lengths, done)
        vectors = map_(vectors)
        if config.normalise:
            vectors = unit(vectors)
        check_finite(vectors, done, f"{config.model}, of {config.input}")
        file.write(np.ascontiguousarray(vectors, np.float32).data)
        file.flush()
        done += len(vectors)
        bar.update(len(vectors))
    bar.close()
    if texts.digest != digest:
        file.truncate(0)
        raise DataError(
            f"{config.input}: it was changed while it was read; let it be, and the same command begins anew"
        )
    long.report()


class _Long:
    """What is said of texts that are too long."""

    def __init__(self, config: EmbedConfig, begin: int):
        self._config, self._begin, self._found, self._first = config, begin, 0, 0

    def count(self, lengths: np.ndarray, done: int) -> None:
        long = np.flatnonzero(lengths > self._config.encoding.length)
        if not len(long):
            return
        line = done + int(long[0]) + 1
        if self._config.on_long == "stop":
            raise DataError(
                f"{self._config.input}, line {line}: {lengths[long[0]]} ids, "
                f"more than {self._config.encoding.length}; give a larger --max-length, or --on-long cut"
            )
        self._first = self._first or line
        self._found += len(long)

    def report(self) -> None:
        if self._found:
            since = f" from line {self._begin + 1:,} on" if self._begin else ""
            tell(
                f"{self._config.input}: {self._found:,} texts{since} were cut to {self._config.encoding.length} "
                f"ids, the first of them on line {self._first}"
            )


def _npy_header(count: int, width: int) -> bytes:
    with io.BytesIO() as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, width)})
        return file.getvalue()


def _resume(file: IO[bytes], head: bytes, width: int) -> int:
    """How many vectors the file has; what is cut is cut off."""
    size = file.seek(0, 2)
    if size < len(head):
        file.truncate(0)
        file.write(head)
        size = len(head)
    done = (size - len(head)) // (4 * width)
    file.truncate(len(head) + done * 4 * width)
    return done


def _to_parquet(vectors: Path, out: Path, config: EmbedConfig) -> None:
    rows, texts = np.load(vectors, mmap_mode="r"), read_texts(config.input, config.field)
    kind = pyarrow.list_(pyarrow.float32(), rows.shape[1])
    schema = pyarrow.schema([("text", pyarrow.string()), ("vector", kind)])
    with atomic_write(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(rows), GROUP):
            flat = pyarrow.array(np.ravel(rows[first : first + GROUP]))
            vector = pyarrow.FixedSizeListArray.from_arrays(flat, type=kind)
            writer.write_table(pyarrow.table([list(islice(texts, len(vector))), vector], schema))
    vectors.unlink()


def _to_array_record(vectors: Path, out: Path, config: EmbedConfig) -> None:
    rows = np.load(vectors, mmap_mode="r")
    with atomic_write(out) as temporary:
        try:
            writer = ArrayRecordWriter(str(temporary), "group_size:1")
            for row in rows:
                writer.write(row.tobytes())
            writer.close()
        except RuntimeError as error:
            raise OSError(f"{out}: it cannot be written ({error}); make room, and the same command goes on") from None
    vectors.unlink()


_CONVERT = {
    ".npy": lambda vectors, out, config: os.replace(vectors, out),
    ".parquet": _to_parquet,
    ".array_record": _to_array_record,
}
