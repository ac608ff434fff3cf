"""The second of two stages: a prepared set -> batches of int32 arrays, the same on any number of hosts.

The position in the data is the step number alone: batch n of a run is a pure function of (sets, weights, seed, n), and
process p of P reads rows p*B/P .. (p+1)*B/P of it. So a run resumes on another number of hosts without replaying or
losing a row.
"""

import sys
from collections.abc import Iterator

import grain

from pegasus_zh.rows.mixture import Round
from pegasus_zh.rows.packed_rows import Batch, PackedRows
from training.mesh import WHOLE, Share

ENDLESS = sys.maxsize // 2  # rows; batches of one of twice as many are more than grain counts
READING = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)  # batches; decoding one takes about a millisecond


def train_batches(
    rows: PackedRows,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    share: Share = WHOLE,
) -> Iterator[Batch]:
    """Endless batches from number `start_step` on, a process's share of each; every epoch of a set is a new
    shuffle of it, and of several sets each has its share of any number of rows, as whole rows allow.

    Arrays are int32 (batch_size / share.parts, row length), see packing.decode_rows: of pairs source,
    source_segments, target (the labels), target_inputs and target_segments; of plain text ids and segments. Raises
    ValueError for a batch size that does not divide among the processes.
    """
    orders, first = [], 0
    for number, size in enumerate(rows.sizes):
        order = grain.MapDataset.range(first, first + size).shuffle(seed=(seed + number) % 2**32)
        orders.append(order.repeat(ENDLESS // size))
        first += size
    if len(orders) == 1:
        return _batches(rows, orders[0], batch_size, start_step, share)
    turns = Round.of(rows.weights)

    def row(n: int) -> int:
        turn, before = turns[n]
        return orders[turn][before]

    return _batches(rows, grain.MapDataset.range(ENDLESS).map(row), batch_size, start_step, share)


def eval_batches(rows: PackedRows, *, batch_size: int, share: Share = WHOLE) -> Iterator[Batch]:
    """Every row once, in order, as train_batches gives them; the last batch is filled with empty rows."""
    batches = -(-len(rows) // batch_size)
    order = grain.MapDataset.range(batches * batch_size)
    return _batches(rows, order, batch_size, 0, share)


def _batches(rows: PackedRows, order: grain.MapDataset, batch_size: int, start: int, share: Share) -> Iterator[Batch]:
    part, parts = share
    if batch_size < 1 or batch_size % parts:
        raise ValueError(f"batch size {batch_size} does not divide among {parts} processes")
    # In batches of one process's size, number n * parts + p is process p's share of batch n.
    shares = order.batch(batch_size // parts)[start * parts + part :: parts].map(rows.batch)
    return iter(shares.to_iter_dataset(READING))
