"""Windows of long documents, and what an encoder makes of their masked tokens when it reads them in pieces.

Letters: W windows, C tokens of a window, B rows, T positions of a row, M masked tokens, F pairs of a head.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rope.encoder.mlm import Vocabulary, mask_tokens
from rope.encoder.roformer import RoFormer, RoFormerConfig, encode, logits
from rope.layers.cross_entropy import of_labels
from rope.positions.rotary import rotation
from training.loop import to_mesh
from training.partition import parts_of, to_host
from training.program import HostBatch
from training.step import Batch, compiler_options

FRAME = 2  # [CLS] and [SEP] of a row
GROUP = 4  # windows at once


class Windows(NamedTuple):
    """Text of documents without frame, some tokens masked."""

    inputs: np.ndarray  # [W, C]
    labels: np.ndarray  # [W, C]
    masked: np.ndarray  # bool [W, C]
    frame: tuple[int, int]  # the ids before and after a row's text


class Scores(NamedTuple):
    """Of the masked tokens; elsewhere 0."""

    entropy: np.ndarray  # float32 [W, C]: each one's cross-entropy, nats
    right: np.ndarray  # float32 [W, C]: 1 where it is guessed


def full_rows(batches: Iterable[HostBatch]) -> Iterator[np.ndarray]:
    """The ids [T] of the rows that one document fills."""
    for batch in batches:
        for ids, segments in zip(batch["ids"], batch["segments"], strict=True):
            if (segments == 1).all():
                yield ids


def mask_windows(rows: np.ndarray, short: int, vocabulary: Vocabulary) -> Windows:
    """Rows [W, T] as windows of whole pieces for rows of `short`, the share of the masked in each piece the same."""
    inner = short - FRAME
    labels = rows[:, 1:-1][:, : rows.shape[1] // short * inner]
    tokens = jnp.asarray(labels.reshape(-1, inner))
    made = jax.tree.map(np.asarray, mask_tokens(tokens, jnp.ones_like(tokens), vocabulary, jax.random.key(0)))
    masked = np.zeros(tokens.shape, bool)
    np.put_along_axis(masked, made.places, made.weights > 0, 1)
    frame = int(rows[0, 0]), int(rows[0, -1])
    return Windows(made.inputs.reshape(labels.shape), labels, masked.reshape(labels.shape), frame)


def score(
    read: Callable[..., jax.Array],
    model: RoFormer,
    windows: Windows,
    pieces: int,
    mesh: jax.sharding.Mesh,
    *options: jax.Array | np.ndarray,
) -> Scores:
    """What `read`, of `reader`, makes of the masked tokens of windows read in so many pieces."""
    count, parts = len(windows.labels), parts_of("batch", mesh)
    group = -(-GROUP // parts) * parts
    text, labels, masked = (x.reshape(count * pieces, -1) for x in windows[:3])
    places = np.argsort(~masked, axis=1, kind="stable")[:, : masked.sum(1).max()]  # [rows, M]
    rows = {
        "ids": np.pad(text, ((0, 0), (1, 1))),
        "places": places + 1,
        "labels": np.take_along_axis(labels, places, 1),
    }
    rows["ids"][:, 0], rows["ids"][:, -1] = windows.frame
    found = []
    for begin in range(0, count, group):
        which = np.arange(begin * pieces, (begin + group) * pieces) % len(text)  # one shape, one program
        made = to_host(read(model, to_mesh({name: x[which] for name, x in rows.items()}, mesh), *options))
        found.append(made[: len(text) - begin * pieces])
    by_place = np.concatenate(found) * np.take_along_axis(masked, places, 1)[..., None]  # [rows, M, 2]
    scores = np.zeros((*text.shape, 2), np.float32)
    np.put_along_axis(scores, places[..., None], by_place, 1)
    return Scores(*np.moveaxis(scores.reshape(*windows.labels.shape, 2), -1, 0))


def reader(config: RoFormerConfig, magnitude: float = 1.0) -> Callable[..., jax.Array]:
    """A compiled function of a model and a batch (ids [B, T], places and labels [B, M]) -> [B, M, 2]: the cross-entropy
    at each place, and 1 where its label is the likeliest. With frequencies [F] after them, these, of this magnitude, in
    place of the config's."""
    return jax.jit(partial(_read, config=config, magnitude=magnitude), compiler_options=compiler_options())


def _read(
    model: RoFormer, batch: Batch, frequencies: jax.Array | None = None, *, config: RoFormerConfig, magnitude: float
) -> jax.Array:
    ids, places = batch["ids"], batch["places"]
    turns = None
    if frequencies is not None:
        turns = rotation(jnp.arange(ids.shape[1]), frequencies, magnitude=magnitude)
    hidden = encode(model, ids, jnp.ones_like(ids), config, rotation=turns)
    chosen = (places[:, :, None] == jnp.arange(ids.shape[1])[None, None]).astype(hidden.dtype)  # no gather, as in mlm
    scores = logits(model, jnp.einsum("BMT,BTD->BMD", chosen, hidden, precision="highest"), config)
    entropy = jax.nn.logsumexp(scores, -1) - of_labels(scores, batch["labels"])
    return jnp.stack([entropy, jnp.argmax(scores, -1) == batch["labels"]], -1)
