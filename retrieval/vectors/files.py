"""The vectors of a file's texts, in a file that is written as they are made, and gone on with where one was killed."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import jax
import numpy as np

from pegasus_zh.text.losses import counting
from retrieval.texts import read_texts
from retrieval.vectors.arrays import check_finite, unit
from retrieval.vectors.encoding import Encoding, check_length, encoder
from retrieval.vectors.pooling import Pooling, check_poolings
from retrieval.vectors.source import SentenceEncoder
from retrieval.vectors.whitening import Whitening
from training.files.atomic import resumable_write
from training.files.errors import DataError
from training.metrics import progress_bar


@dataclass(frozen=True)
class Encoded:
    """What encode_file has made."""

    path: Path  # a hidden .npy beside what is to be made of it, float32 [count, width]
    identity: str  # of texts, model and settings
    count: int
    width: int


def encode_file(
    source: SentenceEncoder,
    input: str,
    beside: Path | str,
    mesh: jax.sharding.Mesh,
    *,
    field: str,
    pooling: Pooling,
    encoding: Encoding,
    prompt: str,
    whitening: Whitening | None = None,
    normalise: bool = False,
) -> Encoded:
    """The vectors of the input's texts, in a hidden file beside another: its name has a digest of what they are made
    of, and one that is there is whole, and taken.

    field: of a text, as of read_texts. prompt: what is put before every text. normalise: are vectors
    made of length 1? Raises DataError for texts that cannot be used or that change meanwhile, a pooling, length or
    whitening that does not go with the model, a vector with NaN, and where another process is at work on the same.
    """
    check_poolings([pooling], source.text.config, source.where)
    check_length(source.text.config, encoding.length)
    if input == "-":
        raise DataError("-: texts are read twice, so give a file")
    texts = _Texts(input, field, prompt)
    count = sum(1 for _ in texts)
    if not count:
        raise DataError(f"{input}: no text in it")
    width = source.width(pooling)
    if whitening:
        width = whitening(np.zeros(width, np.float32)).shape[-1]
    made_by = (source.fingerprint, whitening.fingerprint if whitening else "")
    settings = repr((encoding.length, encoding.dtype, normalise, pooling, count, texts.digest, made_by))
    identity = hashlib.sha256(settings.encode()).hexdigest()[:12]
    beside = Path(beside).absolute()
    path = beside.with_name(f".{beside.name}.{identity}.npy")
    if not path.exists():
        tokenizer, lost = counting(source.text.tokenizer)
        with resumable_write(path, identity) as file, jax.set_mesh(mesh):
            encode = encoder(source.text._replace(tokenizer=tokenizer), [pooling], encoding)
            encode = source.finish(encode, pooling)

            def made(texts: Iterable[str]) -> Iterator[np.ndarray]:
                for part in encode(texts):
                    vectors = whitening(part[:, 0]) if whitening else part[:, 0]
                    yield unit(vectors) if normalise else vectors

            _write(file, (count, width), texts, made, f"{source.where}, of {input}")
        lost().report_any(input)
    return Encoded(path, identity, count, width)


class _Texts:
    """The input's texts after the prompt, read anew by each pass, and the digest of those of the last one."""

    def __init__(self, input: str, field: str, prompt: str):
        self.input, self._field, self._prompt, self.digest = input, field, prompt, ""

    def __iter__(self) -> Iterator[str]:
        digest = hashlib.sha256()
        for text in read_texts(self.input, self._field):
            text = self._prompt + text
            digest.update(json.dumps(text).encode() + b"\n")
            yield text
        self.digest = digest.hexdigest()


def _write(
    file: IO[bytes],
    shape: tuple[int, int],
    texts: _Texts,
    made: Callable[[Iterable[str]], Iterator[np.ndarray]],
    where: str,
) -> None:
    """Writes what is missing of the .npy file of this shape [n, D]. Raises DataError."""
    (count, width), digest = shape, texts.digest
    done = _resume(file, _npy_header(count, width), width)
    bar = progress_bar(done, count, unit="text")
    for vectors in made(islice(texts, done, None)):
        check_finite(vectors, done, where)
        file.write(np.ascontiguousarray(vectors, np.float32).data)
        file.flush()
        done += len(vectors)
        bar.update(len(vectors))
    bar.close()
    if texts.digest != digest:
        file.truncate(0)
        raise DataError(f"{texts.input}: it was changed while it was read; let it be, and the same command begins anew")


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
