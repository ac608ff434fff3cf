"""Does a model use its source? What it makes likelier, and what of it is written.

A pretrained model that helps must look at what it is to summarise: a loss alone does not tell, since frequent words
lower it too. Two measures do. The *source gain* is by how many nats a token of a target is likelier after its own
source than after another one. The *part from the source* is the share of a written text's n-grams that stand in it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import jax
import numpy as np

from pegasus_zh.rows.makers import given_pairs
from pegasus_zh.rows.packing import SOURCE, Example
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.objective import loss
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.tuning import batch_of_pairs
from training.loop import to_mesh
from training.mesh import WHOLE
from training.partition import parts_of
from training.program import HostBatch
from training.step import Batch, Sums

ROWS = 32  # pairs of a batch, at most
COPIED = 16  # ids of a source that are to be copied, at most


def batches_of(
    pairs: Sequence[Example], tokenizer: Tokenizer, shape: tuple[int, int], mesh: jax.sharding.Mesh
) -> list[HostBatch]:
    """Full batches of (source, target), one pair a row of shape (S, T); the last few pairs may be left out, and where
    a mesh has more parts than there are pairs, some come again."""
    parts = parts_of("batch", mesh)
    rows = max(min(ROWS, len(pairs)) // parts, 1) * parts
    taken = list(islice(cycle(pairs), max(len(pairs) // rows, 1) * rows))
    return [batch_of_pairs(taken[i : i + rows], WHOLE, tokenizer, shape, rows) for i in range(0, len(taken), rows)]


def probe(
    pairs: Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    mesh: jax.sharding.Mesh,
    *,
    max_source: int,
    max_target: int,
    most: int | None = None,
) -> list[HostBatch]:
    """Batches of (source, reference), all of one shape, so that one program measures them. most: ids of a reference,
    where it is to have fewer than there is room for."""
    examples = given_pairs(pairs, tokenizer, max_source=max_source, max_target=most or max_target)
    return batches_of([example for (example,) in examples], tokenizer, (max_source, max_target), mesh)


def probes_of(
    tasks: Mapping[str, Sequence[tuple[str, str]]], tokenizer: Tokenizer, mesh: jax.sharding.Mesh, **lengths: int
) -> dict[str, list[HostBatch]]:
    """What the gain of a pretraining is measured on: the pairs of each task, and `copy`, the first task's sources with
    their own beginnings as targets, which whatever copies has for nothing."""
    probes = {name: probe(pairs, tokenizer, mesh, **lengths) for name, pairs in tasks.items()}
    copies = [(source, source) for source, _ in next(iter(tasks.values()))]
    most = min(COPIED, lengths["max_target"])
    return probes | {"copy": probe(copies, tokenizer, mesh, **lengths, most=most)}


def source_gain(model: mt5.MT5, config: mt5.MT5Config, batches: Sequence[HostBatch]) -> float:
    """Nats a token, under the mesh that is set: the cross-entropy of the targets after the source of the row before
    each, less that after their own. 0: the source is not looked at; below 0: it misleads."""
    mesh = jax.sharding.get_mesh()

    def sums(batch: HostBatch) -> np.ndarray:
        total, tokens = _cross_entropy(model, to_mesh(batch, mesh), config=config)["cross_entropy"]
        return np.array([float(total), float(tokens)])

    moved = [
        batch | {name: np.roll(batch[name], 1, axis=0) for name in (SOURCE.name, SOURCE.segments)} for batch in batches
    ]
    own, other = (np.sum([*map(sums, rows)], axis=0) for rows in (batches, moved))
    return float((other[0] - own[0]) / own[1])


@partial(jax.jit, static_argnames="config")
def _cross_entropy(model: mt5.MT5, batch: Batch, *, config: mt5.MT5Config) -> Sums:
    return loss(model, batch, None, config=config)


def gains(
    config: mt5.MT5Config, probes: Mapping[str, Sequence[HostBatch]]
) -> Callable[[mt5.MT5, int], dict[str, float]]:
    """(model, step) -> {"gain_NAME": the source gain of each probe}, for evaluations of a training."""
    return lambda model, step: {f"gain_{name}": source_gain(model, config, rows) for name, rows in probes.items()}


def part_from_source(written: Sequence[str], sources: Sequence[str], n: int = 2) -> np.ndarray:
    """Of each written text, the share of its n-grams of characters that stand in its source, white space aside;
    0 of a text that has none. float64 [texts]."""

    def part(text: str, source: str) -> float:
        text, source = ("".join(x.split()) for x in (text, source))
        grams = [text[i : i + n] for i in range(len(text) + 1 - n)]
        return sum(gram in source for gram in grams) / max(len(grams), 1)

    return np.array([part(*pair) for pair in zip(written, sources, strict=True)])
