"""Texts in, texts out, by any decoder: inputs of like length together, one compiled program for each length bucket."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
import numpy as np
import tyro

from pegasus_zh.text.lists import many
from pegasus_zh.text.tokenizers import Tokenizer
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
    search: tyro.conf.OmitArgPrefixes[Search] = dataclasses.field(default_factory=Search)
    """Greedy, beams, or at random."""

    def __post_init__(self):
        check_ranges(self, max_source=3, max_target=3, batch_size=1, seed=(0, 1 << 32))


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
) -> Iterator[str]:
    """What the model writes for each framed source (ids), in order; under the mesh that is set, if one is.

    model: the parameters that the decoder reads. Sources are taken a window at a time (WINDOW batches), and decoded in
    order of their length. first: the number of the first, on which what is drawn at random depends.
    """
    parts = parts_of("batch")
    rows = -(-writing.batch_size // parts) * parts  # what the mesh can cut
    marks = Marks(start=tokenizer.start_id, end=tokenizer.eos_id, pad=tokenizer.pad_id)
    sources = iter(sources)
    while window := list(islice(sources, WINDOW * rows)):
        texts: dict[int, str] = {}
        order = sorted(range(len(window)), key=lambda i: -len(window[i]))
        for chosen in (order[i : i + rows] for i in range(0, len(order), rows)):
            length = bucket(max(1, min(len(window[chosen[0]]), writing.max_source)), writing.max_source)
            ids, seeds = np.full((rows, length), marks.pad, np.int32), np.zeros(rows, np.uint32)
            for row, i in enumerate(chosen):
                source = window[i][:length]
                ids[row, : len(source)] = source
                seeds[row] = np.random.SeedSequence([writing.seed, first + i]).generate_state(1)[0]
            found, _ = write(
                model,
                jax.device_put(ids, spec("batch", None)),
                jax.device_put(seeds, spec("batch")),
                decoder=decoder,
                search=writing.search,
                marks=marks,
                length=writing.max_target,
            )
            texts |= {i: tokenizer.decode(ids.tolist()) for i, ids in zip(chosen, np.asarray(found), strict=False)}
        yield from (texts[i] for i in range(len(window)))
        first += len(window)


def write_texts(
    model: Any, decoder: Decoder, tokenizer: Tokenizer, writing: Writing, texts: Iterable[str], first: int = 0
) -> Iterator[str]:
    """What the model writes for each text, in order; otherwise as `generate`.

    Raises ValueError for one text where a list of texts belongs.
    """
    ids = map(tokenizer.encode, many(texts))
    framed = (tokenizer.frame_source(x, writing.max_source) if x else [] for x in ids)  # of nothing, nothing
    return generate(model, decoder, tokenizer, framed, writing, first)
