"""Batches of packed sentences for tuning, all of one shape, by step number."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np

from retrieval.vectors.encoding import lay_out, pack, row_length, texts_of
from training.loop import LoopConfig
from training.mesh import Share, data_share
from training.partition import parts_of
from training.program import HostBatch


class Form(NamedTuple):
    """What a microbatch looks like."""

    rows: int  # of packed sentences
    length: int  # positions of a row
    sentences: int  # of an example, each view counted
    scored: bool

    def shapes(self, examples: int) -> Mapping[str, jax.ShapeDtypeStruct]:
        """The arrays of a microbatch of so many examples."""
        rows, each = (self.rows, self.length), (examples, self.sentences)
        shapes = {"ids": rows, "segments": rows, "places": each, "texts": each}
        found = {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}
        return found | ({"scores": jax.ShapeDtypeStruct((examples,), np.float32)} if self.scored else {})


def longest(max_length: int, examples: int, sentences: int, scored: bool) -> Form:
    """That of a microbatch whose sentences are all as long as may be."""
    length = row_length([max_length], max_length)
    return Form(examples * -(-sentences // (length // max_length)), length, sentences, scored)


def places_of(packed: Sequence[Sequence[int]], first: int, length: int) -> np.ndarray:
    """int32 [texts]: of each packed text its place among those of all rows, the first of these being row `first`, as
    retrieval.tuning.program.at_places has them."""
    places, texts = np.empty(sum(map(len, packed)), np.int32), texts_of(length)
    for row, members in enumerate(packed, first):
        places[members] = row * texts + np.arange(len(members))
    return places


def interleaved(microbatches: Sequence[Mapping[str, np.ndarray]]) -> HostBatch:
    """Arrays [n, ...] of each of m microbatches -> [n m, ...] of the batch: row r is of microbatch r % m, as
    training.loop.to_mesh has it."""
    stacked = {name: np.stack([x[name] for x in microbatches], 1) for name in microbatches[0]}
    return {name: x.reshape(-1, *x.shape[2:]) for name, x in stacked.items()}


class Batches:
    """Batches of packed sentences, all of one shape, by step number; every epoch is a new order.

    What is left of an epoch below a batch is left out. Each process packs its own examples. Of groups of examples
    every batch has equally many: a small group comes round more often.
    """

    def __init__(
        self,
        ids: Sequence[list[list[int]]],
        scores: np.ndarray | None,
        loop: LoopConfig,
        max_length: int,
        views: int,
        pad: int,
        mesh: jax.sharding.Mesh,
        groups: Sequence[np.ndarray] = (),
    ):
        """ids: of each example and sentence. views: how often each sentence comes. groups: the numbers of each one's
        examples; by default all are one. Raises ValueError where a group has no equal share of a batch."""
        self._ids, self._scores, self._loop, self._views, self._pad = ids, scores, loop, views, pad
        known: dict[tuple[int, ...], int] = {}
        self._texts = np.array([[known.setdefault(tuple(x), len(known)) for x in example] for example in ids], np.int32)
        self._parts = data_share(mesh).parts
        self._groups = groups or [np.arange(len(ids))]
        if loop.batch_size % (count := len(self._groups)):
            raise ValueError(
                f"batch_size is {loop.batch_size}, and {count} groups of labels have equal shares of it: give a "
                f"multiple of {count}"
            )
        self._share = loop.batch_size // count
        if (least := min(map(len, self._groups))) < self._share:
            raise ValueError(
                f"a group of labels has {least} examples, and its share of a batch is {self._share}: give more of "
                "them, or a smaller batch_size"
            )
        self._order = lru_cache(2 * count)(self._permuted)
        self._room = row_length([len(x) for example in ids for x in example], max_length)
        devices = parts_of("batch", mesh) // self._parts
        # The batch with the most rows decides the shape of all: of many short sentences the others have nearly as many.
        parts = itertools.product(range(loop.steps), range(self._parts))
        most = max(len(rows) for step, part in parts for rows in self._packed(step, part)[1])
        self._rows = -(-most // devices) * devices

    @property
    def form(self) -> Form:
        """That of a microbatch, over all processes."""
        return Form(self._rows * self._parts, self._room, len(self._ids[0]) * self._views, self._scores is not None)

    def _permuted(self, group: int, epoch: int) -> np.ndarray:
        """The group's examples in the order of one pass over it."""
        seed = [self._loop.seed, epoch, group] if group else [self._loop.seed, epoch]
        return np.random.default_rng(seed).permutation(self._groups[group])

    def _examples(self, step: int) -> np.ndarray:
        """The numbers of the batch's examples: the same share of each group."""
        drawn = []
        for group, members in enumerate(self._groups):
            epoch, number = divmod(step, len(members) // self._share)
            drawn.append(self._order(group, epoch)[number * self._share :][: self._share])
        return np.concatenate(drawn)

    def _packed(self, step: int, part: int) -> tuple[list[list[list[int]]], list[list[list[int]]], np.ndarray]:
        """Of each microbatch of this part: its sentences, which of them its rows have; and the examples' numbers."""
        loop = self._loop
        size = loop.batch_size // self._parts
        mine = self._examples(step)[part * size :][:size]
        # Example e goes to microbatch e % accumulate, as training.loop.to_mesh has it.
        groups = [mine[m :: loop.accumulate] for m in range(loop.accumulate)]
        sentences = [[x for i in group for x in self._ids[i] * self._views] for group in groups]
        return sentences, [pack([len(x) for x in found], self._room) for found in sentences], mine

    def __call__(self, first: int, share: Share) -> Iterator[HostBatch]:
        """Batch `first` and all later: a process's ids and segments [r, T], places [b, S], texts [b, S], the same
        number for the same text, and scores [b] if there are any."""
        count = len(self._ids[0]) * self._views
        for step in itertools.count(first):
            sentences, packed, mine = self._packed(step, share.part)
            laid = []
            for found, rows in zip(sentences, packed, strict=True):
                ids, segments = lay_out(rows, found, (self._rows, self._room), self._pad)
                places = places_of(rows, share.part * self._rows, self._room).reshape(-1, count)
                laid.append({"ids": ids, "segments": segments, "places": places})
            batch = interleaved(laid) | {"texts": self._texts[mine]}
            yield batch if self._scores is None else batch | {"scores": self._scores[mine]}
