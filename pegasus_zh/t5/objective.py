"""The pretraining loss of mT5 over packed rows."""

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh.t5.mt5 import MT5, MT5Config, embed, run_decoder, run_encoder
from rope.layers.cross_entropy import cross_entropy
from training.partition import gather
from training.step import Batch, Sums


def batch_shapes(rows: int, source: int, target: int) -> dict[str, tuple[int, int]]:
    """The arrays of a batch that `loss` takes, all int32; see packing.decode_rows."""
    shapes = dict.fromkeys(("source", "source_segments"), (rows, source))
    return shapes | dict.fromkeys(("target", "target_inputs", "target_segments"), (rows, target))


def count_tokens(batch: dict[str, np.ndarray]) -> tuple[int, int]:
    """(real tokens, positions) of a batch, source and target together."""
    segments = [batch["source_segments"], batch["target_segments"]]
    return sum(int(np.count_nonzero(s)) for s in segments), sum(s.size for s in segments)


def loss(
    model: MT5, batch: Batch, key: jax.Array | None, *, config: MT5Config, smoothing: float = 0.0, z_loss: float = 0.0
) -> Sums:
    """The pretraining loss of packed rows, as sums for the engine: `loss` (minimised), `cross_entropy`, `accuracy`.

    batch: source, source_segments [B, S]; target (labels), target_inputs, target_segments [B, T].
    `key` turns dropout on.
    """
    encoder_key, decoder_key = jax.random.split(key) if key is not None else (None, None)
    source, inputs = batch["source"], batch["target_inputs"]
    # Looked up at once, so that the table has one gradient, scattered and summed over devices once.
    embedded = embed(model, jnp.concatenate([source, inputs], axis=1), config)
    x, y = jnp.split(embedded, [source.shape[1]], axis=1)
    encoded = run_encoder(model, x, batch["source_segments"], config, encoder_key)
    segments = batch["target_segments"]
    hidden = run_decoder(model, y, segments, encoded, batch["source_segments"], config, decoder_key)
    weights = (segments > 0).astype(jnp.float32)
    head = gather(model.head, "embed", "vocab", dtype=hidden.dtype)
    sums = cross_entropy(hidden, (head, None), batch["target"], weights, smoothing, z_loss)
    return {name: (s, weights.sum()) for name, s in zip(("loss", "cross_entropy", "accuracy"), sums, strict=True)}
