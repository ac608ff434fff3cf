"""Batches of pairs with hidden tokens and labels, packed into rows of one shape, by step number.

Letters: R rows, T positions, M guessed positions of a row, B pairs.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np

from pegasus_zh.text.tokenizers import Tokenizer
from retrieval.matching.alphabet import NO, YES
from retrieval.matching.hiding import RATE, Masks, chosen, replaced
from retrieval.matching.pairs import Pair, named_rare
from retrieval.tuning.batches import interleaved
from retrieval.vectors.encoding import lay_out, pack, row_length
from rope.encoder.roformer import RoFormerConfig
from training.loop import LoopConfig
from training.mesh import Share, data_share
from training.partition import parts_of
from training.program import HostBatch


class MatchingForm(NamedTuple):
    """What a microbatch looks like."""

    rows: int
    length: int  # positions of a row
    pairs: int  # of a row, at most, as what follows
    words: int  # of a label
    hidden: int  # ids of a row that are guessed; 0: labels are all that is

    @property
    def guessed(self) -> int:
        """Of a row, at most."""
        return self.hidden + self.words * self.pairs

    def shapes(self, pairs: int) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Its arrays, of however many pairs."""
        row, guess = (self.rows, self.length), (self.rows, self.guessed)
        ints = {"ids": row, "segments": row, "places": guess, "labels": guess}
        shapes = {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in ints.items()}
        return shapes | {"weights": jax.ShapeDtypeStruct(guess, np.float32)}


class Hiding(NamedTuple):
    """What of a pair is hidden in training."""

    masks: Masks | None = "tokens"
    sides: float = 0.0  # share of pairs of which one text is hidden whole, and the label is not asked for
    rare: bool = False  # rare numbers by their order within the pair, instead of one unknown id


def form_of(rows: int, length: int, pairs: int, hiding: Hiding, soft: bool) -> MatchingForm:
    """pairs: of a row. soft: a label may be a probability, of both words."""
    # Four standard deviations above the mean of what is hidden; of a text that is hidden whole all of it. What is drawn
    # beyond is not hidden.
    tokens = RATE * length + 4 * (RATE * length) ** 0.5
    hidden = max(tokens * bool(hiding.masks), length / 2 * bool(hiding.sides))
    return MatchingForm(rows, length, pairs, 1 + soft, int(hidden))


def longest(
    most: int, pairs: int, hiding: Hiding, soft: bool, mesh: jax.sharding.Mesh, limit: int | None = None
) -> MatchingForm:
    """That of a microbatch whose pairs all have `most` ids between their marks, two in a row, or one where the limit is
    less than that. soft: a label may be a probability."""
    devices, room = parts_of("batch", mesh), room_of(most + 3, most, limit)
    each = min(room // (most + 3), 2)
    rows = -(-pairs // (each * devices)) * devices
    return form_of(rows, room, each, hiding, soft)


def room_of(longest: int, most: int, limit: int | None) -> int:
    """Positions of a row for pairs of up to so many ids, with `most` between their marks: of two such pairs."""
    room = 2 * row_length([longest], most + 3)
    return room if limit is None else min(room, limit)


def limit_of(config: RoFormerConfig) -> int | None:
    """Positions that a model's rows may have, if there is a limit."""
    return config.max_positions if config.positions == "learned" else None


class Example(NamedTuple):
    """A pair between its marks, and what of it is guessed."""

    ids: np.ndarray  # int32 [n]
    places: np.ndarray  # int32 [m]
    labels: np.ndarray  # int32 [m]
    weights: np.ndarray  # float32 [m]


def cut(a: int, b: int, most: int) -> tuple[int, int]:
    """Lengths of two texts that are together at most so long, the end of the longer one taken off first."""
    over = max(a + b - most, 0)
    gap = min(abs(a - b), over)
    a, b = (a - gap, b) if a > b else (a, b - gap)
    rest = over - gap
    return a - (rest + 1) // 2, b - rest // 2


def framed(pair: Pair, most: int, tokenizer: Tokenizer, rare: bool) -> tuple[np.ndarray, list[int]]:
    """[CLS] a [SEP] b [SEP] as ids, with at most `most` ids between the marks, and the lengths of the texts. Of a text
    that stands alone [CLS] a [SEP]."""
    first, last = tokenizer.frame_source([], 3)
    lengths = [x for x in cut(len(pair.a), len(pair.b), most) if x]
    ids = np.concatenate([x[:n] for x, n in zip((pair.a, pair.b), cut(len(pair.a), len(pair.b), most), strict=True)])
    ids = named_rare(ids, tokenizer.unk_id, rare)
    parts, begin = [np.array([first], np.int32)], 0
    for length in lengths:
        parts += [ids[begin : begin + length], np.array([last], np.int32)]
        begin += length
    return np.concatenate(parts).astype(np.int32), lengths


def example(pair: Pair, most: int, hiding: Hiding, tokenizer: Tokenizer, random: np.random.Generator) -> Example:
    """A pair as it is trained on: in either order, with what `random` hides of it."""
    if random.random() < 0.5 and len(pair.b):
        pair = pair._replace(a=pair.b, b=pair.a)
    ids, lengths = framed(pair, most, tokenizer, hiding.rare)
    begins = np.cumsum([1] + [length + 1 for length in lengths])[: len(lengths)]
    of_texts = (np.arange(begin, begin + n) for begin, n in zip(begins, lengths, strict=True))
    inside = np.concatenate([np.arange(0), *of_texts])  # of texts without ids nothing
    mask, size = tokenizer.mask_id, tokenizer.vocab_size
    assert mask is not None  # the encoder's loader has looked
    given, label, hidden = ids, pair.label, np.zeros(len(ids), bool)
    if hiding.sides and len(lengths) == 2 and random.random() < hiding.sides:
        side = int(random.integers(2))
        hidden[begins[side] : begins[side] + lengths[side]] = True
        given, label = np.where(hidden, mask, ids), float("nan")
    elif hiding.masks:
        hidden[inside] = chosen(lengths, hiding.masks, random)
        given = replaced(ids, hidden, mask, tokenizer.specials, size, random)
    places = np.flatnonzero(hidden)
    labels, weights = ids[places], np.ones(len(places))
    if label == label:  # its words, at [CLS]
        asked = [(word, p) for word, p in ((NO, 1 - label), (YES, label)) if p]
        places = np.concatenate([[0] * len(asked), places])
        labels = np.concatenate([[word for word, _ in asked], labels])
        weights = np.concatenate([[p for _, p in asked], weights])
    return Example(given, places.astype(np.int32), labels.astype(np.int32), weights.astype(np.float32))


class MatchingBatches:
    """Batches by step number; every pass over the pairs is a new order, of which what is left below a batch is left
    out. Each process packs its own pairs."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        loop: LoopConfig,
        most: int,
        hiding: Hiding,
        tokenizer: Tokenizer,
        mesh: jax.sharding.Mesh,
        limit: int | None = None,
    ):
        """most: ids of a pair between its marks. limit: positions that a row may have."""
        self._pairs, self._loop, self._most, self._hiding, self._tokenizer = pairs, loop, most, hiding, tokenizer
        self._parts = data_share(mesh).parts
        self._lengths = np.array([sum(cut(len(x.a), len(x.b), most)) + 2 + (len(x.b) > 0) for x in pairs])
        self._soft = any(0 < x.label < 1 for x in pairs)
        self._room = room_of(int(self._lengths.max()), most, limit)
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([loop.seed, epoch]).permutation(len(pairs)))
        devices = parts_of("batch", mesh) // self._parts
        every = itertools.product(range(loop.steps), range(self._parts))
        packed = (rows for step, part in every for _, rows in self._packed(step, part))
        most_rows, self._pairs_of_row = np.max([(len(rows), max(map(len, rows))) for rows in packed], 0).tolist()
        self._rows = -(-most_rows // devices) * devices

    @property
    def form(self) -> MatchingForm:
        """That of a microbatch, over all processes."""
        rows = self._rows * self._parts
        return form_of(rows, self._room, self._pairs_of_row, self._hiding, self._soft)

    def _packed(self, step: int, part: int) -> Iterator[tuple[np.ndarray, list[list[int]]]]:
        """Of each microbatch of this part the numbers of its pairs, and which of them its rows have."""
        loop = self._loop
        size, (epoch, number) = loop.batch_size // self._parts, divmod(step, len(self._pairs) // loop.batch_size)
        mine = self._order(epoch)[number * loop.batch_size :][: loop.batch_size][part * size :][:size]
        for m in range(loop.accumulate):  # pair e goes to microbatch e % accumulate, as training.loop has it
            group = mine[m :: loop.accumulate]
            yield group, pack(self._lengths[group].tolist(), self._room)

    def __call__(self, first: int, share: Share) -> Iterator[HostBatch]:
        """Batch `first` and all later: a process's ids and segments [r, T], places [r, M] that are guessed, their
        labels and weights [r, M]."""
        for step in itertools.count(first):
            yield interleaved([self._laid(step, group, rows) for group, rows in self._packed(step, share.part)])

    def _laid(self, step: int, group: np.ndarray, packed: list[list[int]]) -> HostBatch:
        form, seed = self.form, self._loop.seed
        examples = [
            example(
                self._pairs[n],
                self._most,
                self._hiding,
                self._tokenizer,
                np.random.default_rng([seed, 1, step, int(n)]),
            )
            for n in group
        ]
        ids, segments = lay_out(
            packed, [x.ids.tolist() for x in examples], (self._rows, self._room), self._tokenizer.pad_id
        )
        shape = (self._rows, form.guessed)
        places, labels, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, members in enumerate(packed):
            begins = np.cumsum([0, *(len(examples[n].ids) for n in members)])
            found = [
                (place + begin, label, weight)
                for n, begin in zip(members, begins[:-1], strict=True)
                for place, label, weight in zip(*examples[n][1:], strict=True)
            ]
            # Labels first: what is beyond what a row may be asked for are hidden tokens, which stay as they were.
            found.sort(key=lambda one: one[0] not in begins)
            for at, one in enumerate(found[: form.guessed]):
                places[row, at], labels[row, at], weights[row, at] = one
            for place, label, _ in found[form.guessed :]:
                ids[row, place] = label
        return {"ids": ids, "segments": segments, "places": places, "labels": labels, "weights": weights}
