"""Packing: several examples share one row of fixed shape, so that a batch holds little padding.

An example has one or more sides, such as the source that an encoder reads and the target that a decoder writes, and a
row so many positions for each. An example must fit on every side: bin packing in as many dimensions. Attention is kept
inside an example by segment numbers, as in T5X.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, product
from math import prod

import numpy as np

Example = tuple[np.ndarray, ...]  # ids of each side

MOST_PADDING = 0.04  # of all positions: what choose_row_shape aims at
MULTIPLE = 32  # of which every side of a chosen row is
WINDOW = 64  # candidates compared two by two; half as many cost 0.3% more padding, twice as many double the time


@dataclass(frozen=True)
class Side:
    """One of the sequences of ids that an example is. A prepared set knows it by its name."""

    name: str  # of its ids in a batch
    segments: str  # and of their segments
    longest: str  # the setting that says how many ids it has at most
    row: str  # the setting that says how many positions of a row it has; 0: chosen by the texts
    inputs: str = ""  # of a decoder's labels: what they are called behind their start, which `longest` counts too


SOURCE = Side("source", "source_segments", "max_source", "row_source")
TARGET = Side("target", "target_segments", "max_target", "row_target", inputs="target_inputs")
IDS = Side("ids", "segments", "max_source", "row_source")


def pack(lengths: np.ndarray, row: Sequence[int], most: int | None = None) -> list[list[int]]:
    """Rows of example indices, every example in one row, at `most` so many in each, for `lengths` int [n, sides] and
    the positions of a row, one number a side. Raises ValueError for an example that fits none.

    The largest example left opens a row. Then, again and again, it is joined by that one, or those two, that leave
    least of the row free, counted on the side with the larger share left: to fill all sides evenly matters as much as
    to fill them. Looking two ahead halves first fit's padding. Of many candidates an even sample by size is compared.
    """
    if (over := (lengths > row).any(1)).any():
        raise ValueError(f"an example of lengths {lengths[over][0]} does not fit a row of {tuple(row)}")
    if most:  # the number of examples is one side more, of which each takes one
        lengths, row = np.pad(lengths, ((0, 0), (0, 1)), constant_values=1), (*row, most)
    full = prod(row)  # every side is counted in units in which a row holds this much
    units = lengths.astype(np.int64) * [full // positions for positions in row]
    order = np.argsort(-units.sum(1), kind="stable")
    sides = [*units[order].T.copy()]
    taken = full + 1  # never fits: marks the examples already in a row
    rows = []
    for first in range(len(order)):
        if sides[0][first] == taken:
            continue
        members, joining, rooms = [], [first], [full] * len(sides)
        while joining:
            for example in joining:
                members.append(example)
                rooms = [room - int(side[example]) for room, side in zip(rooms, sides, strict=True)]
                sides[0][example] = taken
            joining = _best_two(sides, rooms, first)
        rows.append(order[members].tolist())
    return rows


def _best_two(sides: Sequence[np.ndarray], rooms: Sequence[int], start: int) -> list[int]:
    """The two examples, or the one, that leave least of the room; none if none fits. All before `start` are taken."""
    fits = [side[start:] <= room for side, room in zip(sides, rooms, strict=True)]
    fitting = start + np.flatnonzero(reduce(np.logical_and, fits))
    if len(fitting) > WINDOW:
        fitting = fitting[np.arange(WINDOW) * len(fitting) // WINDOW]
    if not len(fitting):
        return []
    chosen = [side[fitting] for side in sides]
    by_one = [room - side for room, side in zip(rooms, chosen, strict=True)]
    # Read as unsigned, room below 0 is more than any other: two that do not fit are never the best.
    by_two = [(left[:, None] - side).view(np.uint64) for left, side in zip(by_one, chosen, strict=True)]
    left = reduce(np.maximum, by_two)
    left.flat[:: len(fitting) + 1] = reduce(np.maximum, by_one)  # the diagonal: that example alone
    first, second = divmod(int(left.argmin()), len(fitting))
    return [int(fitting[i]) for i in {first, second}]


def padding(lengths: np.ndarray, rows: int, row: Sequence[int]) -> tuple[float, ...]:
    """The share of padding among the positions of `rows` rows: of each side, and last of all together."""
    used = lengths.sum(0)
    return *(1 - used / (rows * np.array(row))).tolist(), float(1 - used.sum() / (rows * sum(row)))


def choose_row_shape(lengths: np.ndarray, longest: Sequence[int], given: Sequence[int]) -> tuple[int, ...]:
    """The shortest row that packs a sample of `lengths` with at most 4% padding; failing that, the least padded.

    longest: ids that an example may have, side by side. Candidates are one to four times the first side's, since long
    documents give many examples of just that length, each with those two lengths of the others that are nearest to the
    sample's ratio. Longer rows pad less, but attention's cost grows with their length, so the shortest that will do
    wins. A side `given` (not 0) is kept.
    """

    def up(length: float) -> int:
        return int(-(-length // MULTIPLE)) * MULTIPLE

    ratios = lengths.sum(0) / max(1, lengths[:, 0].sum())
    best: tuple[int, ...] = ()
    least = np.inf
    for first in [given[0]] if given[0] else [up(times * longest[0]) for times in (1, 2, 3, 4)]:
        others = []
        for ratio, most, kept in zip(ratios[1:], longest[1:], given[1:], strict=True):
            balanced = up(first * ratio)
            others.append(sorted({kept} if kept else {max(up(most), n) for n in (balanced - MULTIPLE, balanced)}))
        for row in product([first], *others):
            share = padding(lengths, len(pack(lengths, row)), row)[-1]
            if share < least:
                best, least = row, share
        if least <= MOST_PADDING:
            break
    return best


def encode_row(examples: Sequence[Example], dtype: str) -> bytes:
    """One record: the number of examples n, the n lengths of each side, side by side, and all ids of each side.

    All in `dtype`, little-endian: "<u2" for vocabularies of up to 65,536, else "<u4".
    """
    sides = [*zip(*examples, strict=True)]
    header = [len(examples), *map(len, chain.from_iterable(sides))]
    return np.concatenate([header, *chain.from_iterable(sides)]).astype(dtype).tobytes()


def decode_rows(
    records: Sequence[bytes], dtype: str, row: Mapping[Side, int], pad_id: int, start_id: int
) -> dict[str, np.ndarray]:
    """int32 arrays of B records, for a `row` of so many positions on each side, in the records' order.

    For each side its ids and its segments [B, positions], as it calls them. Segments number a row's examples from 1; 0
    is padding. Labels come with a decoder's inputs: the labels shifted one to the right inside each segment, which
    starts with `start_id`. An empty record gives a row of padding.
    """
    batch = {
        name: np.full((len(records), positions), pad_id, np.int32)
        for side, positions in row.items()
        for name in filter(None, (side.name, side.inputs))
    }
    segments = {side.segments: np.zeros_like(batch[side.name]) for side in row}
    for number, record in enumerate(records):
        if not record:
            continue
        values = np.frombuffer(record, dtype)
        examples = int(values[0])
        begin = 1 + len(row) * examples
        lengths = values[1:begin].astype(np.int32).reshape(len(row), examples)
        numbers = np.arange(1, examples + 1, dtype=np.int32)
        for side, own in zip(row, lengths, strict=True):
            used = int(own.sum())
            ids, begin = values[begin : begin + used], begin + used
            batch[side.name][number, :used] = ids
            segments[side.segments][number, :used] = numbers.repeat(own)
            if side.inputs:
                batch[side.inputs][number, 1:used] = ids[:-1]
                batch[side.inputs][number, own.cumsum() - own] = start_id
    return batch | segments
