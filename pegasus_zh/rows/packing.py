"""Packing: several (source, target) pairs share one row of fixed shape, so that a batch holds little padding.

Each row has two sides, `row_source` positions for the encoder and `row_target` for the decoder, and a pair must fit in
both: two-dimensional bin packing. Attention is kept inside a pair by segment numbers, as in T5X.
"""

from collections.abc import Sequence

import numpy as np

MOST_PADDING = 0.04  # of all positions: what choose_row_shape aims at
MULTIPLE = 32  # of which both sides of a chosen row are
WINDOW = 64  # candidates compared two by two; half as many cost 0.3% more padding, twice as many double the time


def pack(lengths: np.ndarray, row_source: int, row_target: int) -> list[list[int]]:
    """Rows of pair indices, every pair in one row, for `lengths` (pairs, 2) of source and target.

    The largest pair left opens a row. Then, again and again, it is joined by that pair, or those two, that leave least
    of the row free, counted on the side with the larger share left: to fill both sides evenly matters as much as to
    fill them. Looking two ahead halves first fit's padding. Of many candidates an even sample by size is compared.
    """
    if (over := (lengths > (row_source, row_target)).any(1)).any():
        raise ValueError(f"a pair of lengths {lengths[over][0]} does not fit a row of ({row_source}, {row_target})")
    full = row_source * row_target  # both sides are counted in units in which a row holds this much
    units = lengths.astype(np.int64) * (row_target, row_source)
    order = np.argsort(-units.sum(1), kind="stable")
    source, target = units[order].T.copy()
    taken = full + 1  # never fits: marks the pairs already in a row
    rows = []
    for first in range(len(order)):
        if source[first] == taken:
            continue
        row, joining, room_source, room_target = [], [first], full, full
        while joining:
            for pair in joining:
                row.append(pair)
                room_source -= int(source[pair])
                room_target -= int(target[pair])
                source[pair] = taken
            joining = _best_two(source, target, room_source, room_target)
        rows.append(order[row].tolist())
    return rows


def _best_two(source: np.ndarray, target: np.ndarray, room_source: int, room_target: int) -> list[int]:
    """The two pairs, or the one, that leave least of the room; none if none fits."""
    fitting = np.flatnonzero((source <= room_source) & (target <= room_target))
    if len(fitting) > WINDOW:
        fitting = fitting[np.arange(WINDOW) * len(fitting) // WINDOW]
    if not len(fitting):
        return []
    left_source, left_target = room_source - source[fitting], room_target - target[fitting]  # by one pair
    two_source, two_target = left_source[:, None] - source[fitting], left_target[:, None] - target[fitting]
    left = np.maximum(two_source, two_target)
    left[(two_source < 0) | (two_target < 0)] = room_source + room_target + 1
    left.flat[:: len(fitting) + 1] = np.maximum(left_source, left_target)  # the diagonal: that pair alone
    first, second = divmod(int(left.argmin()), len(fitting))
    return [int(fitting[i]) for i in {first, second}]


def padding(lengths: np.ndarray, rows: int, row_source: int, row_target: int) -> tuple[float, float, float]:
    """The share of padding among the positions of `rows` rows: source side, target side, both."""
    shape = np.array([row_source, row_target])
    used = lengths.sum(0)
    return *(1 - used / (rows * shape)).tolist(), float(1 - used.sum() / (rows * shape.sum()))


def choose_row_shape(
    lengths: np.ndarray, max_source: int, max_target: int, row_source: int = 0, row_target: int = 0
) -> tuple[int, int]:
    """The shortest row that packs a sample of `lengths` with at most 4% padding; failing that, the least padded.

    Candidates are one to four times `max_source`, since long documents give many pairs of just that length, each with
    the two targets nearest to the sample's ratio of target to source. Longer rows pad less, but attention's cost grows
    with their length, so the shortest that will do wins. A side given (not 0) is kept.
    """

    def up(length: float) -> int:
        return int(-(-length // MULTIPLE)) * MULTIPLE

    ratio = lengths[:, 1].sum() / max(1, lengths[:, 0].sum())
    best, least = None, np.inf
    for source in [row_source] if row_source else [up(times * max_source) for times in (1, 2, 3, 4)]:
        balanced = up(source * ratio)
        targets = {row_target} if row_target else {max(up(max_target - 1), t) for t in (balanced - MULTIPLE, balanced)}
        for target in sorted(targets):
            share = padding(lengths, len(pack(lengths, source, target)), source, target)[2]
            if share < least:
                best, least = (source, target), share
        if least <= MOST_PADDING:
            break
    return best


def encode_row(pairs: Sequence[tuple[np.ndarray, np.ndarray]], dtype: str) -> bytes:
    """One record: the number of pairs n, n source lengths, n target lengths, all source ids, all target ids.

    All in `dtype`, little-endian: "<u2" for vocabularies of up to 65,536, else "<u4".
    """
    sources, targets = zip(*pairs, strict=True)
    header = [len(pairs), *map(len, sources), *map(len, targets)]
    return np.concatenate([header, *sources, *targets]).astype(dtype).tobytes()


def decode_rows(
    records: Sequence[bytes], dtype: str, row_source: int, row_target: int, pad_id: int, start_id: int
) -> dict[str, np.ndarray]:
    """int32 arrays of B records: source, source_segments (B, row_source); target, target_inputs, target_segments
    (B, row_target).

    Segments number a row's pairs from 1; 0 is padding. `target` are the labels; `target_inputs` are the labels shifted
    one to the right inside each segment, which starts with `start_id`. An empty record gives a row of padding.
    """
    lengths = {"source": row_source, "target": row_target, "target_inputs": row_target}
    batch = {name: np.full((len(records), length), pad_id, np.int32) for name, length in lengths.items()}
    for side in ("source", "target"):
        batch[f"{side}_segments"] = np.zeros_like(batch[side])
    for row, record in enumerate(records):
        if not record:
            continue
        values = np.frombuffer(record, dtype)
        pairs = int(values[0])
        source_lengths, target_lengths = values[1 : 1 + 2 * pairs].astype(np.int32).reshape(2, pairs)
        source, target = int(source_lengths.sum()), int(target_lengths.sum())
        segments = np.arange(1, pairs + 1, dtype=np.int32)
        batch["source"][row, :source] = values[1 + 2 * pairs : -target]
        batch["source_segments"][row, :source] = segments.repeat(source_lengths)
        batch["target"][row, :target] = values[-target:]
        batch["target_segments"][row, :target] = segments.repeat(target_lengths)
        batch["target_inputs"][row, 1:target] = values[-target:-1]
        batch["target_inputs"][row, target_lengths.cumsum() - target_lengths] = start_id
    return batch
