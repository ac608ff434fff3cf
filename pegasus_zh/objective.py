"""Token cross-entropy with the head's product, a few target positions at a time.

The logits of a whole batch ([B, T, V]: gigabytes at V = 50,000) never exist: the forward pass visits chunks of positions,
and takes each chunk's gradient while its logits are at hand, so nothing is stored and nothing computed twice.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh.mt5 import MT5, MT5Config, decode, encode
from training.partition import gather, spec
from training.step import Batch, Sums

CHUNK_ELEMENTS = 2**25  # logits alive at once, per device: 128 MiB of float32


def _chunk_sums(hidden, head, labels, weights, smoothing: float, z_loss: float):
    """(objective, (cross-entropy, correct)) sums over one chunk [B, C, D]."""
    # Flat, as one product of matrices: see rope.layers.matmul.
    hidden, labels, weights = (x.reshape(-1, *x.shape[2:]) for x in (hidden, labels, weights))
    logits = jnp.matmul(hidden, head, preferred_element_type=jnp.float32, out_sharding=spec("batch", "vocab"))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    onehot = labels[:, None] == jnp.arange(logits.shape[1], out_sharding=spec("vocab"))[None]
    label_logit = jnp.sum(jnp.where(onehot, logits, 0.0), axis=-1)
    entropy = log_z - label_logit
    objective = entropy
    if smoothing:
        objective = (1 - smoothing) * entropy + smoothing * (log_z - logits.mean(-1))
    if z_loss:
        objective = objective + z_loss * jnp.square(log_z)
    correct = (label_logit >= logits.max(-1)).astype(jnp.float32)
    return jnp.sum(objective * weights), (jnp.sum(entropy * weights), jnp.sum(correct * weights))


def _chunks(hidden, head) -> int:
    """How many chunks of target positions: a divisor of T that keeps a chunk's logits below CHUNK_ELEMENTS a device."""
    rows, length = jax.typeof(hidden).sharding.shard_shape(hidden.shape)[:2]
    vocabulary = jax.typeof(head).sharding.shard_shape(head.shape)[1]
    return next(
        n
        for n in range(1, length + 1)
        if length % n == 0 and (rows * length * vocabulary <= n * CHUNK_ELEMENTS or n == length)
    )


def _split(x, n: int):
    """[B, T, ...] -> [n, B, T / n, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], n, -1, *x.shape[2:]), 1, 0)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(hidden, head, labels, weights, smoothing: float = 0.0, z_loss: float = 0.0):
    """Sums over all positions of (objective, cross-entropy, correct predictions), float32 scalars.

    hidden [B, T, D]; head [D, V], whole along D; labels int [B, T]; weights float [B, T]. The objective is the
    cross-entropy against labels smoothed with a uniform share `smoothing`, plus z_loss * log(Z)^2 (PaLM, arXiv
    2204.02311, section 5). Only the objective has a gradient, in hidden and head.
    """
    n = _chunks(hidden, head)
    chunk = lambda c: _chunk_sums(c[0], head, c[1], c[2], smoothing, z_loss)  # noqa: E731
    objective, (entropy, correct) = jax.lax.map(chunk, tuple(_split(x, n) for x in (hidden, labels, weights)))
    return objective.sum(), entropy.sum(), correct.sum()


def _forward(hidden, head, labels, weights, smoothing, z_loss):
    n = _chunks(hidden, head)

    def chunk(head_gradient, c):
        h, y, w = c
        grad = jax.value_and_grad(_chunk_sums, argnums=(0, 1), has_aux=True)
        (objective, (entropy, correct)), (dh, dhead) = grad(h, head, y, w, smoothing, z_loss)
        return head_gradient + dhead.astype(jnp.float32), (dh, jnp.stack([objective, entropy, correct]))

    zero = jnp.zeros_like(head, jnp.float32)  # a sum over chunks, so float32 whatever the head's type
    dhead, (dhidden, sums) = jax.lax.scan(chunk, zero, tuple(_split(x, n) for x in (hidden, labels, weights)))
    dhidden = jnp.moveaxis(dhidden, 0, 1).reshape(hidden.shape)
    return tuple(sums.sum(0)), (dhidden, dhead)


def _backward(smoothing, z_loss, gradients, cotangents):
    dhidden, dhead = (g * cotangents[0].astype(g.dtype) for g in gradients)
    return dhidden, dhead.astype(dhidden.dtype), None, None


cross_entropy.defvjp(_forward, _backward)


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

    batch: source, source_segments [B, S]; target (labels), target_inputs, target_segments [B, T]. `key` turns dropout on.
    """
    encoder_key, decoder_key = jax.random.split(key) if key is not None else (None, None)
    encoded = encode(model, batch["source"], batch["source_segments"], config, encoder_key)
    segments = batch["target_segments"]
    hidden = decode(model, batch["target_inputs"], segments, encoded, batch["source_segments"], config, decoder_key)
    weights = (segments > 0).astype(jnp.float32)
    head = gather(model.head, "embed", "vocab", dtype=hidden.dtype)
    sums = cross_entropy(hidden, head, batch["target"], weights, smoothing, z_loss)
    return {name: (s, weights.sum()) for name, s in zip(("loss", "cross_entropy", "accuracy"), sums, strict=True)}
