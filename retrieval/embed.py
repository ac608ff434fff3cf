"""A file of texts -> a file of vectors, written as it goes; the same command goes on where one was killed."""

import dataclasses
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow
import pyarrow.parquet
import tyro
from array_record.python.array_record_module import ArrayRecordWriter

from retrieval.texts import read_texts
from retrieval.vectors.encoding import Encoding
from retrieval.vectors.files import encode_file
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.source import load_sentence_encoder
from retrieval.vectors.whitening import load_whitening
from training.files.atomic import atomic_write
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh

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
    out = disk_path(config.out, "--out")
    if out.suffix not in FORMATS:
        raise DataError(f"--out {out}: vectors are written as {', '.join(FORMATS)}")
    if out.is_dir():
        raise DataError(f"--out {out}: a folder; name a new file in it")
    source = load_sentence_encoder(config.model, step=config.step)
    made = encode_file(
        source,
        config.input,
        out,
        make_mesh(config.mesh),
        field=config.field,
        pooling=source.choose(config.pooling),
        encoding=source.encoding(config.encoding),
        prompt=source.prompt(config.prompt),
        whitening=load_whitening(config.whitening) if config.whitening else None,
        normalise=config.normalise,
    )
    _CONVERT[out.suffix](made.path, out, config)
    return made.count, made.width


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
