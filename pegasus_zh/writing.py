"""Texts in, texts out, by any decoder: inputs of like length together, one compiled program for each length bucket."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import jax
import numpy as np
import tyro

from pegasus_zh.text.lists import many
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.text.words import opening, spellings
from rope.decoding.decoder import Decoder
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from training.partition import parts_of, spec
from training.ranges import check_ranges

WINDOW = 16  # batches that are sorted by length together, and then written out in order


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What is written, whatever the inputs."""

    max_source: int = 256
    """Ids of an input, special tokens included; longer ones are cut."""
    max_target: int = 32
    """Ids written at most, the end token included."""
    batch_size: int = 32
    """Inputs decoded together."""
    seed: int = 0
    """Of what is drawn at random; each input's own draw depends on it and the input's number alone."""
    forbid: tuple[str, ...] = ()
    """Words that are not written, in whatever way the vocabulary cuts them."""
    begin: str = ""
    """What every text begins with."""
    search: tyro.conf.OmitArgPrefixes[Search] = dataclasses.field(default_factory=Search)
    """Greedy, beams, or at random."""

    def __post_init__(self):
        check_ranges(self, max_source=3, max_target=3, batch_size=1, seed=(0, 1 << 32))
        if self.search.min_length > self.max_target + 1:
            raise ValueError(
                f"min_length is {self.search.min_length}: at most {self.max_target + 1} can be there, max_target's "
                "ids and the start token; give a larger --max-target"
            )
        if not all(isinstance(word, str) and word.strip() for word in many(self.forbid)):
            raise ValueError(f"forbid is {self.forbid}: give words, none of them empty")


def bucket(length: int, longest: int) -> int:
    """The positions that inputs of this length are padded to:
    few lengths, less than a third of each padding (from 64 on)."""
    step = 32 if length <= 128 else 64 if length <= 512 else 128
    return min(-(-length // step) * step, longest)


def generate(
    model: Any,
    decoder: Decoder,
    tokenizer: Tokenizer,
    sources: Iterable[Sequence[int]],
    writing: Writing,
    first: int = 0,
    marks: Marks | None = None,
) -> Iterator[str]:
    """What the model writes for each framed source (ids), in order: the first of `answers`, which takes the same."""
    return (best for best, *_ in answers(model, decoder, tokenizer, sources, writing, first, marks))


def answers(
    model: Any,
    decoder: Decoder,
    tokenizer: Tokenizer,
    sources: Iterable[Sequence[int]],
    writing: Writing,
    first: int = 0,
    marks: Marks | None = None,
) -> Iterator[list[str]]:
    """The texts that the model writes for each framed source (ids), in order, as many as the search is asked for, the
    best first; under the mesh that is set, if one is.

    model: the parameters that the decoder reads. Sources are taken a window at a time (WINDOW batches), and decoded in
    order of their length. first: the number of the first, on which what is drawn at random depends. marks: those of
    `marks_of`, where some ids are never written, or where they serve several calls.
    """
    parts, count = parts_of("batch"), writing.search.answers
    rows = -(-writing.batch_size // parts) * parts  # what the mesh can cut
    marks = marks or marks_of(tokenizer, writing)
    sources = iter(sources)
    while window := list(islice(sources, WINDOW * rows)):
        texts: dict[int, list[str]] = {}
        order = sorted(range(len(window)), key=lambda i: -len(window[i]))
        for chosen in (order[i : i + rows] for i in range(0, len(order), rows)):
            length = bucket(max(1, min(len(window[chosen[0]]), writing.max_source)), writing.max_source)
            ids, seeds = np.full((rows, length), marks.pad, np.int32), np.zeros((rows, count), np.uint32)
            for row, i in enumerate(chosen):
                source = window[i][:length]
                ids[row, : len(source)] = source
                seeds[row] = np.random.SeedSequence([writing.seed, first + i]).generate_state(count)
            found, _ = write(
                model,
                jax.device_put(ids, spec("batch", None)),
                jax.device_put(seeds.reshape(-1), spec("batch")),
                decoder=decoder,
                search=writing.search,
                marks=marks,
                length=writing.max_target,
            )
            each = np.asarray(found).reshape(rows, count, -1).tolist()
            texts |= {i: [*map(tokenizer.decode, written)] for i, written in zip(chosen, each, strict=False)}
        yield from (texts[i] for i in range(len(window)))
        first += len(window)


def unwritten(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special ids that no text has: of the unknown, the beginning and the mask, but for the one that ends texts."""
    special = (tokenizer.unk_id, tokenizer.start_id, tokenizer.mask_id)
    return tuple(i for i in special if i not in (None, tokenizer.eos_id))


def marks_of(tokenizer: Tokenizer, writing: Writing, suppressed: tuple[int, ...] = ()) -> Marks:
    """The ids that begin and end what is written, and those it may not have, `suppressed` among them.

    tokenizer: a counting one (text/losses.py) would count these words as the input's. Raises DataError for words that
    the vocabulary cannot write first, and for those it writes in too many ways.
    """
    words = chain.from_iterable(spellings(tokenizer, word) for word in writing.forbid)
    return Marks(
        start=tokenizer.start_id,
        end=tokenizer.eos_id,
        pad=tokenizer.pad_id,
        first=opening(tokenizer, writing.begin),
        never=tuple(dict.fromkeys([*((i,) for i in suppressed), *words])),
    )


def write_texts(
    model: Any,
    decoder: Decoder,
    tokenizer: Tokenizer,
    writing: Writing,
    texts: Iterable[str],
    first: int = 0,
    marks: Marks | None = None,
) -> Iterator[list[str]]:
    """The texts that the model writes for each text, in order; otherwise as `answers`.

    Raises ValueError for one text where a list of texts belongs.
    """
    ids = map(tokenizer.encode, many(texts))
    framed = (tokenizer.frame_source(x, writing.max_source) if x else [] for x in ids)  # of nothing, nothing
    return answers(model, decoder, tokenizer, framed, writing, first, marks)
