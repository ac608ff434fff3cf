"""Batches for a prefix language model that finds too: both directions of each pair, packed into rows of one shape.

Letters: R rows, T positions, M predicted positions of a row, B examples, S = 2 directions, D dimensions.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from pegasus_zh.text.tokenizers import Tokenizer
from retrieval.tuning.batches import interleaved, places_of
from retrieval.tuning.questions import Drawn, Ragged, Stream, corrupt
from retrieval.vectors.encoding import lay_out, pack
from training.loop import LoopConfig
from training.mesh import Share, data_share
from training.metrics import progress_bar
from training.partition import parts_of
from training.program import HostBatch


class QuestionForm(NamedTuple):
    """What a microbatch looks like."""

    rows: int
    length: int  # positions of a row
    targets: int  # of a row that are predicted, at most
    teacher: int = 0  # dimensions of the teacher's vectors; 0: none

    def shapes(self, examples: int) -> Mapping[str, jax.ShapeDtypeStruct]:
        """The arrays of a microbatch of so many examples."""
        row, target, each = (self.rows, self.length), (self.rows, self.targets), (examples, 2)
        shapes = dict.fromkeys(("ids", "segments", "types"), row) | dict.fromkeys(("targets", "labels"), target)
        shapes |= dict.fromkeys(("places", "texts"), each)
        found = {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}
        if self.teacher:
            found["teacher"] = jax.ShapeDtypeStruct((*each, self.teacher), np.float32)
        return found


class Sequences(NamedTuple):
    """Some sources, each with a target after it."""

    sources: list[np.ndarray]
    targets: list[np.ndarray]


class QuestionBatches:
    """Batch `step` of a stream, all of one shape. Each process packs its own examples."""

    def __init__(
        self,
        stream: Stream,
        loop: LoopConfig,
        steps: int,
        max_length: int,
        tokenizer: Tokenizer,
        mesh: jax.sharding.Mesh,
        teacher: np.ndarray | None = None,
    ):
        """loop: how examples are batched. teacher: its vectors [texts, D], those that are drawn in `steps`."""
        self._stream, self._loop, self._max_length, self._tokenizer = stream, loop, max_length, tokenizer
        self._teacher, self._parts = teacher, data_share(mesh).parts
        questions = stream.questions
        # With [CLS] and [SEP]; of a target [SEP] alone.
        self._plain = questions.ids.lengths + 2
        self._cut = np.minimum(questions.words.ids.lengths + 2, max_length // 2) if questions.words else self._plain
        longest = min(int(max(self._plain.max(), self._cut.max()) + self._plain.max()), max_length)
        self._room = min(2 << (longest - 1).bit_length(), max(max_length, 16))  # two or more to a row
        self._rows, self._most = self._measure(steps, parts_of("batch", mesh) // self._parts)

    def _measure(self, steps: int, devices: int) -> tuple[int, int]:
        """The rows, and predicted positions of a row, that serve all batches."""
        rows = most = 1
        bar = progress_bar(0, steps, "batch")
        for step in range(steps):
            drawn = self._drawn(step)
            for part in range(self._parts):
                for group in self._microbatches(part):
                    sources, targets = self._lengths(drawn, group)
                    packed = pack((sources + targets).tolist(), self._room)
                    rows = max(rows, len(packed))
                    most = max(most, *(int(targets[row].sum()) for row in packed))
            bar.update()
        bar.close()
        return -(-rows // devices) * devices, most

    @property
    def form(self) -> QuestionForm:
        """That of a microbatch, over all processes."""
        width = 0 if self._teacher is None else self._teacher.shape[1]
        return QuestionForm(self._rows * self._parts, self._room, self._most, width)

    def _drawn(self, step: int) -> Drawn:
        size = self._loop.batch_size
        return self._stream.draw(step * size, size)

    def _microbatches(self, part: int) -> list[np.ndarray]:
        """The examples of each microbatch of this part: e goes to e % accumulate, as training.loop has it."""
        size, accumulate = self._loop.batch_size // self._parts, self._loop.accumulate
        return [np.arange(part * size + m, (part + 1) * size, accumulate) for m in range(accumulate)]

    def _lengths(self, drawn: Drawn, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of sources and of targets [2 B], both directions of an example side by side; none longer together than
        may be: the longer one is cut first."""
        texts = drawn.texts[group]
        sources = np.where(drawn.corrupted[group], self._cut[texts], self._plain[texts]).reshape(-1)
        targets = self._plain[texts[:, ::-1]].reshape(-1) - 1
        over = np.maximum(sources + targets - self._max_length, 0)
        gap = np.minimum(np.abs(sources - targets), over)
        longer = sources > targets
        rest = over - gap
        return sources - gap * longer - -(-rest // 2), targets - gap * ~longer - rest // 2

    def sequences(self, step: int) -> Sequences:
        """All of a batch, not packed: both directions of each example side by side."""
        return self._sequences(step, self._drawn(step), np.arange(self._loop.batch_size))

    def _sequences(self, step: int, drawn: Drawn, group: np.ndarray) -> Sequences:
        tokenizer, questions = self._tokenizer, self._stream.questions
        begin, end = tokenizer.frame_source([], 3)
        words, mask = questions.words, tokenizer.mask_id
        sources, targets = [], []
        for row, (source, target) in enumerate(zip(*self._lengths(drawn, group), strict=True)):
            example, side = group[row // 2], row % 2
            text, other = drawn.texts[example, side], drawn.texts[example, 1 - side]
            ids = questions.ids[text]
            if drawn.corrupted[example, side] and words and mask is not None:
                draw = np.random.default_rng([self._stream.seed, 3, step, example, side])
                begins = Ragged(words.begins, words.ids.ends)[text]
                ids = corrupt(words.ids[text], begins, draw, mask=mask, size=tokenizer.vocab_size)
            sources.append(np.concatenate([[begin], ids[: source - 2], [end]]))
            # What is cut has no end: it would teach to end within a sentence.
            targets.append(np.concatenate([questions.ids[other], [end]])[:target])
        return Sequences(sources, targets)

    def __call__(self, first: int, share: Share) -> Iterator[HostBatch]:
        """Batch `first` and all later: see `batch`."""
        for step in itertools.count(first):
            yield self.batch(step, share)

    def batch(self, step: int, share: Share) -> HostBatch:
        """A process's ids, segments and types [r, T]; places [b, 2] of the sources among all texts of the rows, as
        retrieval.tuning.program has them; targets [r, M], the positions that predict labels [r, M], -1 for none; texts
        [b, 2], their numbers; and the teacher's vectors of them [b, 2, D]."""
        drawn = self._drawn(step)
        parts = (self._sequences(step, drawn, group) for group in self._microbatches(share.part))
        batch = interleaved([self._laid(sequences, share.part) for sequences in parts])
        size = self._loop.batch_size // self._parts
        batch["texts"] = drawn.texts[share.part * size : (share.part + 1) * size].astype(np.int32)
        if self._teacher is not None:
            batch["teacher"] = self._teacher[batch["texts"]]
        return batch

    def _laid(self, sequences: Sequences, part: int) -> HostBatch:
        """A microbatch's rows."""
        joined = [np.concatenate(pair) for pair in zip(*sequences, strict=True)]
        packed, shape = pack([len(x) for x in joined], self._room), (self._rows, self._room)
        kinds = [np.repeat([0, 1], [len(s), len(t)]) for s, t in zip(*sequences, strict=True)]
        ids, segments = lay_out(packed, [x.tolist() for x in joined], shape, self._tokenizer.pad_id)
        types, _ = lay_out(packed, [x.tolist() for x in kinds], shape, 0)
        targets, labels = (np.full((self._rows, self._most), fill, np.int32) for fill in (-1, 0))
        for row in range(len(packed)):
            written = np.flatnonzero(types[row])
            targets[row, : len(written)], labels[row, : len(written)] = written - 1, ids[row, written]
        places = places_of(packed, part * self._rows, self._room).reshape(-1, 2)
        rows = {"ids": ids, "segments": segments, "types": types, "targets": targets, "labels": labels}
        return rows | {"places": places}
