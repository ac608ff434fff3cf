"""Texts to vectors: several packed side by side into rows of one shape, the next ones tokenized meanwhile."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import jax
import numpy as np
from jax.sharding import get_mesh

from pegasus_zh.text.lists import many
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.vectors.pooling import Pooling, check_poolings, embed
from rope.encoder.roformer import RoFormer, RoFormerConfig, init, sizes
from training.files.errors import DataError
from training.partition import Dtype, abstract, check_divisible, parts_of, place, replicate, spec
from training.ranges import check_choices, check_ranges
from training.step import compiler_options

LENGTH = 64  # ids of a text, where nothing says otherwise


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How texts become rows, and rows batches."""

    max_length: int | None = None
    """Ids of a text, [CLS] and [SEP] included; of longer ones the end is cut. By default what a folder of
    sentence-transformers says, else 64."""
    tokens: int = 2048
    """Positions of a batch, padding included."""
    dtype: Dtype = "float32"
    """Of the computation; bfloat16 on TPUs and recent GPUs."""

    def __post_init__(self):
        check_choices(self)
        check_ranges(self, max_length=3, tokens=1)

    @property
    def length(self) -> int:
        """Ids of a text at most."""
        return self.max_length or LENGTH


Encode = Callable[[Iterable[str]], Iterator[np.ndarray]]
"""Makes vectors of texts, some at a time and in order: float32 [n, K, D], K poolings of each."""


def all_vectors(
    encode: Encode, texts: Iterable[str], progress: Callable[[int], object] = lambda count: None
) -> np.ndarray:
    """float32 [n, D] of all texts, one or more, by an encoder's first pooling. progress: told how many came."""
    parts = list[np.ndarray]()
    for part in encode(texts):
        parts.append(part[:, 0])
        progress(len(part))
    return np.concatenate(parts)


def encoder(source: TextEncoder, poolings: Sequence[Pooling], encoding: Encoding) -> Encode:
    """What makes vectors of texts, a window at a time, in order; under the mesh that is set, whose devices each take
    their part of every batch."""
    model = place(source.model, abstract(partial(init, source.config, jax.random.key(0))))
    return partial(encoder_for(source.config, source.tokenizer, poolings, encoding), model)


def encoder_for(
    config: RoFormerConfig, tokenizer: Tokenizer, poolings: Sequence[Pooling], encoding: Encoding
) -> Callable[[RoFormer, Iterable[str]], Iterator[np.ndarray]]:
    """The same of any model of this shape, which lies on the mesh, such as one that is being trained."""
    check_length(config, encoding.length)
    check_poolings(poolings, config, "the encoder")
    if not (mesh := get_mesh()).empty:
        check_divisible(mesh, sizes(config))
    config = replace(config, dtype=encoding.dtype)
    programs: dict[tuple[int, int], jax.stages.Compiled] = {}

    def compute(model: RoFormer, ids: np.ndarray, segments: np.ndarray) -> jax.Array:
        rows = [jax.device_put(x, spec("batch", None)) for x in (ids, segments)]
        if ids.shape not in programs:
            texts = texts_of(ids.shape[1])
            run = jax.jit(lambda model, ids, segments: replicate(embed(model, ids, segments, config, poolings, texts)))
            programs[ids.shape] = run.lower(model, *rows).compile(compiler_options=compiler_options())
        return programs[ids.shape](model, *rows)

    def windows(model: RoFormer, texts: Iterable[str]) -> Iterator[np.ndarray]:
        texts, waiting = iter(many(texts)), None
        # As many texts as a batch has positions: of short ones about 16 batches, and enough to pack well.
        while window := list(islice(texts, encoding.tokens)):
            found = len(window), _dispatch(window, tokenizer, encoding, partial(compute, model))
            if waiting:  # the window before is computed while this one is tokenized
                yield _collect(*waiting)
            waiting = found
        if waiting:
            yield _collect(*waiting)

    return windows


def check_length(config: RoFormerConfig, max_length: int) -> None:
    """Raises DataError for texts longer than the model's table of positions."""
    if config.positions == "learned" and row_length([max_length], max_length) > config.max_positions:
        raise DataError(
            f"--max-length {max_length}: the model has {config.max_positions} learned positions; give that or less"
        )


def texts_of(length: int) -> int:
    """The most texts that a row of this length is given."""
    return -(-length // 4)


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Texts of these lengths, none above `room`, in rows: the longest first, each where it leaves the least room."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(room + 1)]  # by the room that is left in them
    there = 0  # bit r: is there such a row?
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if fitting := there >> lengths[text]:
            left = lengths[text] + (fitting & -fitting).bit_length() - 1
            row = open_rows[left].pop()
            there ^= (not open_rows[left]) << left
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(text)
        if len(rows[row]) < texts_of(room):
            left -= lengths[text]
            open_rows[left].append(row)
            there |= 1 << left
    return rows


def row_length(lengths: Sequence[int], max_length: int) -> int:
    """Of the rows that such texts are packed in: few different ones."""
    return min(max(_power_of_two(max(lengths)), 16), max(max_length, 16))


def lay_out(
    packed: Sequence[Sequence[int]], framed: Sequence[Sequence[int]], shape: tuple[int, int], pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and segments [rows, T] of the texts that each row has, side by side and numbered from 1;
    further rows are empty."""
    ids, segments = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
    for row, members in enumerate(packed):
        end = 0
        for number, text in enumerate(members, 1):
            begin, end = end, end + len(framed[text])
            ids[row, begin:end], segments[row, begin:end] = framed[text], number
    return ids, segments


def _dispatch(
    texts: list[str], tokenizer: Tokenizer, encoding: Encoding, compute: Callable
) -> list[tuple[list[list[int]], jax.Array]]:
    """What is being computed: of each batch, which texts its rows have and their vectors [B, S, K, D]."""
    framed = [tokenizer.frame_source(tokenizer.encode(text), encoding.length) for text in texts]
    lengths = [len(x) for x in framed]
    room = row_length(lengths, encoding.length)
    packed, parts, found = pack(lengths, room), parts_of("batch"), []
    most = -(-max(encoding.tokens // room, 1) // parts) * parts
    for first in range(0, len(packed), most):
        chosen = packed[first : first + most]
        rows = min(most, -(-_power_of_two(len(chosen)) // parts) * parts)  # of few texts, fewer
        found.append((chosen, compute(*lay_out(chosen, framed, (rows, room), tokenizer.pad_id))))
    return found


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _collect(count: int, found: list[tuple[list[list[int]], jax.Array]]) -> np.ndarray:
    vectors = np.empty((count, *found[0][1].shape[2:]), np.float32)
    for chosen, computed in found:
        rows = np.asarray(computed)
        places = [(text, row, number) for row, members in enumerate(chosen) for number, text in enumerate(members)]
        text, row, number = np.array(places).T
        vectors[text] = rows[row, number]
    return vectors
